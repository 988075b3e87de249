"""A whole training step as one CUDA graph."""

from typing import Any

import torch

from .subject import Subject, Unmeasured

_WARM_UPS = 3  # before the capture, as torch's documentation asks for


class Captured:
    """Forward and backward pass, clipping function and optimizer step of a subject, captured once and replayed.

    The optimizer wrapper is left out, which also counts and logs on the host.
    """

    def __init__(self, subject: Subject):
        if subject.settings.device != 'cuda':
            raise Unmeasured('CUDA graphs need --device cuda')
        if subject.settings.dtype == 'float16':
            raise Unmeasured('a loss scale is looked at on the host, so that float16 is not captured')
        self.subject = subject
        update: Any = subject.update
        self.optimizer: torch.optim.Optimizer = getattr(update, 'wrapper', update).optimizer
        self.clip = subject.clip() if subject.implementation.clipping else None
        subject.set_training(True)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)  # gradients of the capture lie in the graph's own memory
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._step()

    def _step(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.subject.loss().backward()
        if self.clip:
            self.clip()
        self.optimizer.step()

    def replay(self) -> None:
        """One training step."""
        self.graph.replay()

    def launches(self) -> int:
        """How many launches of a graph or of a kernel the host makes for a step."""
        from torch.profiler import ProfilerActivity, profile

        self.replay()
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
            self.replay()
            torch.cuda.synchronize()
        return sum(event.name.startswith(('cudaGraphLaunch', 'cudaLaunchKernel')) for event in profiled.events())
