"""The authors' moving average of the weights."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import BaseAveragedModel
from torch import Tensor, nn

from nfnet_mm.errors import UserError, check_number, check_positive
from nfnet_mm.registry import MODELS

from .sharded import is_sharded, local


def warmup_momentum(momentum: float, t: int) -> float:
    """The weight of the newest parameters in update ``t`` = 0, 1, ...: 1 - min(1 - momentum, (1 + t) / (10 + t)).

    Source: NFNets, Appendix A.1 (after EfficientNet), where the decay is 1 minus this.

    >>> [round(warmup_momentum(1e-5, t), 6) for t in (0, 1, 89, 10 ** 7)]
    [0.9, 0.818182, 0.090909, 1e-05]
    """
    return max(momentum, 9 / (10 + t))


@MODELS.register_module()
class WarmupEMA(BaseAveragedModel):
    """Exponential moving average of the weights whose decay is min(1 - momentum, (1 + t) / (10 + t)).

    t counts the updates from 0, and the average starts as the weights that training starts from: after the first
    update it is 0.1 of those and 0.9 of the new ones. Use it through mmengine's hook::

        custom_hooks = [dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA')]  # momentum=1e-4 to fine-tune ResNets

    Args:
        model: the model to average.
        momentum: 1 - decay, the name and meaning that mmengine's averages give it. The papers' decay of 0.99999 is
            the default, their 0.9999 is ``momentum=1e-4``.
        interval: average at every so many calls, for an optimizer wrapper that accumulates as many batches
            (``accumulative_counts``) per update of the weights. t counts averages, not calls.
        device: where to keep the average; None: beside the model.
        update_buffers: average floating-point buffers too. By default buffers are copied: batch-norm statistics are
            averages already. A buffer that the model registers or reshapes while it trains starts as a copy.

    Raises:
        ValueError: ``momentum`` is not in (0, 0.9), above which the warm-up would do nothing, ``interval`` is not
            a positive integer, or a model of other parameters is given to ``update_parameters``.

    Example:
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(net.weight)
        >>> average = WarmupEMA(net)
        >>> _ = nn.init.zeros_(net.weight)
        >>> average.update_parameters(net)
        >>> round(average.module.weight.item(), 6)
        0.1
    """

    steps: Tensor

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 1e-5,
        interval: int = 1,
        device: torch.device | None = None,
        update_buffers: bool = False,
    ):
        hint = ': it is 1 - decay, 1e-5 for a decay of 0.99999'
        check_number('WarmupEMA momentum', momentum, '(0, 0.9)', hint)
        check_positive('WarmupEMA interval', interval)
        for name, p in model.named_parameters():
            if p.dtype in (torch.float16, torch.bfloat16):
                raise UserError(
                    f'WarmupEMA cannot average {name}, which is {p.dtype}: the changes of an average are too small for '
                    'it, so that it would stand still. Keep the weights in float32, under autocast for speed'
                )
        super().__init__(model, interval, device, update_buffers)
        self.momentum = momentum
        self._device = device
        self.steps = self.steps.cpu()
        if not any(map(is_sharded, model.parameters())):  # these are initialised before they are sharded
            _StartAtFirstForward(self, model)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the model's present weights into the average: one foreach operation, no synchronisation."""
        calls = int(self.steps)
        self.steps += 1
        self._mirror_buffers(model)
        copied = self._pairs(model, 'named_buffers')
        if (calls + 1) % self.interval == 0:  # that is after the update, which ends an accumulation
            averaged = self._pairs(model, 'named_parameters')
            if self.update_buffers:
                averaged, copied = averaged + copied, []
            copied += [pair for pair in averaged if not pair[0].is_floating_point()]  # as of quantised, frozen layers
            averaged = [pair for pair in averaged if pair[0].is_floating_point()]
            if averaged:
                ours, theirs = zip(*averaged)
                torch._foreach_lerp_(ours, theirs, warmup_momentum(self.momentum, calls // self.interval))
        elif self.update_buffers:
            copied = []
        _copy(copied)

    @torch.no_grad()
    def _mirror_buffers(self, model: nn.Module) -> None:
        """Give each of our modules the buffers that the model has by now, in its order: mmengine swaps by zip().

        Some are registered in the first forward pass, or grow. Ours stay where the shape is the same; so do ties.
        """
        ours, theirs = dict(self.module.named_buffers()), dict(model.named_buffers())
        if list(ours) == list(theirs) and all(ours[name].shape == buffer.shape for name, buffer in theirs.items()):
            return
        modules, taken = dict(self.module.named_modules()), {None: None}
        for path, source in model.named_modules():
            module = modules.get(path)
            if module is None:
                if source._buffers:
                    raise UserError(f'not the model that WarmupEMA was built for: only one of the two has {path!r}')
                continue
            old = dict(module._buffers)
            for name in {*old, *source._buffers}:
                if name in old or name in vars(module):
                    delattr(module, name)
            for name, buffer in source._buffers.items():
                if buffer not in taken:
                    kept = old.get(name)
                    same = kept is not None and kept.shape == buffer.shape
                    taken[buffer] = kept if same else buffer.detach().clone().to(self._device or buffer.device)
                module.register_buffer(name, taken[buffer], name not in source._non_persistent_buffers_set)
        if self.update_buffers:
            self.avg_parameters = self.module.state_dict()

    def _pairs(self, model: nn.Module, kind: str) -> list[tuple[Tensor, Tensor]]:
        """(ours, the model's on our device) for each of its 'named_parameters' or 'named_buffers', tied ones once."""
        ours, theirs = dict(getattr(self.module, kind)()), dict(getattr(model, kind)())
        if ours.keys() != theirs.keys():
            name = min(ours.keys() ^ theirs.keys())
            raise UserError(f'not the model that WarmupEMA was built for: only one of the two has {name!r}')
        pairs = [(local(tensor), local(theirs[name].detach())) for name, tensor in ours.items()]
        return [(tensor, other.to(tensor.device)) for tensor, other in pairs]

    def _mirror_ties(self, model: nn.Module) -> None:
        """Tie our parameters as the model's are by now: mmengine swaps by zip() over each tied one once."""
        first: dict[int, str] = {}
        for name, p in model.named_parameters(remove_duplicate=False):
            if first.setdefault(id(p), name) != name:
                path, _, leaf = name.rpartition('.')
                setattr(self.module.get_submodule(path), leaf, self.module.get_parameter(first[id(p)]))

    def _start_from(self, model: nn.Module) -> None:
        self._mirror_buffers(model)
        for kind in ('named_parameters', 'named_buffers'):
            _copy(self._pairs(model, kind))

    def _apply(self, fn: Callable, *args: Any, **kwargs: Any) -> 'WarmupEMA':
        steps = self.steps
        super()._apply(fn, *args, **kwargs)
        self.steps = steps  # stays on the host, which reads it at every update
        return self


class _StartAtFirstForward:
    """A hook that copies the weights again when training begins, for mmengine initialises them after building us.

    It keeps neither of the two alive. A copy of the model, pickled or not, holds one that does nothing.
    """

    def __init__(self, average: WarmupEMA | None = None, model: nn.Module | None = None):
        if average is not None and model is not None:
            self.average, self.model = weakref.ref(average), weakref.ref(model)
            self.handle = model.register_forward_pre_hook(self)

    def __reduce__(self) -> tuple[type, tuple]:
        return type(self), ()

    def __call__(self, module: nn.Module, args: Any) -> None:
        if vars(self) and module is self.model() and module.training:
            self.handle.remove()
            average = self.average()
            if average is not None:
                average._mirror_ties(module)
                if average.steps == 0:
                    average._start_from(module)


@torch.no_grad()
def _copy(pairs: list[tuple[Tensor, Tensor]]) -> None:
    if pairs:
        ours, theirs = zip(*pairs)
        torch._foreach_copy_(ours, theirs)
