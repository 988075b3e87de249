"""Seconds of two pieces of code in turns."""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

_SAMPLE = 0.05  # seconds that a sample on a GPU takes at least, beside the time to wait for it
_MOST = 100  # runs of a sample


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Timed:
    """What is timed: ``run`` on ``device``, after ``prepare`` each time, which is not timed."""

    run: Callable[[], Any]
    device: str
    prepare: Callable[[], Any] = _nothing


def seconds(timed: Timed, runs: int = 1) -> float:
    """Seconds of one run, the mean of some.

    On CUDA by events in the stream, with a synchronisation before and after all of them and none between: the GPU
    starts a run when it has done the last, as in a training. On the CPU by the clock.
    """
    if timed.device == 'cpu':
        total = 0.0
        for _ in range(runs):
            timed.prepare()
            start = time.perf_counter()
            timed.run()
            total += time.perf_counter() - start
        return total / runs
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
    torch.cuda.synchronize()
    for begin, end in marks:
        timed.prepare()
        begin.record()
        timed.run()
        end.record()
    torch.cuda.synchronize()
    return sum(begin.elapsed_time(end) for begin, end in marks) / runs / 1000


def warm_up(timed: Timed) -> int:
    """Run until what first runs set up (memory, algorithms, compiled code) is there; how many runs make a sample."""
    for _ in range(2):
        timed.prepare()
        timed.run()
    if timed.device == 'cpu':
        return 1
    seconds(timed)
    took = seconds(timed, 3)
    return min(_MOST, max(1, math.ceil(_SAMPLE / took))) if took > 0 else 1


def in_turns(
    sides: Sequence[Timed], pairs: int, until: float | None = None, say: Callable[[str], Any] = lambda _: None
) -> list[list[float]]:
    """Seconds of each side, measured in turns: A B A B ...

    Args:
        sides: what to time.
        pairs: samples of each.
        until: a time of ``time.monotonic()`` after which no further pair begins, once there are three.
        say: is told how far it is.

    Returns:
        for each side, its seconds in the order they were measured.
    """
    runs = [warm_up(side) for side in sides]
    samples: list[list[float]] = [[] for _ in sides]
    with _no_collection():
        for turn in range(pairs):
            if turn >= 3 and until is not None and time.monotonic() > until:
                break
            say(f'pair {turn + 1} of {pairs}')
            for side, count, found in zip(sides, runs, samples):
                found.append(seconds(side, count))
    return samples


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage collector runs before what is timed, not within."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
