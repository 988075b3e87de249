"""How a compiled kernel is called, and for which tensors."""

import functools
import threading
from collections import Counter
from ctypes import c_float, c_int, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from .build import library

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
    return library() is not None and not _are_watched()


def _are_watched() -> bool:
    """Whether a mode of torch must see each operation: one that traces them, counts their arithmetic or fakes them.

    One that knows of the kernels has an attribute ``counts_cpu_kernels``.
    """
    return any(not hasattr(mode, 'counts_cpu_kernels') for mode in _get_current_dispatch_mode_stack())


@functools.cache
def function(name: str) -> Any:
    """A function of the library, whose last argument is a number of threads."""
    found = getattr(library(), name)
    found.argtypes, found.restype = (*_ARGUMENTS[name], c_int), c_int64  # what most return is not looked at
    return found


def run_kernel(name: str, *arguments: Any) -> None:
    """Run a kernel, by as many threads as torch has."""
    calls[name] += 1
    given = [
        float(one) if kind is _F else one.data_ptr() if isinstance(one, Tensor) else one
        for one, kind in zip(arguments, _ARGUMENTS[name])
    ]
    function(name)(*given, torch.get_num_threads())


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
