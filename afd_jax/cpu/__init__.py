"""What exists only because of XLA on CPUs: it changes speed, not numbers.

Only `afd_jax.speedups` imports this folder, and does without it if it is not there.
"""
