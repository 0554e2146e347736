"""Where things are kept that would be slow to make again: decoded data and compiled programs."""

import os
import pathlib


def cache_dir(*parts: str) -> pathlib.Path:
    """A folder under AFD_JAX_CACHE, or under the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    own = os.environ.get("AFD_JAX_CACHE")
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    root = pathlib.Path(own) if own else base / "afd_jax"
    return root.joinpath(*parts)


def keep_programs() -> None:
    """Lets JAX keep compiled programs there, unless it has a folder for them already."""
    import jax

    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_dir("xla")))
        # Small programs, too: together they take a second at every start.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
