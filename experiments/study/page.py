"""The numbers of the studies in the pages, made from the results, so that they always agree."""

import os
import pathlib
import re

from experiments.study import tables
from experiments.study.locks import held
from experiments.study.plan import load
from experiments.study.records import Results

ROOT = pathlib.Path(__file__).parents[2]
PAGES = tuple(ROOT / "docs" / name for name in ("results.md", "assumptions.md"))

# <!-- few_labels: 300 labels --> ... <!-- end -->, and likewise "few_labels: claims" and
# "few_labels: likeness, 300 labels".
_TABLE = re.compile(r"(<!-- (\w+): ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
# Within a line: <!-- few_labels: minus baseline, DML -->+0.10, +0.20<!-- end -->,
# <!-- few_labels: seeds -->5 to 10<!-- end --> and <!-- few_labels: runs -->4 of 9<!-- end -->.
_WORDS = re.compile(r"(<!-- (\w+): (?:minus baseline, )?([^>\n]+?) -->)(?!\n)[^\n]*?(<!-- end -->)")


def filled(text: str) -> str:
    """The page with every table and number filled in from the results."""

    def table(found: re.Match[str]) -> str:
        head, study, what, end = found.groups()
        own, results = load(study), _results(study)
        if what == "claims":
            content = tables.claims(own, results)
        elif what.startswith(alike := "likeness, "):
            content = tables.likeness(own.block(what.removeprefix(alike)), results)
        else:
            content = tables.markdown(own.block(what), results)
        return f"{head}\n{content}\n\n{end}"

    def words(found: re.Match[str]) -> str:
        head, study, what, end = found.groups()
        own, results = load(study), _results(study)
        if what == "seeds":
            content = tables.seeds(own, results)
        elif what == "runs":
            content = tables.runs(own, results)
        else:
            content = tables.effect(own, what, results)
        return f"{head}{content}{end}"

    return _WORDS.sub(words, _TABLE.sub(table, text))


def _results(study: str) -> Results:
    return Results(ROOT / "experiments" / "results" / f"{study}.json", load(study))


def fill() -> None:
    """Rewrites the pages in which a number has changed; shares of a study take turns."""
    for page in PAGES:
        with held(page.parent / ".lock"):
            text = page.read_text()
            if (new := filled(text)) != text:
                aside = page.with_suffix(".tmp")
                aside.write_text(new)
                os.replace(aside, page)
