"""Runs the studies in `experiments.studies` and reports on them.

`plan` defines what a study is, `runner` trains what is missing, and `records` keeps the results.
`tables`, `figures` and `page` present them; `gather` does this for runs outside any study.
"""
