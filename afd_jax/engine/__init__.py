"""The pure engine: states, the step, evaluation, devices; no files and no settings."""
