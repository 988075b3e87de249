"""Scaled weight standardisation of one weight, in both dialects in which public weights exist."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from nfnet_mm import cpu_kernels

from . import standardize_kernel as kernel
from .precision import autocast

try:
    from torch.compiler import is_compiling
except ImportError:  # before torch 2.2
    from torch._dynamo import is_compiling

DIALECTS = ('authors', 'timm')
_AUTHORS_FLOOR = 1e-4
_TIMM_EPS = 1e-5


def _floor_and_eps(dialect: str, fan_in: int) -> tuple[float, float]:
    """Rows are divided by sqrt(max(energy, floor) + eps), energy being the sum of squares about their mean."""
    return (_AUTHORS_FLOOR, 0.0) if dialect == 'authors' else (0.0, _TIMM_EPS * fan_in)


def _inverse_norm(energy: Tensor, dialect: str, fan_in: int) -> Tensor:
    floor, eps = _floor_and_eps(dialect, fan_in)
    return (energy.clamp(min=floor) + eps).rsqrt()


def _longest(dialect: str) -> float:
    """Rows of a larger inverse norm were divided by a constant, so that their own norm has no part in the gradient."""
    return _AUTHORS_FLOOR**-0.5 * (1 - 1e-6) if dialect == 'authors' else torch.inf


def standardize_rows(
    rows: Tensor, gain: Tensor, bias: Tensor | None, scale: float, dialect: str, dtype: torch.dtype, reuse: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(O, N) weights, (O,) gains and a number that multiplies these -> the standardised (O, N) in ``dtype``.

    Then the rows' means and inverse norms, (O, 1) each, and the (O,) bias in ``dtype``, for which a GPU needs no kernel
    of its own so. ``reuse``: the standardised rows may be in memory that the next call in this thread writes to.
    """
    if kernel.works_for(rows, gain, bias):
        out = torch.empty_like(rows, dtype=dtype)
        if found := kernel.forward(rows, gain, bias, scale, *_floor_and_eps(dialect, rows.shape[1]), out):
            return out, *found
    if dtype is torch.float32 and cpu_kernels.takes(rows, gain):
        least, eps = _floor_and_eps(dialect, rows.shape[1])
        out, mean, inverse = cpu_kernels.standardize(rows, gain, scale, least, eps, _scratch(rows) if reuse else None)
        return out, mean, inverse, bias if bias is None else bias.to(dtype)
    rows, factor = _wide(rows, gain, scale)
    # Two reductions and two passes. torch.var_mean takes ten times as long as they on a CPU, and
    # weight * scale - offset in a single pass loses digits where a row's mean is large.
    mean = rows.mean(1, keepdim=True)
    centred = torch.sub(rows, mean, out=_scratch(rows) if reuse else None)
    energy = torch.linalg.vector_norm(centred, dim=1, keepdim=True).square_()
    inverse = _inverse_norm(energy, dialect, rows.shape[1])
    return centred.mul_(inverse * factor).to(dtype), mean, inverse, bias if bias is None else bias.to(dtype)


def standardize_rows_again(
    rows: Tensor, gain: Tensor, scale: float, mean: Tensor, inverse: Tensor, dtype: torch.dtype, reuse: bool = False
) -> Tensor:
    """The standardised rows from what :func:`standardize_rows` returned beside them; bit for bit the same."""
    if kernel.works_for(rows, gain):
        out = torch.empty_like(rows, dtype=dtype)
        if kernel.again(rows, gain, scale, mean, inverse, out):
            return out
    if dtype is torch.float32 and cpu_kernels.takes(rows, gain, mean, inverse):
        return cpu_kernels.standardize_again(rows, gain, scale, mean, inverse, _scratch(rows) if reuse else None)
    rows, factor = _wide(rows, gain, scale)
    centred = torch.sub(rows, mean, out=_scratch(rows) if reuse else None)
    return centred.mul_(inverse * factor).to(dtype)


def _on_cpu(tensor: Tensor) -> bool:
    """Whether a tensor's values are there, which those of a subclass such as torch's ``FakeTensor`` need not be."""
    return tensor.device.type == 'cpu' and type(tensor) is Tensor


def _scratch(rows: Tensor) -> Tensor | None:
    """Memory for as many values as ``rows`` has, the same at every call in this thread; None but on a CPU."""
    if not _on_cpu(rows):
        return None
    return cpu_kernels.scratch('standardize', rows.numel(), rows.dtype).as_strided(rows.shape, (rows.shape[1], 1))


def standardize_rows_backward(
    grad: Tensor,
    rows: Tensor,
    gain: Tensor,
    of_bias: Tensor | None,
    scale: float,
    mean: Tensor,
    inverse: Tensor,
    dialect: str,
    reuse: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of weights (O, N) and gains (O,), of their types, from that of the standardised weights.

    In closed form: row by row that of the weights is a * grad + b * weight + c. Then that of the bias, ``of_bias``, in
    the gains' type. ``reuse``: the result may be in the memory of ``grad``.
    """
    if kernel.works_for(rows, gain, grad, of_bias):
        floor, _ = _floor_and_eps(dialect, rows.shape[1])
        if found := kernel.backward(grad, rows, gain, of_bias, scale, mean, inverse, floor):
            return found
    if cpu_kernels.takes(grad, rows, gain, mean, inverse):
        longest = _longest(dialect)
        out = grad if reuse else None
        of_rows, of_gain = cpu_kernels.standardize_backward(grad, rows, gain, scale, mean, inverse, longest, out)
        return of_rows, of_gain, of_bias if of_bias is None else of_bias.to(gain.dtype)
    dtypes = rows.dtype, gain.dtype
    rows, factor = _wide(rows, gain, scale)
    backward = _backward_cpu if _on_cpu(rows) else _backward
    with autocast(rows.device.type, None):  # which would run products in half precision
        of_rows, of_gain = backward(grad.to(rows.dtype), rows, factor, mean, inverse, inverse > _longest(dialect))
        of_bias = of_bias if of_bias is None else of_bias.to(dtypes[1])
        return of_rows.to(dtypes[0]), (of_gain * scale).to(dtypes[1]), of_bias


def _wide(rows: Tensor, gain: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Rows and (O, 1) factors in the type in which they are standardised."""
    dtype = wide_dtype(rows.dtype)
    return rows.to(dtype), gain.to(dtype)[:, None] * scale


def _backward(
    grad: Tensor, rows: Tensor, factor: Tensor, mean: Tensor, inverse: Tensor, floored: Tensor
) -> tuple[Tensor, Tensor]:
    total = grad.sum(1, keepdim=True)
    # <grad, weight - mean> of each row, reduced without writing a product as large as the weights
    along = torch.linalg.vecdot(grad, rows, dim=1)[:, None] - mean * total
    scale = inverse * factor
    slope = torch.where(floored, 0.0, -scale * inverse.square() * along)
    offset = -(scale * total) / rows.shape[1] - slope * mean
    return torch.addcmul(torch.addcmul(offset, rows, slope), grad, scale), (along * inverse)[:, 0]


def _backward_cpu(
    grad: Tensor, rows: Tensor, factor: Tensor, mean: Tensor, inverse: Tensor, floored: Tensor
) -> tuple[Tensor, Tensor]:
    """The same by BatchNorm's backward pass: with rows as channels that is this formula, in one pass and kernel."""
    root = rows.shape[1] ** 0.5  # a row's norm by its standard deviation
    backward = torch.ops.aten.native_batch_norm_backward
    scaled, deviation, mask = factor[:, 0] / root, inverse[:, 0] * root, [True, True, False]
    of_rows, of_gain, _ = backward(grad[None], rows[None], scaled, None, None, mean[:, 0], deviation, True, 0.0, mask)
    of_rows, which = of_rows[0], floored[:, 0]
    if which.any():
        part = grad[which]
        of_rows[which] = (part - part.mean(1, keepdim=True)) * (inverse * factor)[which]
    return of_rows, of_gain / root


class _Standardize(torch.autograd.Function):
    """:func:`standardize_rows`, keeping only the weight and two numbers a row for the backward pass."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, gain: Tensor, dialect: str) -> Tensor:
        out, mean, inverse, _ = standardize_rows(rows, gain, None, 1.0, dialect, rows.dtype)
        ctx.save_for_backward(rows, gain, mean, inverse)
        ctx.dialect = dialect
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, gain, mean, inverse = ctx.saved_tensors
        if differentiated_otherwise(grad):
            plain = partial(_plain, dialect=ctx.dialect)
            return *differentiable(plain, (rows, gain), ctx.needs_input_grad, grad), None
        of_rows, of_gain, _ = standardize_rows_backward(grad, rows, gain, None, 1.0, mean, inverse, ctx.dialect)
        return of_rows, of_gain, None


def _plain(rows: Tensor, gain: Tensor, dialect: str) -> Tensor:
    """:func:`standardize_rows` in operations that can be differentiated at will."""
    centred = rows - rows.mean(1, keepdim=True)
    inverse = _inverse_norm(centred.square().sum(1, keepdim=True), dialect, rows.shape[1])
    return centred * (inverse * gain[:, None])


def differentiable(function: Any, inputs: Any, needed: Any, grad: Tensor) -> list[Tensor | None]:
    """The gradients of ``function(*inputs)`` for those inputs that need one, in operations as ``function`` is made of.

    They can be differentiated again where gradients are enabled.
    """
    again = torch.is_grad_enabled()
    asked = [x for x, need in zip(inputs, needed) if need]
    with torch.enable_grad():
        out = function(*inputs)
    found = iter(torch.autograd.grad(out, asked, grad, create_graph=again))
    return [next(found) if need else None for _, need in zip(inputs, needed)]


def differentiated_otherwise(grad: Tensor) -> bool:
    """Whether a backward pass is to be made of torch's own operations.

    The gradient is to be differentiated in its turn, or is one of many at once, as the Jacobians and Hessians of torch
    have them.
    """
    is_one_of_many = getattr(torch._C._functorch, 'is_legacy_batchedtensor', None)
    return torch.is_grad_enabled() or needs_plain_operations() or bool(is_one_of_many and is_one_of_many(grad))


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
        or _is_traced_by_make_fx()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def _is_traced_by_make_fx() -> bool:
    return any(type(mode).__name__ == 'ProxyTorchDispatchMode' for mode in _get_current_dispatch_mode_stack())
