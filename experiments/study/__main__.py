"""`python -m experiments.study`: the command line of `command.py`, in huge pages on a CPU."""

import sys

from afd_jax.speedups import use_huge_pages

if __name__ == "__main__":
    use_huge_pages()
    from experiments.study.command import main  # with JAX, which has to come after it

    sys.exit(main(sys.argv[1:]))
