"""Numbers that the host reads when the device has computed them, and does not wait for."""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_MOST = 256  # that may be outstanding


class Later:
    """A queue of small tensors on their way to the host, each with what is to be done with its values.

    Those on a CPU are used at once, those on CUDA when a later call finds that they have arrived, in order: a step or
    so later. The host waits only where it is asked to, or far ahead of the device.

    >>> later, told = Later(), []
    >>> later.put(torch.tensor([1.0, 2.0]), told.append)
    >>> told
    [[1.0, 2.0]]
    """

    def __init__(self) -> None:
        self._queue: deque[tuple[Tensor, Any, Callable[[list[float]], object]]] = deque()

    def put(self, values: Tensor, use: Callable[[list[float]], object]) -> None:
        """Have ``use`` called with the values of a tensor (n,), and with those before it that have arrived."""
        if values.device.type == 'cuda':
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        else:
            host, arrived = values, None
        self._queue.append((host, arrived, use))
        self.read(len(self._queue) > _MOST)

    def read(self, wait: bool = False) -> None:
        """Use what has arrived; with ``wait``, everything."""
        while self._queue:
            host, arrived, use = self._queue[0]
            if arrived is not None and not arrived.query():
                if not wait:
                    return
                arrived.synchronize()
            self._queue.popleft()  # first, as ``use`` may raise
            use(host.tolist())
