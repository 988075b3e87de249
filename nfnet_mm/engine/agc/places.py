"""Where in memory the units of all gradients are, for kernels that take them all at once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .units import Grads


class Layout(NamedTuple):
    """Where the units of all gradients are, from the first value of each."""

    units: int
    sizes: list[int]  # units of each gradient
    owner: Tensor  # of each unit, the index of its gradient
    table: Tensor  # of each gradient: see _places
    pointers: list  # [those of the last call, the same on the device]


_layouts: dict[tuple, Layout | None] = {}


def layout_of(job: Grads) -> Layout | None:
    """Where the units are, kept by the shapes and strides; None: somewhere the kernel does not find them."""
    weights = [*job.weights, *job.grads[len(job.weights) :]]
    key = (
        job.grads[0].device,
        len(job.weights),
        tuple((g.shape, g.stride(), w.shape, w.stride(), n) for g, w, n in zip(job.grads, weights, job.groups)),
    )
    if key not in _layouts:
        if len(_layouts) > 8:
            _layouts.clear()
        _layouts[key] = _new_layout(job, weights)
    return _layouts[key]


def _new_layout(job: Grads, weights: Sequence[Tensor]) -> Layout | None:
    rows, sizes, units = [], [], 0
    for grad, weight, groups in zip(job.grads, weights, job.groups):
        place = _places(grad, groups)
        if place is None or place != _places(weight, groups) or grad.shape != weight.shape:
            return None
        count = grad.numel() // place[0]
        rows.append([units, *place])
        sizes.append(count)
        units += count
    device = job.grads[0].device
    with torch.device('cpu'):
        owner = torch.arange(len(sizes), dtype=torch.int32).repeat_interleave(torch.tensor(sizes))
        table = torch.tensor(rows)
    return Layout(units, sizes, owner.to(device), table.to(device), [None, None])


def _places(tensor: Tensor, groups: int) -> list[int] | None:
    """How the units lie in a tensor's memory; None: it has gaps, or units that are not pieces of it.

    Returns:
        values of a unit; how many of them follow each other, and the step to the next ones; units of a group; the step
        to the next group, and to the next unit of one.
    """
    sizes = sorted((stride, size) for size, stride in zip(tensor.shape, tensor.stride()) if size > 1)
    step = 1
    for stride, size in sizes:
        if stride != step:
            return None
        step *= size
    n = tensor.numel()
    if tensor.dim() < 2:
        return [n, n, 0, 1, 0, 0]
    if not groups:
        length = n // len(tensor)
        whole = len(tensor) == 1 or tensor.stride(0) == length
        return [length, length, 0, len(tensor), 0, length] if whole else None
    outputs, length = tensor.shape[1], n // groups // tensor.shape[1]
    kernel = length // (len(tensor) // groups)
    if tensor.is_contiguous():
        return [length, kernel, outputs * kernel, outputs, length * outputs, kernel]
    if tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return [length, 1, outputs, outputs, length * outputs, 1]
    return None
