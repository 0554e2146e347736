"""Runs the studies in `experiments.studies` and reports on them.

`plan` says what a study is, `runner` trains what is missing, `records` keeps what came out,
`statistics` compares, `tables`, `figures` and `page` show it.
"""
