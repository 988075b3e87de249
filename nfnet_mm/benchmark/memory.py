"""What a forward pass keeps for the backward pass, and what a training step takes at its peak."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode


def saved_bytes(forward: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """Bytes of the tensors that autograd's functions save in a forward pass.

    Counted by ``torch.autograd.graph.saved_tensors_hooks``. A storage that several functions save, or of which they
    save views, is counted once, whole; the parameters' own storages, which are there anyway, are not. Of a part that
    ``torch.utils.checkpoint`` computes again its inputs are. What is kept past ``save_for_backward`` is out of the
    hooks' sight: :func:`held_bytes` counts that too.

    Args:
        forward: returns the loss, whose graph is looked at and then dropped.
        parameters: of the network.
    """
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()  # while it lives, so does what is saved: no address is used twice
    for p in parameters:
        sizes.pop(p.untyped_storage().data_ptr(), None)
    del loss
    return sum(sizes.values())


def held_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes of all storages that a forward pass made and that are still there at its end, for the backward pass.

    Whoever holds them: saved tensors, attributes of autograd functions, caches. The loss itself is among them.

    Args:
        forward: returns the loss.
    """
    with _Storages() as made:
        loss = forward()
    held = sum(size for reference, size in made.sizes.values() if not reference.expired())
    del loss  # not before
    return held


class _Storages(TorchDispatchMode):
    """Notes the storage of every tensor that an operation returns, and holds none of them."""

    counts_cpu_kernels = True

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, tuple[StorageWeakRef, int]] = {}  # by address: of one that was freed, the next is noted
        self.before: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in given or storage.data_ptr() in self.sizes:
                self.sizes[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        return out


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)


def peak_bytes(step: Callable[[], Any]) -> int:
    """Bytes that a step takes at its peak, on CUDA, beyond what was allocated before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
