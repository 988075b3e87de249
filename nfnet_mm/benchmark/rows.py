"""Rows of a benchmark: two sides, each a measure of an implementation, and what became of them."""

import dataclasses
import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from nfnet_mm.errors import UserError, short

from .detector import detector_seconds
from .implementations import Implementation, find_implementation
from .measures import MEASURES
from .statistics import Ratio, Summary, paired_ratio, summary
from .subject import LAYOUTS, Settings, Subject, Unmeasured, check_settings
from .timing import Timed, in_turns

_LAYOUT_SAMPLES = 3
_HALVINGS = 4


@dataclass(frozen=True)
class Row:
    """What is compared.

    Attributes:
        what: the row's name.
        measure: a key of ``MEASURES``, or ``'detector'``: a training step of a whole detector's config.
        ours, theirs: implementations as on the command line; ``theirs`` may be None, for a figure by itself.
        their_measure: of ``theirs``, where it is another one (what a part costs of the whole).
        options: of :class:`Settings`, over those of the run.
        target: what the ratio, or the figure where there is no ``theirs``, should be at most.
        published: the ratio that a paper reports.
    """

    what: str
    measure: str
    ours: str
    theirs: str | None = None
    their_measure: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    target: float | None = None
    published: float | None = None


@dataclass(frozen=True)
class Run:
    """What holds for all rows of a run.

    Attributes:
        settings: of each side, but that ``layout`` may be ``'best'``; ``batch`` and ``size`` may be None.
        pairs: samples of each side.
        until: a time of ``time.monotonic()`` after which no further row begins.
        say: is told how far it is.
    """

    settings: Mapping[str, Any]
    pairs: int = 7
    until: float | None = None
    say: Callable[[str], Any] = lambda _: None


@dataclass
class Side:
    """What was found of one side of a row."""

    name: str
    measure: str
    unit: str
    settings: Settings | None = None
    values: list[float] = field(default_factory=list)

    @property
    def summary(self) -> Summary | None:
        """Median and quartiles; None if nothing was measured."""
        return summary(self.values) if self.values else None


@dataclass
class Result:
    """What became of a row: its sides, or why it was not measured."""

    row: Row
    sides: list[Side] = field(default_factory=list)
    failure: str = ''
    seconds: float = 0.0  # that it took to measure

    @property
    def ratio(self) -> Ratio | None:
        """Ours / theirs, by pairs."""
        if self.failure or len(self.sides) < 2 or not all(side.values and all(side.values) for side in self.sides):
            return None
        return paired_ratio(self.sides[0].values, self.sides[1].values)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or a measurement."""
        figure = self.figure
        return None if figure is None or self.row.target is None else figure <= self.row.target

    @property
    def figure(self) -> float | None:
        """What the target is about: the ratio, or the figure where there is no other side."""
        if self.row.theirs is not None:
            return self.ratio.median if self.ratio else None
        found = self.sides[0].summary if self.sides and not self.failure else None
        return found.median if found else None


class Runner:
    """Measures rows one after another, and keeps networks and chosen layouts for the next."""

    def __init__(self, run: Run):
        self.run = run
        self.subjects: dict[tuple[str, Settings], Subject] = {}
        self.layouts: dict[tuple[str, Settings, str], str] = {}

    def results(self, rows: Iterable[Row]) -> Iterable[Result]:
        """Each row's result as it is there; a row that fails is one that says why, and the rest goes on."""
        for row in rows:
            start = time.monotonic()
            if self.run.until is not None and start > self.run.until:
                yield Result(row, failure='the time for the suite was over')
                continue
            self.run.say(row.what)
            try:
                result = self.measure(row)
            except Exception as error:  # whatever a network, a compiler or a device does
                result = Result(row, failure=_reason(error))
                del error  # and with it the frames that hold tensors
                self.forget()
            result.seconds = time.monotonic() - start
            yield result

    def measure(self, row: Row) -> Result:
        """Measure a row.

        Raises:
            Unmeasured: it cannot be, here.
            UserError: an implementation or a setting is wrong.
        """
        if row.measure == 'detector':
            return self._detector(row)
        sides = [(row.ours, row.measure)]
        if row.theirs is not None:
            sides.append((row.theirs, row.their_measure or row.measure))
        for division in range(_HALVINGS):  # as the papers do: the same batch, accumulated (NFNets, Appendix A.2)
            try:
                return self._measured(row, sides, 2**division)
            except torch.cuda.OutOfMemoryError:
                if row.measure != 'train':
                    raise
            self.forget()  # when the error, and with it the frames that hold tensors, is gone
        return self._measured(row, sides, 2**_HALVINGS)

    def _measured(self, row: Row, sides: list[tuple[str, str]], division: int) -> Result:
        chosen = []
        for i, (name, measure) in enumerate(sides):
            implementation = find_implementation(name)
            settings = self._settings(implementation, measure, row.options, 1 if i else division)
            chosen.append((implementation, measure, settings))
        subjects = self._alone([(implementation, settings) for implementation, _, settings in chosen])
        found = [Side(s.implementation.name, m, MEASURES[m].unit, s.settings) for s, (_, m) in zip(subjects, sides)]
        if MEASURES[row.measure].timed is None:
            for subject, side in zip(subjects, found):
                counted = MEASURES[side.measure].counted
                side.values = [counted(subject)] if counted else []
        else:
            timed = [self.timed(subject, m) for subject, (_, m) in zip(subjects, sides)]
            samples = in_turns(timed, self.run.pairs, self.run.until, lambda what: self.run.say(f'{row.what}: {what}'))
            for side, values in zip(found, samples):
                side.values = values
        return Result(row, found)

    def _settings(
        self, implementation: Implementation, measure: str, options: Mapping[str, Any], division: int = 1
    ) -> Settings:
        """Those of the run, then of the row, then of the implementation; with the size and layout chosen."""
        given = {'micro_batches': 1, **self.run.settings, **options, **implementation.settings}
        if given['batch'] % division:
            raise Unmeasured(f'out of memory, and a batch of {given["batch"]} is not divisible by {division}')
        given['batch'], given['micro_batches'] = given['batch'] // division, given['micro_batches'] * division
        given['size'] = given.get('size') or implementation.size
        if given.get('compiled') is True:
            given['compiled'] = 'default'
        given['compiled'] = given.get('compiled') or None
        settings = Settings(**dict(given, layout='contiguous'))
        check_settings(settings)
        layout = given['layout']
        if layout == 'best':
            layout = self._best_layout(implementation, settings, measure)
        return dataclasses.replace(settings, layout=layout)

    def _best_layout(self, implementation: Implementation, settings: Settings, measure: str) -> str:
        """The layout in which a network runs faster, by a few samples of its eager form in each."""
        kind = 'eval' if measure in ('eval', 'fold') else 'train'
        eager = dataclasses.replace(settings, compiled=None, micro_batches=1)
        key = implementation.name, eager, kind
        if MEASURES[measure].timed is None:  # bytes and counts, of the layout that a training step has, if it is known
            return self.layouts.get(key, 'channels_last')
        if key not in self.layouts:
            sides = {}
            for layout in LAYOUTS:
                subject = self._subject(implementation, dataclasses.replace(eager, layout=layout))
                sides[layout] = self.timed(subject, kind)
            samples = in_turns(list(sides.values()), _LAYOUT_SAMPLES)
            medians = [summary(values).median for values in samples]
            self.layouts[key] = list(sides)[medians.index(min(medians))]
        return self.layouts[key]

    def _subject(self, implementation: Implementation, settings: Settings) -> Subject:
        key = implementation.name, settings
        if key not in self.subjects:
            self.subjects[key] = Subject(implementation, settings)
        return self.subjects[key]

    def _alone(self, chosen: Sequence[tuple[Implementation, Settings]]) -> list[Subject]:
        """These subjects; what others hold, such as those of a layout that was slower, is freed before."""
        wanted = {(implementation.name, settings) for implementation, settings in chosen}
        self.subjects = {key: subject for key, subject in self.subjects.items() if key in wanted}
        _free()
        return [self._subject(implementation, settings) for implementation, settings in chosen]

    def subjects_of(
        self, implementations: Sequence[Implementation], measure: str, options: Mapping[str, Any]
    ) -> list[Subject]:
        """The subjects of implementations by the run's settings and these options, and no others in memory."""
        return self._alone([(one, self._settings(one, measure, options)) for one in implementations])

    @staticmethod
    def timed(subject: Subject, measure: str) -> Timed:
        """What a timed measure times of a subject."""
        make = MEASURES[measure].timed
        assert make is not None
        return make(subject)

    def forget(self) -> None:
        """Free the memory of all subjects."""
        self.subjects.clear()
        _free()

    def _detector(self, row: Row) -> Result:
        assert row.theirs is not None
        self.forget()
        given = {**self.run.settings, **row.options}
        seconds = detector_seconds(
            [row.ours, row.theirs], given['batch'], given['size'], given['dtype'], self.run.pairs
        )
        sides = [Side(name, 'detector', 's', None, values) for name, values in zip((row.ours, row.theirs), seconds)]
        return Result(row, sides)


def _reason(error: Exception) -> str:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return 'out of memory'
    if isinstance(error, (UserError, Unmeasured)):
        return str(error)
    return f'{type(error).__name__}: {short(str(error).strip().partition(chr(10))[0])}'


def _free() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
