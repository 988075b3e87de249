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
        bias,
        out,
        mean,
        inverse,
        cast_bias,
        length,
        scale,
        floor,
        eps,
        MADE: tl.constexpr,
        BIAS: tl.constexpr,
        OUT: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Standardise; with MADE, by means and inverse norms that are known already. BIAS: cast the bias, too."""
        row = tl.program_id(0)
        if BIAS:
            tl.store(cast_bias + row, tl.load(bias + row).to(OUT))
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
        of_bias,
        mean,
        inverse,
        of_rows,
        of_gain,
        cast_of_bias,
        length,
        scale,
        floor,
        BIAS: tl.constexpr,
        OUT: tl.constexpr,
        GAIN: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row = tl.program_id(0)
        if BIAS:
            tl.store(cast_of_bias + row, tl.load(of_bias + row).to(GAIN))
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


def works_for(*tensors: Tensor | None) -> bool:
    """Whether the kernels take these: on a GPU that Triton knows, floats of at most 32 bits, without gaps.

    Not those of a subclass, such as torch's ``FakeTensor``, which may have no memory.
    """
    given = [t for t in tensors if t is not None]
    if triton is None or _failed or not (given[0].is_cuda or INTERPRETED):
        return False
    return all(type(t) in (Tensor, nn.Parameter) and t.dtype in NAMES and t.is_contiguous() for t in given)


def forward(
    rows: Tensor, gain: Tensor, bias: Tensor | None, scale: float, floor: float, eps: float, out: Tensor
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Standardise (O, N) rows into ``out``; their means and inverse norms, (O, 1) each, and the bias in its type.

    None: Triton failed.
    """
    mean, inverse = (torch.empty(len(rows), 1, device=rows.device) for _ in range(2))
    cast = _other(bias, out.dtype)
    given = rows, gain, bias, out, mean, inverse, cast, rows.shape[1], scale, floor, eps, False, cast is not bias
    return (mean, inverse, cast) if _launch(_forward, rows, (*given, _type(out))) else None


def again(rows: Tensor, gain: Tensor, scale: float, mean: Tensor, inverse: Tensor, out: Tensor) -> bool:
    """Write the same into ``out`` once more; whether it worked."""
    given = rows, gain, None, out, mean, inverse, None, rows.shape[1], scale, 0.0, 0.0, True, False
    return _launch(_forward, rows, (*given, _type(out)))


def backward(
    grad: Tensor,
    rows: Tensor,
    gain: Tensor,
    of_bias: Tensor | None,
    scale: float,
    mean: Tensor,
    inverse: Tensor,
    floor: float,
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Gradients of rows and gains, of their types, and that of the bias in the gains'. None: Triton failed."""
    of_rows, of_gain, cast = torch.empty_like(rows), torch.empty_like(gain), _other(of_bias, gain.dtype)
    given = grad, rows, gain, of_bias, mean, inverse, of_rows, of_gain, cast, rows.shape[1], scale, floor
    worked = _launch(_backward, rows, (*given, cast is not of_bias, _type(rows), _type(gain)))
    return (of_rows, of_gain, cast) if worked else None


def _other(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Memory for a tensor in another type; itself if it is of that one."""
    return tensor if tensor is None or tensor.dtype == dtype else torch.empty_like(tensor, dtype=dtype)


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
