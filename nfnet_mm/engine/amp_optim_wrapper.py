"""Adaptive gradient clipping under automatic mixed precision."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from nfnet_mm.errors import UserError
from nfnet_mm.registry import OPTIM_WRAPPERS

from .fused import left_out_where
from .optim_wrapper import AGCOptimWrapper

_SCALER_OPTIONS = ('init_scale', 'growth_factor', 'backoff_factor', 'growth_interval', 'enabled')


@OPTIM_WRAPPERS.register_module()
class AmpAGCOptimWrapper(AGCOptimWrapper):
    """:class:`AGCOptimWrapper` under automatic mixed precision; gradients are unscaled before they are clipped.

    It does what mmengine's ``AmpOptimWrapper`` does, whose constructor refuses a CPU, and reads and writes its states.

    Args:
        loss_scale: ``'dynamic'``, a number (static) or a dict of the arguments of torch's ``GradScaler``. With
            ``dtype='bfloat16'`` ``'dynamic'`` means no scaling, which that range does not need.
        dtype: ``'float16'`` (the default of an accelerator) or ``'bfloat16'`` (that of a CPU, which takes no other).
            Under bfloat16 a detector's boxes, RoI features and the answers of its heads stay in float32.
        optimizer, accumulative_counts, clip_grad, agc, max_nonfinite_steps: as in :class:`AGCOptimWrapper`. Under
            float16 the first steps may overflow until the loss scale has settled; they count as skipped.

    Raises:
        ValueError: ``loss_scale`` or ``dtype`` is none of these, or the dtype is not for this device.
        RuntimeError: as in :class:`AGCOptimWrapper`.
    """

    def __init__(
        self,
        loss_scale: str | float | dict[str, Any] = 'dynamic',
        dtype: str | torch.dtype | None = None,
        use_fsdp: bool = False,
        **kwargs: Any,
    ):
        if use_fsdp:
            raise RuntimeError(
                f'{type(self).__name__} refuses use_fsdp=True: AGC needs whole weights, and FSDP tears '
                'units apart. Use DistributedDataParallel, or a plain AmpOptimWrapper without AGC.'
            )
        on_cpu = _is_on_cpu(kwargs.get('optimizer'))
        self._device_type = 'cpu' if on_cpu else None  # None: mmengine's choice
        self.cast_dtype = _check_dtype(dtype, on_cpu)
        options = _scaler_options(loss_scale)
        if loss_scale == 'dynamic' and self.cast_dtype is torch.bfloat16:
            options = dict(enabled=False)
        self._static_scale = None if isinstance(loss_scale, (str, dict)) else options['init_scale']
        self.loss_scaler = _loss_scaler(options, on_cpu)
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """As in mmengine."""
        from mmengine.runner.amp import autocast  # needs OpenCV

        with super().optim_context(model), autocast(self._device_type, dtype=self.cast_dtype):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """The gradients of ``loss``, a scalar, times the scale of the loss."""
        super().backward(self.loss_scaler.scale(loss), **kwargs)

    def step(self, **kwargs: Any) -> None:
        self._refuse_closure(kwargs)
        self.loss_scaler.unscale_(self.optimizer)
        params = self._params()
        if self._device_decides(params):
            # unscaled by now, and looked at: not by the scaler's step, which would look at the scaled ones only
            with left_out_where(self._clip_without_looking(params), self.optimizer):
                OptimWrapper.step(self, **kwargs)
        elif self._clip_adaptively():
            if self.clip_grad_kwargs:
                self._clip_grad()
            self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update(self._static_scale)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), 'loss_scaler': self.loss_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The optimizer's state and, where it holds one, that of the scaling of the loss."""
        state = dict(state_dict)
        if scaler := state.pop('loss_scaler', None):  # that of a scaler that was off is empty
            self.loss_scaler.load_state_dict(scaler)
        super().load_state_dict(state)


def _is_on_cpu(optimizer: Any) -> bool:
    """Whether the weights are on the CPU, which they may be on a machine that has an accelerator."""
    devices = {p.device.type for group in getattr(optimizer, 'param_groups', ()) for p in group['params']}
    return devices == {'cpu'} if devices else get_device() == 'cpu'


def _check_dtype(dtype: str | torch.dtype | None, on_cpu: bool) -> torch.dtype | None:
    names = {'float16': torch.float16, 'bfloat16': torch.bfloat16}
    chosen = names.get(dtype) if isinstance(dtype, str) else torch.bfloat16 if dtype is None and on_cpu else dtype
    if chosen not in names.values() and dtype is not None:
        raise UserError(
            f"AmpAGCOptimWrapper dtype={dtype!r} must be 'float16' or 'bfloat16'; AGCOptimWrapper trains in float32"
        )
    if on_cpu and chosen is torch.float16:
        why = "needs an accelerator, and the weights are on the CPU, where autocast takes 'bfloat16'"
        raise UserError(f'AmpAGCOptimWrapper dtype={dtype!r} {why}')
    return chosen


def _scaler_options(loss_scale: str | float | dict[str, Any]) -> dict[str, Any]:
    """The arguments of torch's ``GradScaler``."""
    if loss_scale == 'dynamic':
        return {}
    if isinstance(loss_scale, (int, float)) and not isinstance(loss_scale, bool) and 0 < loss_scale < math.inf:
        return dict(init_scale=float(loss_scale))
    what, known = 'AmpAGCOptimWrapper loss_scale', ', '.join(_SCALER_OPTIONS)
    if not isinstance(loss_scale, dict):
        raise UserError(f"{what}={loss_scale!r} must be 'dynamic', a positive number, or a dict of {known}")
    for key in loss_scale:
        if key not in _SCALER_OPTIONS:
            raise UserError(f"{what} key {key!r} is unknown; torch's GradScaler takes {known}")
    return loss_scale


def _loss_scaler(options: dict[str, Any], on_cpu: bool) -> 'torch.amp.GradScaler':  # a name that torch 2.1 lacks
    if not on_cpu:  # mmengine chooses that of the accelerator
        from mmengine.optim.optimizer.amp_optimizer_wrapper import GradScaler

        return GradScaler(**options)
    if hasattr(torch.amp, 'GradScaler'):
        return torch.amp.GradScaler('cpu', **options)
    if options.get('enabled', True):
        raise RuntimeError(
            f'AmpAGCOptimWrapper: torch {torch.__version__} has no loss scaling on a CPU '
            "(2.3 has): use dtype='bfloat16', which needs none"
        )
    return torch.cuda.amp.GradScaler(enabled=False)
