"""`python -m afd_jax`: the same as the installed command `afd-train`."""

import sys

from afd_jax.commands.train import program

if __name__ == "__main__":
    sys.exit(program())
