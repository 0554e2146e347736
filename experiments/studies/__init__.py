"""Studies: settings trained with several seeds each and compared seed by seed.

Each module here that defines a `STUDY` is one; `python -m experiments.study NAME` trains its
missing runs.
"""
