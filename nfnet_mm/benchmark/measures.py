"""What is measured of an implementation: times, bytes and counts."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nfnet_mm.analysis.launches import count_launches, profile_launches
from nfnet_mm.models.layers import WSConv2d

from .graph import Captured
from .memory import held_bytes, peak_bytes, saved_bytes
from .subject import Subject, Unmeasured
from .timing import Timed

_STEPS = 100  # in which synchronisations are counted


@dataclass(frozen=True)
class Measure:
    """One figure of a subject.

    ``timed`` gives what is timed, in turns with the other side; ``counted`` the figure itself.
    """

    what: str
    unit: str  # 's', 'bytes' or '' (a number)
    timed: Callable[[Subject], Timed] | None = None
    counted: Callable[[Subject], float] | None = None


def _train(subject: Subject) -> Timed:
    return Timed(subject.train_step, subject.settings.device, lambda: subject.set_training(True))


def _eval(subject: Subject) -> Timed:
    return Timed(subject.evaluate, subject.settings.device, lambda: subject.set_training(False))


def _fold(subject: Subject) -> Timed:
    subject.set_training(False)
    subject.evaluate_folded()  # folds
    return Timed(subject.evaluate_folded, subject.settings.device, lambda: subject.set_training(False))


def _agc(subject: Subject, all_units: bool) -> Timed:
    """Clipping of gradients that are far above, or far below, the limit of every unit."""
    clip = subject.clip()
    generator = torch.Generator().manual_seed(0)
    factor = 1e3 if all_units else 1e-9  # the least limit is 0.01 * 1e-3
    given = []
    for p in subject.parameters:
        grad = torch.empty_like(p)
        grad.copy_(torch.randn(p.shape, generator=generator).mul_(factor))
        p.grad = torch.empty_like(p)
        given.append(grad)

    def prepare() -> None:
        for p in subject.parameters:
            if p.grad is None:  # after a training step
                p.grad = torch.empty_like(p)
        torch._foreach_copy_([p.grad for p in subject.parameters], given)

    return Timed(clip, subject.settings.device, prepare)


def _standardise(subject: Subject) -> Timed:
    """Forward and backward of the standardised weights of all convs, which were changed since the last time."""
    convs = [module for module in subject.network.modules() if _standardised(module) is not None]
    if not convs:
        raise Unmeasured(f'{subject.implementation.name} has no standardised weights')
    weights: list[Any] = [conv.weight for conv in convs]
    sources: list[Any] = weights + [conv.gain for conv in convs]

    def forward() -> list[Tensor]:
        with subject.autocast():
            return [weight for conv in convs if (weight := _standardised(conv)) is not None]

    grads = [torch.randn_like(weight) for weight in forward()]

    def prepare() -> None:
        for p in sources:
            p.grad = None
        with torch.no_grad():
            torch._foreach_mul_(weights, 1.0)  # what is kept of unchanged weights does not do

    def run() -> None:
        torch.autograd.backward(forward(), grads)

    return Timed(run, subject.settings.device, prepare)


def _standardised(conv: nn.Module) -> Tensor | None:
    """The standardised weight of a conv of this package or of timm; None for another module.

    timm's is computed within its forward passes (timm/layers/std_conv.py), whose operations these are.
    """
    if isinstance(conv, WSConv2d):
        return conv.standardized_weight()
    if not type(conv).__name__.startswith('ScaledStdConv2d'):
        return None
    timms: Any = conv
    rows = timms.weight.reshape(1, timms.out_channels, -1)
    gain = (timms.gain * timms.scale).view(-1)
    return F.batch_norm(rows, None, None, weight=gain, training=True, momentum=0.0, eps=timms.eps).view_as(timms.weight)


def _forward(subject: Subject) -> Callable[[], Tensor]:
    subject.set_training(True)
    return subject.loss


def _saved(subject: Subject) -> float:
    return saved_bytes(_forward(subject), subject.network.parameters())


def _held(subject: Subject) -> float:
    _eager(subject)
    return held_bytes(_forward(subject))


def _eager(subject: Subject) -> None:
    if subject.settings.compiled:
        raise Unmeasured('compiled code dispatches no operations that could be looked at')


def _peak(subject: Subject) -> float:
    if subject.settings.device != 'cuda':
        raise Unmeasured('peak memory is that of CUDA')
    _ready(subject)
    return peak_bytes(subject.train_step)


def _ready(subject: Subject) -> None:
    """Let first steps set up what they do."""
    subject.set_training(True)
    for _ in range(2):
        subject.train_step()


def _launches(subject: Subject) -> float:
    """As profiled on CUDA; on the CPU, and where the profiler may see no kernels, as dispatched."""
    _ready(subject)
    if subject.settings.device == 'cuda' and (found := profile_launches(subject.train_step).launches):
        return found
    _eager(subject)
    return count_launches(subject.train_step).launches


def _synchronisations(subject: Subject) -> float:
    if subject.settings.device != 'cuda':
        raise Unmeasured('on a CPU nothing is waited for')
    _ready(subject)
    return synchronisations(subject.train_step, _STEPS)


def synchronisations(step: Callable[[], Any], steps: int) -> int:
    """How often the host waits for the GPU in so many steps, by torch's warnings of it."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        torch.cuda.set_sync_debug_mode('warn')
        try:
            for _ in range(steps):
                step()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    return sum('synchroniz' in str(one.message) for one in caught)


def _graph(subject: Subject) -> Timed:
    return Timed(Captured(subject).replay, subject.settings.device)


def _graph_launches(subject: Subject) -> float:
    return Captured(subject).launches()


MEASURES: Mapping[str, Measure] = {
    'train': Measure('training step', 's', _train),
    'eval': Measure('evaluation', 's', _eval),
    'fold': Measure('folded evaluation', 's', _fold),
    'agc': Measure('AGC, no unit clipped', 's', lambda subject: _agc(subject, False)),
    'agc-all': Measure('AGC, all units clipped', 's', lambda subject: _agc(subject, True)),
    'ws': Measure('weight standardisation', 's', _standardise),
    'accumulate': Measure('accumulated training step', 's', _train),
    'graph': Measure('training step as a CUDA graph', 's', _graph),
    'saved': Measure('saved tensors', 'bytes', counted=_saved),
    'held': Measure('held for the backward pass', 'bytes', counted=_held),
    'peak': Measure('peak memory of a training step', 'bytes', counted=_peak),
    'launches': Measure('launches of a training step', '', counted=_launches),
    'syncs': Measure('synchronisations of 100 training steps', '', counted=_synchronisations),
    'graph-launches': Measure('launches of a captured training step', '', counted=_graph_launches),
}
