"""Studies: settings times seeds, trained to the end and compared seed by seed.

Each module here with a `STUDY` is one; `python -m experiments.study NAME` trains what it lacks.
"""
