"""The machine: hardware, ranks, progress, environment, and files that are complete or absent."""
