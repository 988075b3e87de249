"""Kernels of our own for the CPU, in C: what torch's operations take several passes over memory for.

They are compiled where there is a C compiler, when they are first needed. :func:`takes` says whether they can be used
for some tensors; where not, the caller does without. Results agree with torch's operations to float32 rounding.
"""

import functools
import threading
from collections import Counter
from collections.abc import Sequence
from ctypes import c_float, c_int, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor, nn

from .build import SWITCH, library, state

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

calls: Counter[str] = Counter()  # how often each kernel was run in this process

_P, _N, _F = c_void_p, c_int64, c_float
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    'gelu': (_P, _P, _N),
    'gelu_backward': (_P, _P, _P, _N),
    'standardize': (_P, _P, _F, _F, _F, _P, _P, _P, _N, _N),
    'standardize_again': (_P, _P, _F, _P, _P, _P, _N, _N),
    'standardize_backward': (_P, _P, _P, _F, _P, _P, _F, _P, _P, _N, _N),
    'clip': (_P, _P, _P, _P, _N, _F, _F, _P, _P),
    'conv3x3': (_P, _P, _P, _P, _P, _N, _P),
    'conv3x3_weight': (_P, _P, _P, _P, _P),
    'conv3x3_scratch': (_P,),
    'pointwise_weight': (_P, _P, _P, _N, _N, _N, _P),
    'pointwise_scratch': (_N, _N),
    'products_pay': (),
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
    function.argtypes, function.restype = (*_ARGUMENTS[name], c_int), c_int64  # what most return is not looked at
    return function


def _call(name: str, *arguments: Any) -> None:
    calls[name] += 1
    given = [
        float(one) if kind is _F else one.data_ptr() if isinstance(one, Tensor) else one
        for one, kind in zip(arguments, _ARGUMENTS[name])
    ]
    _function(name)(*given, torch.get_num_threads())


_memory = threading.local()


def scratch(purpose: str, size: int, dtype: torch.dtype) -> Tensor:
    """Memory for ``size`` values, the same for one purpose and dtype at every call in this thread.

    Fresh memory costs more than what is computed in it: it has to be mapped, and unmapped, page by page.
    """
    name = f'{purpose} {dtype}'
    kept = getattr(_memory, name, None)
    if kept is None or len(kept) < size:
        with torch.inference_mode(False):
            kept = torch.empty(size, dtype=dtype, device='cpu')
        setattr(_memory, name, kept)
    return kept


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
    _call('clip', grads, weights, places, owners, len(owners), clipping, eps, factors, marks)


def takes_conv3x3(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> bool:
    """Whether a conv can be computed by Winograd's algorithm, and by it faster than by torch.

    It is a 3 x 3 conv of stride 1 with at least 32 channels in a group, in multiples of 32, whose activations are
    channels-last; and there are outputs enough that to prepare the weights pays, and parts enough for all threads.
    """
    if weight.shape[2:] != (3, 3) or x.dim() != 4 or tuple(stride) != (1, 1) or tuple(dilation) != (1, 1):
        return False
    (down, across), inputs, outputs = padding, weight.shape[1], len(weight) // groups
    if down != across or not 0 <= down <= 2 or inputs % 32 or outputs % 32 or x.shape[1] != inputs * groups:
        return False
    n, _, height, width = _out_size(x, weight, down)
    tiles = n * -(-height // 2) * -(-width // 2) if min(height, width) > 0 else 0
    parts = groups * min(4, -(-tiles // 48)) * (min(inputs, outputs) // 32)
    if tiles < 32 or parts < torch.get_num_threads() or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    return takes(x, weight) and bool(_function('products_pay')(0))


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    """A conv as :func:`takes_conv3x3` takes it: of (N, I, H, W) by (O, I / groups, 3, 3), channels-last."""
    out = torch.empty(_out_size(x, weight, padding), memory_format=torch.channels_last, device='cpu', dtype=x.dtype)
    weight = weight.contiguous(memory_format=torch.channels_last)
    shape, memory = _shape_and_scratch(x, weight, padding, groups)
    _call('conv3x3', x, weight, bias, out, shape, 0, memory)
    return out


def conv3x3_input(grad: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """The gradient of the input of :func:`conv3x3`, from that of its output, which is channels-last."""
    _check(grad, x, weight, padding)
    out = torch.empty_like(x)
    weight = weight.contiguous(memory_format=torch.channels_last)
    shape, memory = _shape_and_scratch(x, weight, padding, groups)
    n, height, width, inputs, outputs, *_ = shape
    turned = _Shape(n, height + 2 * padding - 2, width + 2 * padding - 2, outputs, inputs, groups, 2 - padding)
    _call('conv3x3', grad, weight, None, out, turned, 1, memory)
    return out


def conv3x3_weight(grad: Tensor, x: Tensor, weight: Tensor, padding: int, groups: int) -> Tensor:
    """The gradient of the weight of :func:`conv3x3`, channels-last as input and gradient are."""
    _check(grad, x, weight, padding)
    out = torch.empty_like(weight, memory_format=torch.channels_last)
    shape, memory = _shape_and_scratch(x, weight, padding, groups)
    _call('conv3x3_weight', x, grad, out, shape, memory)
    return out


def takes_pointwise_weight(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], groups: int
) -> bool:
    """Whether :func:`pointwise_weight` takes them, which is faster than torch: channels-last, in multiples of 32."""
    if weight.shape[2:] != (1, 1) or x.dim() != 4 or tuple(stride) != (1, 1) or any(padding) or groups != 1:
        return False
    outputs, inputs = weight.shape[:2]
    n, *size = len(x), *x.shape[2:]
    if x.shape != (n, inputs, *size) or grad.shape != (n, outputs, *size) or not x.numel():
        return False
    if outputs % 32 or inputs % 32 or outputs // 32 * (inputs // 32) < torch.get_num_threads():
        return False
    if not all(one.is_contiguous(memory_format=torch.channels_last) for one in (x, grad)):
        return False
    return takes(grad, x) and bool(_function('products_pay')(0))


def pointwise_weight(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient (O, I, 1, 1) of a pointwise conv's weight, from the (N, O, H, W) of its output and (N, I, H, W)."""
    inputs, outputs = x.shape[1], grad.shape[1]
    out = torch.empty(outputs, inputs, 1, 1, dtype=x.dtype, device='cpu')
    memory = scratch('conv', _function('pointwise_scratch')(inputs, outputs, torch.get_num_threads()), x.dtype)
    _call('pointwise_weight', x, grad, out, x.numel() // inputs, inputs, outputs, memory)
    return out


_Shape = c_int64 * 7  # images, height, width, inputs and outputs of a group, groups, padding


def _shape_and_scratch(x: Tensor, weight: Tensor, padding: int, groups: int) -> tuple[Any, Tensor]:
    n, _, height, width = x.shape
    shape = _Shape(n, height, width, weight.shape[1], len(weight) // groups, groups, padding)
    return shape, scratch('conv', _function('conv3x3_scratch')(shape, torch.get_num_threads()), torch.float32)


def _out_size(x: Tensor, weight: Tensor, padding: int) -> tuple[int, int, int, int]:
    n, _, height, width = x.shape
    return n, len(weight), height + 2 * padding - 2, width + 2 * padding - 2


def _check(grad: Tensor, x: Tensor, weight: Tensor, padding: int) -> None:
    if grad.shape != _out_size(x, weight, padding):  # memory that is not there would be read
        raise ValueError(f'a gradient of shape {tuple(grad.shape)} is not one of {_out_size(x, weight, padding)}')
