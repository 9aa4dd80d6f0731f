"""Compiled programs kept between processes, so that a second start does not compile again."""

import os
from pathlib import Path

import jax

# Old programs make room for new ones beyond this.
_MOST_BYTES = 2 << 30


def keep_compiled_programs() -> None:
    """Keeps what took half a second or more to compile in the user's cache folder, ~/.cache/fooddit/compiled.

    JAX's own environment variables win: JAX_COMPILATION_CACHE_DIR for another place, also gs://, as on a pod, and
    JAX_ENABLE_COMPILATION_CACHE=false for none. A program is found by its code, the compiler's version, its flags and
    the devices; it is the same program, so results are the same bits.
    """
    if jax.config.jax_compilation_cache_dir is None:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "fooddit" / "compiled"))
        jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
