"""What a claim is: what is measured for a seed, what the numbers say, and how they are drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Found = dict[str, Any]  # what was measured for one seed, in plain values, as JSON holds them


@dataclass(frozen=True)
class Verdict:
    """What the numbers of all seeds say.

    Attributes:
        shown: whether the claim shows here.
        statement: the same in words, with the numbers.
        header, rows: the table.
    """

    shown: bool
    statement: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Claim:
    """A claim of the papers.

    Attributes:
        title: the claim, as a sentence.
        source: where the papers make it.
        setting: what is done here.
        measure: (seed, quick, folder for its files) -> what was found; the same seed and ``quick``, the same numbers.
        judge: what was found, one for each seed -> verdict. A pure function.
        draw: draws what was found on matplotlib's axes.
        alone: whether it is timed, so that nothing else should run beside it.
    """

    title: str
    source: str
    setting: str
    measure: Callable[[int, bool, Path], Found]
    judge: Callable[[Sequence[Found]], Verdict]
    draw: Callable[[Any, Sequence[Found]], None]
    alone: bool = False
