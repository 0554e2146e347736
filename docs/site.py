"""What the documentation site adds to the pages: code hosts show the same Markdown without it.

Links that leave docs/ lead to a page with that file, maths is written as the site's extension
reads it, and each part of the API has a page made of docstrings.
"""

import os
import pathlib
import re
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = pathlib.Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(\.\./[^)#\s]+)")
PICTURES = (".png", ".svg")

# Title, and what stands on the page.
API = {
    "losses": ("Losses", ["afd_jax.losses"]),
    "networks": ("Networks", ["afd_jax.networks"]),
    "methods": (
        "Methods",
        ["afd_jax.methods", "afd_jax.methods.method", "afd_jax.methods.critic.Critic"],
    ),
    "graph": ("Graph", ["afd_jax.graph"]),
    "cohort": (
        "Cohort",
        [
            "afd_jax.engine.cohort.Cohort",
            "afd_jax.engine.build.make_plan",
            "afd_jax.engine.plan.Plan",
        ],
    ),
    "data": ("Data", ["afd_jax.data"]),
    "train": ("Train", ["afd_jax.runs.trainer.train", "afd_jax.runs.settings"]),
    "load": ("Load", ["afd_jax.runs.trained"]),
}


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages of the API and the files that links lead to."""
    for name, (title, parts) in API.items():
        text = "\n\n".join([f"# {title}", *(f"::: {part}" for part in parts)])
        files.append(File.generated(config, f"api/{name}.md", content=text + "\n"))
    for target in sorted(_linked(files)):
        hidden = {"inclusion": InclusionLevel.NOT_IN_NAV}
        if target.suffix in PICTURES:
            new = File.generated(config, _place(target), abs_src_path=str(target), **hidden)
        else:
            new = File.generated(config, _place(target), content=_shown(target), **hidden)
        files.append(new)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites links that leave docs/, and maths."""
    source = page.file.abs_src_path
    if source is None:  # made here
        return markdown

    def moved(link: re.Match[str]) -> str:
        target = _target(source, link[1])
        if target is None:
            return link[1]
        here = os.path.dirname(page.file.src_uri)
        return os.path.relpath(_place(target), here or ".")

    markdown = LINK.sub(moved, markdown)
    markdown = re.sub(r"^```math\n(.*?)^```$", r"$$\n\1$$", markdown, flags=re.S | re.M)
    return re.sub(r"\$`(.+?)`\$", r"$\1$", markdown, flags=re.S)


def _linked(files: Files) -> set[pathlib.Path]:
    """What pages link to outside docs/."""
    found = set()
    for file in files.documentation_pages():
        if file.abs_src_path:
            links = LINK.findall(pathlib.Path(file.abs_src_path).read_text())
            found |= {_target(file.abs_src_path, link) for link in links}
    return found - {None}


def _target(page: str, link: str) -> pathlib.Path | None:
    """The file or folder that a link leads to, if that is outside docs/."""
    target = (pathlib.Path(page).parent / link).resolve()
    return None if target.is_relative_to(ROOT / "docs") else target


def _place(target: pathlib.Path) -> str:
    """Where the site has it."""
    path = f"source/{target.relative_to(ROOT).as_posix()}"
    return path if target.suffix in PICTURES else f"{path}.md"


def _shown(target: pathlib.Path) -> str:
    """A page with the text of a file, or the names in a folder."""
    name = target.relative_to(ROOT).as_posix()
    if target.is_dir():
        names = (each.name for each in sorted(target.iterdir()) if each.name != "__pycache__")
        return "\n".join([f"# {name}", "", *(f"- `{name}/{each}`" for each in names)])
    text = target.read_text()
    if len(text) > 50_000:
        return f"# {name}\n\nThis file is too long to show; the repository has it.\n"
    language = {".py": "python", ".ipynb": "json"}.get(target.suffix, target.suffix[1:])
    return f"# {name}\n\n````{language}\n{text}\n````\n"
