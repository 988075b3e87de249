"""Kernels of our own for the CPU, in C: what torch's operations take several passes over memory for.

They are compiled where there is a C compiler, when they are first needed. :func:`takes` says whether they can be used
for some tensors; where not, the caller does without. Results agree with torch's operations to float32 rounding.
"""

import torch
from torch import Tensor

from .build import SWITCH, state
from .convs import conv3x3, conv3x3_input, conv3x3_weight, pointwise_weight, takes_conv3x3, takes_pointwise_weight
from .launch import calls, run_kernel, scratch, takes

__all__ = [
    'SWITCH',
    'calls',
    'clip',
    'conv3x3',
    'conv3x3_input',
    'conv3x3_weight',
    'gelu',
    'gelu_backward',
    'pointwise_weight',
    'scratch',
    'standardize',
    'standardize_again',
    'standardize_backward',
    'state',
    'takes',
    'takes_conv3x3',
    'takes_pointwise_weight',
]


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, of any shape that :func:`takes` takes."""
    out = torch.empty_like(x)
    run_kernel('gelu', x, out, x.numel())
    return out


def gelu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of :func:`gelu` of ``x``; ``grad`` has the strides of ``x``."""
    out = torch.empty_like(x)
    run_kernel('gelu_backward', grad, x, out, x.numel())
    return out


def standardize(
    rows: Tensor, gain: Tensor, scale: float, least: float, eps: float, out: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(O, N) rows to (row - mean) * scale * gain / sqrt(max(energy, least) + eps), with the energy about the mean.

    Then the means and the inverse norms, (O, 1) each. ``out``: where to write the first of these.
    """
    out = torch.empty_like(rows) if out is None else out
    mean, inverse = rows.new_empty(len(rows), 1), rows.new_empty(len(rows), 1)
    run_kernel('standardize', rows, gain, scale, least, eps, out, mean, inverse, *rows.shape)
    return out, mean, inverse


def standardize_again(
    rows: Tensor, gain: Tensor, scale: float, mean: Tensor, inverse: Tensor, out: Tensor | None
) -> Tensor:
    """The standardised rows from what :func:`standardize` returned beside them, bit for bit the same."""
    out = torch.empty_like(rows) if out is None else out
    run_kernel('standardize_again', rows, gain, scale, mean, inverse, out, *rows.shape)
    return out


def standardize_backward(
    grad: Tensor,
    rows: Tensor,
    gain: Tensor,
    scale: float,
    mean: Tensor,
    inverse: Tensor,
    longest: float,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of rows (O, N) and gains (O,); rows of an inverse norm above ``longest`` were divided by a constant.

    ``out``: where to write the first, which may be ``grad``.
    """
    of_rows, of_gain = torch.empty_like(rows) if out is None else out, torch.empty_like(gain)
    run_kernel('standardize_backward', grad, rows, gain, scale, mean, inverse, longest, of_rows, of_gain, *rows.shape)
    return of_rows, of_gain


def clip(
    pointers: Tensor, places: Tensor, owners: Tensor, clipping: float, eps: float, factors: Tensor, marks: Tensor
) -> None:
    """Clip gradients in place, unit by unit.

    Args:
        pointers: (2, P), addresses of the gradients and of the weights of all parameters; 0: not to be clipped.
        places: (P, 7), where the units of each are.
        owners: (units,), int32, of which parameter each unit is.
        clipping, eps: of the rule.
        factors: (units,), to be written: what each unit was multiplied by; infinite where its norm is not finite.
        marks: (P,) zeros, uint8, to be set where a unit was clipped.
    """
    grads, weights = pointers
    run_kernel('clip', grads, weights, places, owners, len(owners), clipping, eps, factors, marks)
