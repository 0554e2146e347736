"""Imports run one way through the rooms, and never in a circle."""

import ast
import pathlib

import afd_jax

PACKAGE = pathlib.Path(afd_jax.__file__).parent

# What each room may import, beside itself. `__init__` is the face, and imports when touched.
BELOW = {
    "errors": set(),
    "drawing": set(),
    "graph": {"errors", "drawing"},
    "cpu": set(),
    "speedups": {"cpu"},
    "losses": set(),
    "networks": {"errors", "speedups"},
    "methods": {"errors", "graph", "losses", "networks"},
    "engine": {"errors", "graph", "losses", "speedups", "networks", "methods"},
    "data": {"errors"},
    "reports": {"graph", "networks", "engine", "speedups"},
}
BELOW["runs"] = {*BELOW} - {"cpu", "drawing"}
BELOW["exports"] = {*BELOW} - {"cpu", "drawing"}
BELOW["commands"] = {*BELOW} - {"cpu"}
BELOW["__main__"] = {"commands"}


def modules():
    """Every module's name and the modules of this package that it imports, anywhere in it."""
    names = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    for name, file in names.items():
        found = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name} imports by dots"
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    found.add(whole if whole in names else node.module)
        yield name, {other for other in found if other in names and other != name}


def room(name):
    return name.split(".")[1] if "." in name else "afd_jax"


def test_no_arrow_runs_up():
    for name, imported in modules():
        if room(name) != "afd_jax" and not name.startswith("afd_jax.configs"):
            up = {room(other) for other in imported} - {room(name), "afd_jax"} - BELOW[room(name)]
            assert not up, f"{name} imports from {', '.join(up)}, above it"


def test_no_circle():
    arrows = {name: {o for o in found if o != "afd_jax"} for name, found in modules()}
    done: list[str] = []

    def visit(name, path):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in arrows[name]:
                visit(other, [*path, name])
            done.append(name)

    for name in arrows:
        visit(name, [])
