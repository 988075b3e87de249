"""Clipping on a GPU by one Triton kernel over all units of all parameters.

Gradients and weights are read where they are, and written are only the gradients of units that are clipped. torch's
wheels for Linux bring Triton along; with ``TRITON_INTERPRET=1`` in the environment it runs on a CPU, for tests.
"""

from typing import Any

import torch
from torch import Tensor

from nfnet_mm.triton_launch import NAMES, launched

from .places import layout_of
from .units import Grads, tell_autograd

try:
    import triton
    import triton.language as tl
except ImportError:  # elsewhere than on Linux
    triton = None

_BLOCK = 1024  # values that a program reads at once
_failed = False  # Triton is here, but cannot compile


if triton is not None:

    @triton.jit
    def _sum_of_squares(values, length, inner, outer_stride, WIDE: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        total = tl.zeros((BLOCK,), WIDE)
        for start in range(0, length, BLOCK):
            i = start + tl.arange(0, BLOCK)
            place = i
            if inner < length:
                place = (i // inner) * outer_stride + i % inner
            value = tl.load(values + place, mask=i < length, other=0.0).to(tl.float32).to(WIDE)
            total += value * value
        return tl.sum(total, axis=0).to(tl.float64)

    @triton.jit
    def _clip(  # type: ignore[no-untyped-def]
        pointers, table, owner, factors, clipping, eps, GRAD: tl.constexpr, WEIGHT: tl.constexpr, BLOCK: tl.constexpr
    ):
        unit = tl.program_id(0)
        index = tl.load(owner + unit)
        row = table + index * 7
        length = tl.load(row + 1).to(tl.int32)
        inner = tl.load(row + 2).to(tl.int32)
        outer_stride = tl.load(row + 3).to(tl.int32)
        within = unit - tl.load(row)
        in_group = tl.load(row + 4)
        first = (within // in_group) * tl.load(row + 5) + (within % in_group) * tl.load(row + 6)
        grads = tl.load(pointers + 2 * index).to(tl.pointer_type(GRAD)) + first
        squares = _sum_of_squares(grads, length, inner, outer_stride, tl.float32, BLOCK)
        overflown = (squares < float('inf')) == 0  # by its size, or as some value is not finite
        if overflown:
            squares = _sum_of_squares(grads, length, inner, outer_stride, tl.float64, BLOCK)
        norm = tl.sqrt(squares)
        factor = tl.where(norm < float('inf'), norm * 0.0 + 1.0, float('inf'))
        weight = tl.load(pointers + 2 * index + 1)
        if weight != 0:  # else it is only looked at
            weights = weight.to(tl.pointer_type(WEIGHT)) + first
            weight_norm = tl.sqrt(_sum_of_squares(weights, length, inner, outer_stride, tl.float32, BLOCK))
            limit = clipping * tl.maximum(weight_norm, eps)
            if (norm > limit) & (norm < float('inf')):
                factor = limit / tl.maximum(norm, 1e-6)
                scale = factor.to(tl.float32)
                for start in range(0, length, BLOCK):
                    i = start + tl.arange(0, BLOCK)
                    place = i
                    if inner < length:
                        place = (i // inner) * outer_stride + i % inner
                    value = tl.load(grads + place, mask=i < length, other=0.0).to(tl.float32)
                    tl.store(grads + place, (value * scale).to(GRAD), mask=i < length)
        tl.store(factors + unit, factor.to(tl.float32))


def clip_by_kernel_(job: Grads, clipping: float, eps: float) -> tuple[Tensor, list[int]] | None:
    """Clip in place, without waiting for the device.

    Returns:
        the factor of every unit (1: not clipped; infinite: of non-finite norm, left as it is), and the number of units
        of each gradient; None: Triton does not work here, or the tensors are not as the kernel takes them (of one type
        of float of at most 32 bits, without gaps, their units pieces of memory), and nothing was done.
    """
    global _failed
    if triton is None or _failed:
        return None
    kinds = [{t.dtype for t in part} for part in (job.grads, job.weights)]
    layout = layout_of(job) if all(len(kind) < 2 and kind <= NAMES.keys() for kind in kinds) else None
    if layout is None:
        return None
    device = job.grads[0].device
    addresses = [t.data_ptr() for t in job.grads]
    weights = [t.data_ptr() for t in job.weights]
    together = [*addresses, *weights]
    if layout.pointers[0] != together:
        weights += [0] * (len(addresses) - len(weights))
        told = torch.tensor([addresses, weights]).t().contiguous()
        if device.type == 'cuda':
            told = told.pin_memory()
        layout.pointers[:] = together, told.to(device, non_blocking=True)
    factors = torch.empty(layout.units, device=device)
    types: list[Any] = [getattr(tl, NAMES[(part or job.grads)[0].dtype]) for part in (job.grads, job.weights)]
    arguments = layout.pointers[1], layout.table, layout.owner, factors, clipping, eps, *types, _BLOCK
    cost = 'some forty launches a step more'
    if not launched(lambda: _clip[(layout.units,)](*arguments), factors, 'AGC does', cost):
        _failed = True
        return None
    for grad in job.grads[: len(job.weights)]:  # all of them: which were clipped, only the device knows
        tell_autograd(grad)
    return factors, layout.sizes
