"""Where things are kept that would be slow to make again: decoded data and compiled programs."""

import os
import pathlib


def cache_dir(*parts: str) -> pathlib.Path:
    """A folder under AFD_JAX_CACHE, or under the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    own = os.environ.get("AFD_JAX_CACHE")
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    root = pathlib.Path(own) if own else base / "afd_jax"
    return root.joinpath(*parts)
