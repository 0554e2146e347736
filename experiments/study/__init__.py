"""Runs the studies in `experiments.studies` and reports on them.

`plan` says what a study is, `runner` trains what is missing, `records` keeps what came out;
`tables`, `figures` and `page` show it, and `gather` does so for runs outside of any study.
"""
