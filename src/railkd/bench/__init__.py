"""A bench compares methods: a grid file becomes a plan of jobs, an executor runs them, and each job leaves a record.

``grid`` holds the values of a grid file and ``grid_reader`` reads it, ``plan`` makes the jobs, ``attempt`` runs one of
them, ``executors`` decides where, and ``loop`` runs the whole plan. ``results`` reads what jobs left, for resuming.
"""
