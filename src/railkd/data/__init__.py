"""Rows in, predictions out: sources, formats, columns, labels, keys, tokens and batches."""
