"""Weight standardisation on a GPU: one Triton kernel each for forward pass, repetition and backward pass of a weight.

A program takes a row. torch's wheels for Linux bring Triton along; with ``TRITON_INTERPRET=1`` in the environment the
kernels run on a CPU, for tests.
"""

from typing import Any

import torch
from torch import Tensor, nn

from nfnet_mm.triton_launch import INTERPRETED, NAMES, launched

try:
    import triton
    import triton.language as tl
except ImportError:  # elsewhere than on Linux
    triton = None

_BLOCK = 4096  # values that a program reads at once, at most
_failed = False  # Triton is here, but cannot compile


if triton is not None:

    @triton.jit
    def _forward(  # type: ignore[no-untyped-def]
        rows,
        gain,
        out,
        mean,
        inverse,
        length,
        scale,
        floor,
        eps,
        MADE: tl.constexpr,
        OUT: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Standardise; with MADE, by means and inverse norms that are known already."""
        row = tl.program_id(0)
        start = row.to(tl.int64) * length
        at = tl.arange(0, BLOCK)
        if MADE:
            middle = tl.load(mean + row)
            by = tl.load(inverse + row)
        else:
            total = tl.zeros((BLOCK,), tl.float32)
            for first in range(0, length, BLOCK):
                here = first + at < length
                total += tl.load(rows + start + first + at, mask=here, other=0.0).to(tl.float32)
            middle = tl.sum(total, axis=0) / length
            squares = tl.zeros((BLOCK,), tl.float32)
            for first in range(0, length, BLOCK):
                here = first + at < length
                value = tl.load(rows + start + first + at, mask=here, other=0.0).to(tl.float32)
                centred = tl.where(here, value - middle, 0.0)
                squares += centred * centred
            by = 1.0 / tl.sqrt(tl.maximum(tl.sum(squares, axis=0), floor) + eps)
            tl.store(mean + row, middle)
            tl.store(inverse + row, by)
        factor = by * (tl.load(gain + row).to(tl.float32) * scale)
        for first in range(0, length, BLOCK):
            here = first + at < length
            value = tl.load(rows + start + first + at, mask=here, other=0.0).to(tl.float32)
            tl.store(out + start + first + at, ((value - middle) * factor).to(OUT), mask=here)

    @triton.jit
    def _backward(  # type: ignore[no-untyped-def]
        grad,
        rows,
        gain,
        mean,
        inverse,
        of_rows,
        of_gain,
        length,
        scale,
        floor,
        OUT: tl.constexpr,
        GAIN: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row = tl.program_id(0)
        start = row.to(tl.int64) * length
        at = tl.arange(0, BLOCK)
        middle = tl.load(mean + row)
        by = tl.load(inverse + row)
        factor = by * (tl.load(gain + row).to(tl.float32) * scale)
        total = tl.zeros((BLOCK,), tl.float32)
        along = tl.zeros((BLOCK,), tl.float32)
        for first in range(0, length, BLOCK):
            here = first + at < length
            slope = tl.load(grad + start + first + at, mask=here, other=0.0).to(tl.float32)
            value = tl.load(rows + start + first + at, mask=here, other=0.0).to(tl.float32)
            total += slope
            along += slope * (value - middle)
        average = tl.sum(total, axis=0) / length
        projection = tl.sum(along, axis=0)
        tl.store(of_gain + row, (projection * by * scale).to(GAIN))
        # rows at the floor were divided by a constant
        pull = tl.where(by * by * floor > 0.999998, 0.0, projection * by * by)
        for first in range(0, length, BLOCK):
            here = first + at < length
            slope = tl.load(grad + start + first + at, mask=here, other=0.0).to(tl.float32)
            value = tl.load(rows + start + first + at, mask=here, other=0.0).to(tl.float32)
            result = factor * (slope - average - (value - middle) * pull)
            tl.store(of_rows + start + first + at, result.to(OUT), mask=here)


def works_for(*tensors: Tensor) -> bool:
    """Whether the kernels take these: on a GPU that Triton knows, floats of at most 32 bits, without gaps.

    Not those of a subclass, such as torch's ``FakeTensor``, which may have no memory.
    """
    if triton is None or _failed or not (tensors[0].is_cuda or INTERPRETED):
        return False
    return all(type(t) in (Tensor, nn.Parameter) and t.dtype in NAMES and t.is_contiguous() for t in tensors)


def forward(
    rows: Tensor, gain: Tensor, scale: float, floor: float, eps: float, out: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Standardise (O, N) rows into ``out``; their means and inverse norms, (O, 1) each. None: Triton failed."""
    mean, inverse = (torch.empty(len(rows), 1, device=rows.device) for _ in range(2))
    arguments = rows, gain, out, mean, inverse, rows.shape[1], scale, floor, eps, False, _type(out)
    return (mean, inverse) if _launch(_forward, rows, arguments) else None


def again(rows: Tensor, gain: Tensor, scale: float, mean: Tensor, inverse: Tensor, out: Tensor) -> bool:
    """Write the same into ``out`` once more; whether it worked."""
    return _launch(_forward, rows, (rows, gain, out, mean, inverse, rows.shape[1], scale, 0.0, 0.0, True, _type(out)))


def backward(
    grad: Tensor, rows: Tensor, gain: Tensor, scale: float, mean: Tensor, inverse: Tensor, floor: float
) -> tuple[Tensor, Tensor] | None:
    """Gradients of rows and gains, of their types. None: Triton failed."""
    of_rows, of_gain = torch.empty_like(rows), torch.empty_like(gain)
    given = grad, rows, gain, mean, inverse, of_rows, of_gain, rows.shape[1], scale, floor, _type(rows), _type(gain)
    return (of_rows, of_gain) if _launch(_backward, rows, given) else None


def _type(tensor: Tensor) -> Any:
    return getattr(tl, NAMES[tensor.dtype])


def _launch(kernel: Any, rows: Tensor, arguments: tuple) -> bool:
    global _failed
    count, length = rows.shape
    block = min(triton.next_power_of_2(length), _BLOCK)
    cost = 'some twenty launches a conv more'
    worked = launched(lambda: kernel[(count,)](*arguments, block), rows, 'Weights are standardised', cost)
    _failed = _failed or not worked
    return worked
