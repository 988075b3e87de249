"""The authors' moving average of the weights."""
import weakref
from typing import List, Optional, Tuple

import torch
from mmengine.model import BaseAveragedModel
from torch import Tensor, nn

from nfnet_mm.registry import MODELS


def warmup_momentum(momentum: float, t: int) -> float:
    """The weight of the newest parameters in update ``t`` = 0, 1, ...: 1 - min(1 - momentum, (1 + t) / (10 + t)).

    Source: NFNets, Appendix A.2 (after EfficientNet), where the decay is 1 minus this.

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
            averages already.

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

    def __init__(self,
                 model: nn.Module,
                 momentum: float = 1e-5,
                 interval: int = 1,
                 device: Optional[torch.device] = None,
                 update_buffers: bool = False):
        if isinstance(momentum, bool) or not isinstance(momentum, (int, float)) or not 0 < momentum < 0.9:
            raise ValueError(f'WarmupEMA momentum={momentum!r} must be a number in (0, 0.9): it is 1 - decay, '
                             '1e-5 for a decay of 0.99999')
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise ValueError(f'WarmupEMA interval={interval!r} must be a positive integer')
        super().__init__(model, interval, device, update_buffers)
        self.momentum = momentum
        self.steps = self.steps.cpu()
        self._start_from(model)

    def _start_from(self, model: nn.Module) -> None:
        """Copy the weights again when training begins: mmengine builds the average before it initialises them."""
        average = weakref.ref(self)  # the hook must not keep the average alive, nor a copy of the model copy it

        def before_first_forward(module, _):
            if module is model and module.training:
                handle.remove()
                if average() is not None and average().steps == 0:
                    for kind in ('named_parameters', 'named_buffers'):
                        _copy(average()._pairs(model, kind))

        handle = model.register_forward_pre_hook(before_first_forward)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the model's present weights into the average: one foreach operation, no synchronisation."""
        calls = int(self.steps)
        self.steps += 1
        copied = self._pairs(model, 'named_buffers')
        if (calls + 1) % self.interval == 0:  # that is after the update, which ends an accumulation
            averaged = self._pairs(model, 'named_parameters')
            if self.update_buffers:
                averaged += [pair for pair in copied if pair[0].is_floating_point()]
                copied = [pair for pair in copied if not pair[0].is_floating_point()]
            if averaged:
                torch._foreach_lerp_(*map(list, zip(*averaged)), warmup_momentum(self.momentum, calls // self.interval))
        elif self.update_buffers:
            copied = []
        _copy(copied)

    def _pairs(self, model: nn.Module, kind: str) -> List[Tuple[Tensor, Tensor]]:
        """(ours, the model's on our device) for each of its 'named_parameters' or 'named_buffers', tied ones once."""
        ours, theirs = dict(getattr(self.module, kind)()), dict(getattr(model, kind)())
        if ours.keys() != theirs.keys():
            name = min(ours.keys() ^ theirs.keys())
            raise ValueError(f'not the model that WarmupEMA was built for: only one of the two has {name!r}')
        return [(tensor, theirs[name].detach().to(tensor.device)) for name, tensor in ours.items()]

    def _apply(self, fn, *args, **kwargs):
        steps = self.steps
        super()._apply(fn, *args, **kwargs)
        self.steps = steps  # stays on the host, which reads it at every update
        return self


@torch.no_grad()
def _copy(pairs: List[Tuple[Tensor, Tensor]]) -> None:
    if pairs:
        torch._foreach_copy_(*map(list, zip(*pairs)))
