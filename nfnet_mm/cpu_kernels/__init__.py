"""Kernels of our own for the CPU, in C: what torch's operations take several passes over memory for.

They are compiled where there is a C compiler, when they are first needed. :func:`takes` says whether they can be used
for some tensors; where not, the caller does without. Results agree with torch's operations to float32 rounding.
"""

import functools
from collections import Counter
from ctypes import c_float, c_int, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor, nn

from .build import SWITCH, library, state

__all__ = [
    'SWITCH',
    'calls',
    'clip',
    'gelu',
    'gelu_backward',
    'standardize',
    'standardize_again',
    'standardize_backward',
    'state',
    'takes',
]

calls: Counter[str] = Counter()  # how often each kernel was run in this process

_P, _N, _F = c_void_p, c_int64, c_float
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    'gelu': (_P, _P, _N),
    'gelu_backward': (_P, _P, _P, _N),
    'standardize': (_P, _P, _F, _F, _F, _P, _P, _P, _N, _N),
    'standardize_again': (_P, _P, _F, _P, _P, _P, _N, _N),
    'standardize_backward': (_P, _P, _P, _F, _P, _P, _F, _P, _P, _N, _N),
    'clip': (_P, _P, _P, _P, _N, _F, _F, _P),
}


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels are there and take these tensors: float32 on the CPU, without gaps.

    Not those of a subclass, such as torch's ``FakeTensor``, nor others that have no memory.
    """
    for tensor in tensors:
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.dtype is not torch.float32:
            return False
        if tensor.device.type != 'cpu' or tensor.layout is not torch.strided or tensor.is_nested:
            return False
        if tensor.is_neg() or tensor._is_zerotensor() or torch._is_functional_tensor(tensor):
            return False
        if not tensor.is_contiguous() and not tensor.is_contiguous(memory_format=torch.channels_last):
            return False
    return library() is not None and not _makes_fakes()


def _makes_fakes() -> bool:
    """Whether new tensors have no memory now, under torch's ``FakeTensorMode``."""
    keys = getattr(torch._C, '_TorchDispatchModeKey', None)  # before torch 2.2 it cannot be told so
    return keys is not None and torch._C._get_dispatch_mode(keys.FAKE) is not None


@functools.cache
def _function(name: str) -> Any:
    function = getattr(library(), name)
    function.argtypes, function.restype = (*_ARGUMENTS[name], c_int), None
    return function


def _call(name: str, *arguments: Any) -> None:
    calls[name] += 1
    given = [
        one.data_ptr() if kind is _P else float(one) if kind is _F else one
        for one, kind in zip(arguments, _ARGUMENTS[name])
    ]
    _function(name)(*given, torch.get_num_threads())


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, of any shape that :func:`takes` takes."""
    out = torch.empty_like(x)
    _call('gelu', x, out, x.numel())
    return out


def gelu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of :func:`gelu` of ``x``; ``grad`` has the strides of ``x``."""
    out = torch.empty_like(x)
    _call('gelu_backward', grad, x, out, x.numel())
    return out


def standardize(
    rows: Tensor, gain: Tensor, scale: float, least: float, eps: float, out: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(O, N) rows to (row - mean) * scale * gain / sqrt(max(energy, least) + eps), with the energy about the mean.

    Then the means and the inverse norms, (O, 1) each. ``out``: where to write the first of these.
    """
    out = torch.empty_like(rows) if out is None else out
    mean, inverse = rows.new_empty(len(rows), 1), rows.new_empty(len(rows), 1)
    _call('standardize', rows, gain, scale, least, eps, out, mean, inverse, *rows.shape)
    return out, mean, inverse


def standardize_again(
    rows: Tensor, gain: Tensor, scale: float, mean: Tensor, inverse: Tensor, out: Tensor | None
) -> Tensor:
    """The standardised rows from what :func:`standardize` returned beside them, bit for bit the same."""
    out = torch.empty_like(rows) if out is None else out
    _call('standardize_again', rows, gain, scale, mean, inverse, out, *rows.shape)
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
    _call('standardize_backward', grad, rows, gain, scale, mean, inverse, longest, of_rows, of_gain, *rows.shape)
    return of_rows, of_gain


def clip(pointers: Tensor, places: Tensor, owners: Tensor, clipping: float, eps: float, factors: Tensor) -> None:
    """Clip gradients in place, unit by unit.

    Args:
        pointers: (2, P), addresses of the gradients and of the weights of all parameters; 0: not to be clipped.
        places: (P, 7), where the units of each are.
        owners: (units,), int32, of which parameter each unit is.
        clipping, eps: of the rule.
        factors: (units,), to be written: what each unit was multiplied by; infinite where its norm is not finite.
    """
    grads, weights = pointers
    _call('clip', grads, weights, places, owners, len(owners), clipping, eps, factors)
