"""Rows, columns, labels and metrics: what a data set is, before any model sees it.

A leaf: of railkd it knows the errors only, and neither torch nor transformers.
"""
