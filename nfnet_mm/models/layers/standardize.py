"""Scaled weight standardisation of one weight, in both dialects in which public weights exist."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .precision import autocast

try:
    from torch.compiler import is_compiling
except ImportError:  # before torch 2.2
    from torch._dynamo import is_compiling

DIALECTS = ('authors', 'timm')
_AUTHORS_FLOOR = 1e-4
_TIMM_EPS = 1e-5


def _inverse_norm(energy: Tensor, fan_in: int, dialect: str) -> Tensor:
    """What rows are multiplied by, 1 / sqrt(energy), from their sums of squares about the mean; bounded near zero."""
    if dialect == 'authors':
        return energy.clamp(min=_AUTHORS_FLOOR).rsqrt()
    return (energy + _TIMM_EPS * fan_in).rsqrt()


def _at_floor(inverse: Tensor, dialect: str) -> Tensor:
    """Which rows were divided by the authors' floor, a constant, so that their own norm has no part in the gradient."""
    if dialect == 'authors':
        return inverse >= _AUTHORS_FLOOR**-0.5
    return torch.zeros_like(inverse, dtype=torch.bool)


def standardize_rows(rows: Tensor, gain: Tensor, dialect: str) -> tuple[Tensor, Tensor, Tensor]:
    """(O, N) weights and (O,) gains -> the standardised (O, N), and the rows' means and inverse norms, (O, 1) each."""
    # Two reductions and two passes. torch.var_mean takes ten times as long as they on a CPU, and
    # weight * scale - offset in a single pass loses digits where a row's mean is large.
    mean = rows.mean(1, keepdim=True)
    centred = rows - mean
    energy = torch.linalg.vector_norm(centred, dim=1, keepdim=True).square_()
    inverse = _inverse_norm(energy, rows.shape[1], dialect)
    return centred.mul_(inverse * gain[:, None]), mean, inverse


def standardize_rows_again(rows: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """The standardised rows from what :func:`standardize_rows` returned beside them; bit for bit the same."""
    return (rows - mean).mul_(inverse * gain[:, None])


def standardize_rows_backward(
    grad: Tensor, rows: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor, dialect: str
) -> tuple[Tensor, Tensor]:
    """Gradients of weights (O, N) and gains (O,) from that of the standardised weights, in closed form.

    Row by row that of the weights is a * grad + b * weight + c.
    """
    with autocast(rows.device.type, None):  # which would run products in half precision
        if rows.device.type == 'cpu':
            return _backward_cpu(grad, rows, gain, mean, inverse, dialect)
        total = grad.sum(1, keepdim=True)
        # <grad, weight - mean> of each row, reduced without writing a product as large as the weights
        along = torch.linalg.vecdot(grad, rows, dim=1)[:, None] - mean * total
        scale = inverse * gain[:, None]
        slope = torch.where(_at_floor(inverse, dialect), 0.0, -scale * inverse.square() * along)
        offset = -(scale * total) / rows.shape[1] - slope * mean
        return torch.addcmul(torch.addcmul(offset, rows, slope), grad, scale), (along * inverse)[:, 0]


def _backward_cpu(
    grad: Tensor, rows: Tensor, gain: Tensor, mean: Tensor, inverse: Tensor, dialect: str
) -> tuple[Tensor, Tensor]:
    """The same by BatchNorm's backward pass: with rows as channels that is this formula, in one pass and kernel."""
    root = rows.shape[1] ** 0.5  # a row's norm by its standard deviation
    backward = torch.ops.aten.native_batch_norm_backward
    scaled, deviation = gain / root, inverse[:, 0] * root
    mask = [True, True, False]
    of_rows, of_gain, _ = backward(grad[None], rows[None], scaled, None, None, mean[:, 0], deviation, True, 0.0, mask)
    of_rows = of_rows[0]
    floored = _at_floor(inverse, dialect)[:, 0]
    if floored.any():
        part = grad[floored]
        of_rows[floored] = (part - part.mean(1, keepdim=True)) * (inverse[floored] * gain[floored][:, None])
    return of_rows, of_gain / root


class _Standardize(torch.autograd.Function):
    """:func:`standardize_rows`, keeping only the weight and two numbers a row for the backward pass."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, gain: Tensor, dialect: str) -> Tensor:
        out, mean, inverse = standardize_rows(rows, gain, dialect)
        ctx.save_for_backward(rows, gain, mean, inverse)
        ctx.dialect = dialect
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, gain, mean, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated in its turn
            plain = partial(_plain, dialect=ctx.dialect)
            return *differentiable(plain, (rows, gain), ctx.needs_input_grad, grad), None
        return *standardize_rows_backward(grad, rows, gain, mean, inverse, ctx.dialect), None


def _plain(rows: Tensor, gain: Tensor, dialect: str) -> Tensor:
    """:func:`standardize_rows` in operations that can be differentiated at will."""
    centred = rows - rows.mean(1, keepdim=True)
    inverse = _inverse_norm(centred.square().sum(1, keepdim=True), rows.shape[1], dialect)
    return centred * (inverse * gain[:, None])


def differentiable(function: Any, inputs: Any, needed: Any, grad: Tensor) -> list[Tensor | None]:
    """The gradients of ``function(*inputs)`` for those inputs that need one, which can be differentiated again."""
    asked = [x for x, need in zip(inputs, needed) if need]
    found = iter(torch.autograd.grad(function(*inputs), asked, grad, create_graph=True))
    return [next(found) if need else None for _, need in zip(inputs, needed)]


def as_rows(weight: Tensor) -> Tensor:
    """(O, I, kh, kw) -> its (O, N) rows, in the order in which they lie in memory."""
    return (weight.permute(0, 2, 3, 1) if _channels_last(weight) else weight).flatten(1)


def like(rows: Tensor, weight: Tensor) -> Tensor:
    """(O, N) rows in the shape and memory layout of the weight that :func:`as_rows` took them from."""
    if not _channels_last(weight):
        return rows.view(weight.shape)
    outputs, inputs, height, width = weight.shape
    return rows.view(outputs, height, width, inputs).permute(0, 3, 1, 2)


def _channels_last(weight: Tensor) -> bool:
    return weight.dim() == 4 and not weight.is_contiguous()


def standardize_weight(weight: Tensor, gain: Tensor, dialect: str = 'authors') -> Tensor:
    """Scaled weight standardisation: every output unit gets zero mean and the norm |gain|.

    With N the fan-in, and mean and (biased) variance taken over it:

    - ``'authors'``: (W - mean) * gain / sqrt(max(var * N, 1e-4)), the released code of both papers;
    - ``'timm'``: (W - mean) * gain / sqrt((var + 1e-5) * N), what timm's own weights were trained with.

    (NF-ResNets, section 4.2.) Differentiable as often as one likes, in forward mode and within ``torch.func``, too.
    Half-precision weights are standardised in float32.

    Args:
        weight: (O, I / groups, kh, kw).
        gain: (O,), constant factors (gamma, beta) already multiplied in.
        dialect: one of the two above.

    Returns: the standardised weight, of the shape, dtype and memory layout of ``weight``.

    Example:
        >>> w = standardize_weight(torch.randn(8, 3, 5, 5), torch.full((8,), 2.))
        >>> bool(w.mean((1, 2, 3)).abs().max() < 1e-6), torch.allclose(w.flatten(1).norm(dim=1), torch.tensor(2.))
        (True, True)
    """
    dtype = wide_dtype(weight.dtype)
    rows = as_rows(weight.to(dtype))
    standardize = _plain if needs_plain_operations() else _Standardize.apply
    return like(standardize(rows, gain.to(dtype), dialect), weight).to(weight.dtype)


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which weights of that dtype are standardised."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def needs_plain_operations() -> bool:
    """Whether what runs now must be made of torch's own operations, and not of an ``autograd.Function``.

    A compiler finds out by itself what is worth storing. A trace with a Function in it cannot be saved; ``torch.func``
    and forward-mode differentiation refuse one.
    """
    return (
        is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )
