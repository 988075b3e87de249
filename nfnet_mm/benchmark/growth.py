"""How the time of a training step grows with the batch, the size of the images or the depth, with a fitted line."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones.arch import find_network

from .implementations import Implementation, builder, find_implementation
from .rows import Run, Runner
from .statistics import Line, Summary, fit_line, summary
from .timing import in_turns

# What it grows with: (what is on the axis, the values that are measured by default)
AXES: dict[str, tuple[str, tuple[int, ...]]] = dict(
    batch=('images of a batch', (2, 4, 8, 16)),
    size=('pixels of an image', (96, 128, 160, 192, 224)),
    depth=('residual blocks', (1, 2, 3, 4)),
)


_SHAPE = ('arch', 'depth')  # arguments of a network that say how deep it is


@dataclass(frozen=True)
class Point:
    """A measured point: ``x`` of the axis, and seconds of a training step."""

    value: int  # what was asked for: images, side in pixels, or times the depths
    x: int
    seconds: Summary


@dataclass(frozen=True)
class Growth:
    """The points of an implementation, and the line through their medians."""

    name: str
    axis: str
    points: tuple[Point, ...]
    line: Line


def growth(names: Sequence[str], axis: str, values: Sequence[int], run: Run) -> list[Growth]:
    """Time training steps at several batches, sizes or depths.

    At each value the implementations take turns; the first that runs out of memory is the end. Of ``size``, the line is
    against the pixels of an image, of ``depth`` against the number of residual blocks, all stages of the network being
    made as many times as deep.

    Args:
        names: of implementations, as on the command line.
        axis: a key of ``AXES``.
        values: at least three, increasing.
        run: settings, pairs.

    Raises:
        UserError: fewer than three values, or memory for fewer, the depth of a network that is not of this package, or
            an implementation that states what grows.
    """
    if len(values) < 3 or list(values) != sorted(set(values)) or values[0] < 1:
        raise UserError(f'--values {" ".join(map(str, values))} must be at least three increasing positive integers')
    implementations = [find_implementation(name) for name in names]
    for implementation in implementations:
        if axis in implementation.settings:
            raise UserError(f'{implementation.name!r} states the {axis}, which --grow {axis} takes from --values')
    runner = Runner(run)
    points: list[list[Point]] = [[] for _ in names]
    for value in values:
        chosen = [_at(implementation, axis, value) for implementation in implementations]
        options: dict[str, Any] = {} if axis == 'depth' else {axis: value}
        run.say(f'{axis} {value}')
        try:
            samples = _samples(runner, [one for one, _ in chosen], options)
        except torch.cuda.OutOfMemoryError:
            samples = None
        runner.forget()
        if samples is None:
            if len(points[0]) < 3:
                raise UserError(f'--grow {axis}: out of memory at {value}; name smaller ones by --values')
            run.say(f'out of memory at {axis} {value}')
            break
        for (_, blocks), found, seconds in zip(chosen, points, samples):
            x = blocks if axis == 'depth' else value**2 if axis == 'size' else value
            found.append(Point(value, x, summary(seconds)))
    return [
        Growth(name, axis, tuple(found), fit_line([p.x for p in found], [p.seconds.median for p in found]))
        for name, found in zip(names, points)
    ]


def _samples(
    runner: Runner, implementations: Sequence[Implementation], options: Mapping[str, Any]
) -> list[list[float]]:
    subjects = runner.subjects_of(implementations, 'train', options)
    return in_turns([runner.timed(subject, 'train') for subject in subjects], runner.run.pairs)


def _at(implementation: Implementation, axis: str, value: int) -> tuple[Implementation, int]:
    """The implementation at a value of the axis, and its number of blocks."""
    if axis != 'depth':
        return implementation, 0
    if implementation.network is None:
        raise UserError(f'--grow depth takes networks of this package, such as nfnet_f0, not {implementation.name!r}')
    network = find_network(implementation.network)
    if any(implementation.cfg.get(key) != network.cfg.get(key) for key in _SHAPE):
        raise UserError(f'{implementation.name!r} states the depth, which --grow depth takes from --values')
    depths = tuple(depth * value for depth in network.arch.depths)
    cfg = {key: value for key, value in implementation.cfg.items() if key not in _SHAPE}
    build = builder(dict(cfg, arch=dataclasses.replace(network.arch, depths=depths)))
    name = f'{implementation.name}, {value} x {"-".join(map(str, network.arch.depths))} blocks'
    return dataclasses.replace(implementation, name=name, build=build), sum(depths)
