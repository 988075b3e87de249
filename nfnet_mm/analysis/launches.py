"""Kernel launches and host synchronisations of a piece of code: what bounds small batches on a GPU.

On a machine without a GPU they are counted by the operations that are dispatched, which are the same ones; on a GPU by
torch's profiler.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nfnet_mm import cpu_kernels

# Operations that launch nothing: they allocate, or give another view of what is there.
_ALLOCATIONS = (
    *('empty', 'new_empty', 'resize', 'detach', 'alias', 'lift', 'set_', '_unsafe_view', '_reshape_alias'),
    *('is_same_size', 'is_pinned', '_pin_memory', 'record_stream', 'sym_', 'promote_types'),
)
# Operations whose answer, or the size of it, the host waits for. A tensor made of Python's numbers is copied to the
# device from pageable memory, for which the host waits too; ``lift_fresh`` is all that is dispatched of that.
_WAITS = ('_local_scalar_dense', 'nonzero', 'masked_select', 'equal', '_unique', 'unique_', 'bincount', 'lift_fresh')
# Of one list, two, ...: how many tensors one multi-tensor kernel takes; and blocks, and elements of a block
# (ATen/native/cuda/MultiTensorApply.cuh).
_TENSORS, _BLOCKS, _CHUNK = (110, 64, 48, 36, 30), 320, 65536


@dataclass(frozen=True)
class Counts:
    """What a piece of code did, and by which operations."""

    launches: int  # of kernels, fills and copies on the device
    synchronisations: int  # times the host waited for the device
    operations: Counter[str] = field(default_factory=Counter, repr=False)  # launches of each operation
    waits: Counter[str] = field(default_factory=Counter, repr=False)  # synchronisations of each operation


def count_launches(fn: Callable[[], object]) -> Counts:
    """Count what ``fn`` would launch on a GPU, by the operations that it dispatches on whatever device it runs.

    An operation counts as one launch, the backward of a convolution as one for each gradient, and a multi-tensor
    operation as the kernels that torch splits it into, or as one for each tensor where torch takes its slow path
    (shapes that broadcast, mixed dtypes). Tensors on the CPU count only where all are. The kernels that cuDNN adds are
    not seen, nor those of compiled code.

    >>> weight = torch.nn.Parameter(torch.ones(3, 3))
    >>> count_launches(lambda: weight.sum().backward())
    Counts(launches=3, synchronisations=0)
    >>> count_launches(lambda: weight.detach().max().item()).synchronisations
    1
    """
    before = cpu_kernels.calls.copy()
    with _Counting() as mode:
        fn()
    mode.operations.update({(f'cpu_kernels.{name}', 'cpu'): n for name, n in (cpu_kernels.calls - before).items()})
    devices = {device for _, device in (*mode.operations, *mode.waits)} - {'cpu'} or {'cpu'}
    operations, waits = (
        Counter({name: n for (name, device), n in found.items() if device in devices})
        for found in (mode.operations, mode.waits)
    )
    return Counts(sum(operations.values()), sum(waits.values()), operations, waits)


def profile_launches(fn: Callable[[], object]) -> Counts:
    """Count what ``fn`` launches on a CUDA device, by torch's profiler; run it once before, as first calls set up."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught, profile(activities=[ProfilerActivity.CUDA]) as profiled:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            fn()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    on_device = (event for event in profiled.events() if event.device_type is torch.autograd.DeviceType.CUDA)
    operations = Counter(event.name for event in on_device)
    waits = Counter('synchronising CUDA operation' for one in caught if 'synchronizing' in str(one.message))
    return Counts(sum(operations.values()), sum(waits.values()), operations, waits)


class _Counting(TorchDispatchMode):
    counts_cpu_kernels = True

    def __init__(self) -> None:
        super().__init__()
        # by name and type of device
        self.operations: Counter[tuple[str, str]] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        namespace, name = func._schema.name.split('::')
        devices = _devices((args, kwargs, out))
        if not devices or namespace == 'profiler':
            return out
        device = min(devices - {'cpu'}, default='cpu')
        if name.startswith(_WAITS) or _waits(name, args, kwargs or {}, out):
            self.waits[name, device] += 1
        launches = _launches(name, func, args)
        if launches:
            self.operations[name, device] += launches
        return out


def _devices(value: Any) -> set[str]:
    """The types of the devices of all tensors in nested lists and dicts."""
    if isinstance(value, Tensor):
        return {value.device.type}
    if isinstance(value, dict):
        value = tuple(value.values())
    return set().union(*map(_devices, value)) if isinstance(value, (list, tuple)) else set()


def _waits(name: str, args: tuple, kwargs: dict, out: Any) -> bool:
    """Whether the host waits in an operation that it mostly does not wait in."""
    if name in ('index', 'index_put', 'index_put_', '_index_put_impl_', '_unsafe_index'):
        masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        # a single value is filled in under the mask, whose size nobody asks for
        return bool(masks) and (name == 'index' or len(args[1]) > 1 or args[2].numel() != 1)
    if name == 'repeat_interleave':
        return kwargs.get('output_size') is None
    if name in ('_to_copy', 'copy_'):
        source, target = (args[1], args[0]) if name == 'copy_' else (args[0], out)
        kept = kwargs.get('non_blocking') or (len(args) > 2 and args[2] is True)
        return source.device.type != target.device.type and not kept
    return False


def _launches(name: str, func: Any, args: tuple) -> int:
    if name.startswith(_ALLOCATIONS) or name == '_local_scalar_dense' or _is_view(func):
        return 0
    if name.startswith(('_foreach_', '_fused_', '_amp_foreach_')):
        return multi_tensor_launches(
            [arg for arg in args if isinstance(arg, (list, tuple)) and arg and isinstance(arg[0], Tensor)],
            fused=not name.startswith('_foreach_'),
        )
    if name == 'convolution_backward':
        return sum(args[-1])
    return 1


def multi_tensor_launches(lists: list, fused: bool = False) -> int:
    """The kernels of a multi-tensor operation over lists of tensors that go together."""
    lists = [one for one in lists if fused is False or len(one) == len(lists[0])]
    for together in zip(*lists):
        first = together[0]
        alike = all(t.shape == first.shape and t.dtype == first.dtype for t in together)
        if not fused and not (alike and _dense(together)):
            return len(lists[0])
    at_once = _TENSORS[min(len(lists), len(_TENSORS)) - 1]
    launches = tensors = blocks = 0
    for size in (t.numel() for t in lists[0] if t.numel()):
        tensors += 1
        chunks = math.ceil(size / _CHUNK)
        for chunk in range(1, chunks + 1):
            blocks += 1
            if blocks == _BLOCKS or (chunk == chunks and tensors == at_once):
                launches += 1
                blocks, tensors = 0, int(chunk < chunks)  # the rest of a tensor comes along
    return launches + (blocks > 0)


def _dense(tensors: Iterable[Tensor]) -> bool:
    strides = {t.stride() for t in tensors}
    return len(strides) == 1 and all(_is_dense(t) for t in tensors)


def _is_dense(tensor: Tensor) -> bool:
    in_channels_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.is_contiguous() or in_channels_last


def _is_view(func: Any) -> bool:
    """Whether an operation returns part of what it was given, and writes nothing."""
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
