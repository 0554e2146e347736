"""Generated input: many cases, each judged, none of them written by hand."""

import collections
import time
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import strategies as st

LONGEST = 10.0  # seconds that one case may take
_LINE = 1000  # characters of a message

Judge = Callable[[Any], str]
"""Tries a case and says what happened: "accepted", "refused in a line", or what went wrong."""


def fuzz(cases: st.SearchStrategy[Any], judge: Judge, times: int, seed: int) -> collections.Counter:
    """How often what happened.

    Args:
      cases: what to draw from.
      judge: of each case.
      times: cases, at most; fewer if there are no more.
      seed: of the draw.
    """
    counts: collections.Counter[str] = collections.Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=times,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(cases)
    def one(case: Any) -> None:
        begin = time.process_time()
        outcome = judge(case)
        if time.process_time() - begin > LONGEST:
            outcome = f"takes {time.process_time() - begin:.0f} s: {str(case)[:200]}"
        counts[outcome] += 1

    one()
    return counts


def refusal(error: Exception, expected: tuple[type[Exception], ...], case: Any) -> str:
    """The outcome of an error: good if it is one line of an expected kind."""
    words = str(error)
    if isinstance(error, expected) and words and "\n" not in words and len(words) < _LINE:
        return "refused in a line"
    return f"{type(error).__name__} ({words[:120]!r}): {str(case)[:200]}"
