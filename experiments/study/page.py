"""The tables of docs/results.md, made from the results, so that they always agree."""

import pathlib
import re

from experiments.study import tables
from experiments.study.plan import load
from experiments.study.records import Results

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"

# <!-- few_labels: 300 labels --> ... <!-- end -->, and likewise "few_labels: claims" and
# "few_labels: likeness, 300 labels".
_TABLE = re.compile(r"(<!-- (\w+): ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """The page with every table filled in from the results."""

    def table(found: re.Match[str]) -> str:
        head, study, what, end = found.groups()
        own = load(study)
        results = Results(ROOT / "experiments" / "results" / f"{study}.json", own)
        if what == "claims":
            content = tables.claims(own, results)
        elif what.startswith(alike := "likeness, "):
            content = tables.likeness(own.block(what.removeprefix(alike)), results)
        else:
            content = tables.markdown(own.block(what), results)
        return f"{head}\n{content}\n\n{end}"

    return _TABLE.sub(table, text)


def fill() -> None:
    """Rewrites the page if a table has changed."""
    text = PAGE.read_text()
    if (new := filled(text)) != text:
        PAGE.write_text(new)
