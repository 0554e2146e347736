"""Code that a run's folder may name; no test imports it, so that one can see who does."""

from afd_jax.methods import Independent


class Never(Independent):
    """Nobody asked for it."""
