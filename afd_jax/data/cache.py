"""Where things are kept that would be slow to make again: decoded data and compiled programs."""

import os
import pathlib


def cache_dir(*parts: str) -> pathlib.Path:
    """A folder under AFD_JAX_CACHE, or under the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    own = os.environ.get("AFD_JAX_CACHE")
    if not own:
        own = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "afd_jax")
    return pathlib.Path(os.path.expanduser(own)).joinpath(*parts)


def keep_programs() -> None:
    """Lets JAX keep compiled programs there, unless it has a folder for them already."""
    import jax

    own = "jax_compilation_cache_dir"
    if not getattr(jax.config, own):
        jax.config.update(own, str(cache_dir("xla")))
        # Small programs, too: together they take a second at every start.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
