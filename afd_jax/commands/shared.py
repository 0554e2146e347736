"""What all command lines share: errors as one line and an exit code, and packages of extras."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable

# Modules that only an extra installs.
EXTRAS = {
    "train": (
        "PIL",
        "array_record",
        "etils",
        "importlib_resources",
        "jinja2",
        "matplotlib",
        "sklearn",
        "tensorflow_datasets",
        "tqdm",
    ),
    "streaming": ("grain",),
    "parquet": ("pyarrow",),
    "export": ("flatbuffers", "safetensors"),
    "onnx": ("jax2onnx", "onnxruntime"),
    "gcs": ("gcsfs",),
    "s3": ("s3fs",),
    "tensorboard": ("tensorboardX",),
    "wandb": ("wandb",),
}


def guarded(work: Callable[[], int], *, continues: bool = False) -> int:
    """Does a command's work, and turns its errors into one line and an exit code.

    Args:
      work: returns an exit code.
      continues: the same command continues from a checkpoint, and errors say so.

    Returns:
      What `work` does, 0 when done; 1 if a loss is not finite, an image cannot be read or results
      cannot be written; 2 for a setting that cannot work or an extra that is not installed; 130
      after Ctrl-C; 141 if what is printed is not read to its end.
    """
    from afd_jax.errors import (
        Diverged,
        Interrupted,
        SettingError,
        StorageError,
        UnreadableError,
        shortened,
    )

    # A network of one's own may lie in the current folder, also for the installed command; but no
    # file there must stand in for a package.
    sys.path.append(os.getcwd())
    try:
        code = work()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # nobody reads on: `| head`, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Interrupted as stop:
        print(f"{stop}; the same command continues", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        hint = "; the same command continues from the last checkpoint" if continues else ""
        print(f"stopped{hint}", file=sys.stderr)
        return 130
    except Diverged as error:
        return _refused(f"training diverged at {error}", 1)
    except UnreadableError as error:
        return _refused(f"{error}{'; the last checkpoint stays' if continues else ''}", 1)
    except StorageError as error:
        words = f"{error}; the last whole checkpoint stays, and the same command continues from it"
        return _refused(words, 1)
    except OSError as error:
        return _refused(
            f"{shortened(str(error.filename or 'a file'))}: {error.strerror or error}", 1
        )
    except SettingError as error:
        return _refused(str(error), 2)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        for extra, modules in EXTRAS.items():
            if module in modules:
                return _refused(f"{module} is missing; pip install 'afd-jax[{extra}]'", 2)
        raise


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option that lets a run's folder name code to import."""
    words = "import networks and a method that the run names as package.module:Class"
    parser.add_argument("--trust", action="store_true", help=words)


def require(*modules: str) -> None:
    """Raises ModuleNotFoundError for a module that is not installed, before it is needed."""
    for module in modules:
        if not importlib.util.find_spec(module):
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def _refused(words: str, code: int) -> int:
    print(f"error: {words}", file=sys.stderr)
    return code
