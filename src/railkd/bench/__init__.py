"""The benchmark: a grid file becomes a plan of jobs, an executor runs them, each leaves one record.

``grid`` reads the file, ``plan`` makes the jobs, ``work`` does one of them, ``local`` and ``ray`` say where, ``run`` is
the loop.
"""
