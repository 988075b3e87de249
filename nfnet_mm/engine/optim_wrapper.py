"""Optimizer wrappers with adaptive gradient clipping, and a guard against non-finite gradients."""

import difflib
import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from nfnet_mm.registry import OPTIM_WRAPPERS

from .agc import adaptive_clip_grad_, check_agc, with_dense_grad
from .bfloat16 import keep_boxes_in_float32

_DEFAULTS = dict(clipping=0.01, eps=1e-3)
_SCALER_OPTIONS = ('init_scale', 'growth_factor', 'backoff_factor', 'growth_interval', 'enabled')


class _AGC:
    """What both wrappers add to mmengine's; see :class:`AGCOptimWrapper`."""

    def _set_up_agc(self, agc: dict | None, max_nonfinite_steps: int) -> None:
        agc = {} if agc is None else agc
        for key in agc:
            if key not in _DEFAULTS:
                near = difflib.get_close_matches(key, _DEFAULTS, n=1)
                hint = f'; did you mean {near[0]!r}?' if near else ''
                raise ValueError(f"agc key {key!r} is unknown: agc takes 'clipping' and 'eps'{hint}")
        self.agc = {**_DEFAULTS, **agc}
        check_agc(**self.agc)
        if not isinstance(max_nonfinite_steps, int) or max_nonfinite_steps < 1:
            raise ValueError(f'max_nonfinite_steps={max_nonfinite_steps!r} must be a positive integer')
        self.max_nonfinite_steps = max_nonfinite_steps
        self.skipped_steps = 0
        self._nonfinite_in_a_row = 0
        self._names: dict[Tensor, str] = {}
        self.excluded: set[Tensor] = set()
        self._transposed: dict[Tensor, int] = {}
        self._bound = False
        self._refuse_shards(p for group in self.optimizer.param_groups for p in group['params'])

    def bind(self, model: nn.Module, exclude: Iterable[Tensor] = ()) -> None:
        """Tell the wrapper its model, and which weights are not clipped."""
        self._look_at(model)
        self.excluded = set(exclude)
        self._bound = True

    def _look_at(self, model: nn.Module) -> None:
        """Note the parameters' names, for messages, and the transposed convs, whose units lie along another axis.

        Under bfloat16, a detector's boxes are kept in float32.
        """
        if getattr(self, 'cast_dtype', None) is torch.bfloat16:
            keep_boxes_in_float32(model)
        self._names = {p: name for name, p in model.named_parameters()}
        # by shape, as under spectral or weight normalisation the parameter is not the weight
        self._transposed = {
            p: m.groups
            for m in model.modules()
            if isinstance(m, _ConvTransposeNd)
            for p in m.parameters()
            if p.shape == (m.in_channels, m.out_channels // m.groups, *m.kernel_size)
        }

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """As in mmengine; a wrapper that was built without our constructor gets to know its model here."""
        if not self._names:
            self._look_at(model.module if is_model_wrapper(model) else model)
        with super().optim_context(model):
            yield

    @property
    def model(self):
        raise AttributeError(f'{type(self).__name__} has no model')

    @model.setter
    def model(self, value):
        # mmengine's DeepSpeed and ColossalAI strategies hand over an engine that steps by itself, past the clipping
        raise RuntimeError(
            f'{type(self).__name__} does not work under {type(value).__name__}: it updates the weights '
            'without calling the wrapper, so nothing would be clipped. Use DistributedDataParallel, or '
            'a plain OptimWrapper without AGC.'
        )

    @staticmethod
    def _refuse_shards(params: Iterable[Tensor]) -> None:
        for p in params:
            if getattr(p, '_fsdp_flattened', False) or hasattr(p, 'ds_id') or hasattr(p, 'device_mesh'):
                by = (
                    'DeepSpeed ZeRO-3'
                    if hasattr(p, 'ds_id')
                    else 'FSDP'
                    if getattr(p, '_fsdp_flattened', False)
                    else 'a DTensor'
                )
                raise RuntimeError(
                    f'AGC needs whole weights, but a parameter of shape {tuple(p.shape)} is sharded by '
                    f'{by}: the norm of a unit cannot be computed from a piece of it. Use '
                    'DistributedDataParallel, or a plain OptimWrapper without AGC.'
                )

    def _refuse_closure(self, kwargs: dict) -> None:
        if kwargs.get('closure') is not None:
            raise RuntimeError(
                f'{type(self).__name__} does not go with a closure, in which '
                f'{type(self.optimizer).__name__} computes gradients anew that nothing clips'
            )

    def _clip_adaptively(self) -> bool:
        """Clip all gradients; whether they are finite, so that the step may be taken."""
        if not self._bound:
            self._bound = True
            print_log(
                f'{type(self).__name__} was built without constructor="nfnet_mm.NFOptimWrapperConstructor": the '
                "classifier's weight is clipped too, and the optimizer's weight decay applies to gains and biases."
                + (
                    ''
                    if self._names
                    else ' Nor does it know the model (no step was taken in optim_context), so the '
                    'units of transposed convs are taken along their first axis, which is their input.'
                ),
                logger='current',
                level=logging.WARNING,
            )
        params = with_dense_grad(p for group in self.optimizer.param_groups for p in group['params'])
        self._refuse_shards(params)
        clipped = [p for p in params if p not in self.excluded]
        stats = adaptive_clip_grad_(clipped, **self.agc, transposed=self._transposed)
        plain = [p.grad for p in params if p in self.excluded]
        finite = stats.finite
        if plain:
            finite = finite & torch.stack(torch._foreach_norm(plain)).isfinite().all()
        # one transfer for everything that the host wants to know
        report = torch.stack([x.to(finite.device) for x in (finite, stats.clipped, stats.min_scale)]).tolist()
        if not report[0]:
            culprit = next((p for p in params if not p.grad.isfinite().all()), None)
            if culprit is not None:
                self._skip(culprit)
                return False
            # finite after all: only a float32 norm had overflown
            stats = adaptive_clip_grad_(clipped, **self.agc, transposed=self._transposed, norm_dtype=torch.float64)
            report = [True, int(stats.clipped), float(stats.min_scale)]
        self._nonfinite_in_a_row = 0
        self.message_hub.update_scalar('train/agc/clipped_fraction', report[1] / max(stats.units, 1))
        self.message_hub.update_scalar('train/agc/min_scale', report[2])
        self.message_hub.update_scalar('train/agc/skipped_steps', self.skipped_steps)
        return True

    def _skip(self, culprit: Tensor) -> None:
        """Count and report a step that is not taken; stop training after too many in a row."""
        self.skipped_steps += 1
        self._nonfinite_in_a_row += 1
        self.message_hub.update_scalar('train/agc/skipped_steps', self.skipped_steps)
        name = self._names.get(culprit, f'a parameter of shape {tuple(culprit.shape)}')
        bad = culprit.grad[~culprit.grad.isfinite()]
        message = (
            f'non-finite gradient, first in {name} ({bad.numel()} of {culprit.numel()} values, e.g. '
            f'{bad[0].item()}): step skipped, {self._nonfinite_in_a_row} in a row, {self.skipped_steps} in all'
        )
        print_log(message, logger='current', level=logging.WARNING)
        if self._nonfinite_in_a_row >= self.max_nonfinite_steps:
            raise FloatingPointError(
                f'{message}. Training stops here: max_nonfinite_steps='
                f'{self.max_nonfinite_steps}. The weights are still finite.'
            )


@OPTIM_WRAPPERS.register_module()
class AGCOptimWrapper(_AGC, OptimWrapper):
    """An optimizer wrapper with adaptive gradient clipping (NFNets, section 4.1).

    Clips at update steps only, on the accumulated gradient, before the optimizer adds weight decay. A step whose
    gradient holds a NaN or an infinity is not taken (weights, momentum and decay untouched), counted and logged with
    the first offending parameter's name. Logs ``agc/clipped_fraction`` (of units), ``agc/min_scale`` and
    ``agc/skipped_steps``. Use it with ``constructor='nfnet_mm.NFOptimWrapperConstructor'``.

    Args:
        optimizer, accumulative_counts, clip_grad: as in mmengine's ``OptimWrapper``; a ``clip_grad`` is applied
            after AGC.
        agc: ``clipping`` (0.01: batch 1024-4096; more for smaller batches) and ``eps`` (1e-3).
        max_nonfinite_steps: after so many skipped steps in a row a FloatingPointError ends the training.

    Raises:
        ValueError: a misspelt key of ``agc``, or a value that is not a positive finite number.
        RuntimeError: parameters are sharded (FSDP, DeepSpeed, DTensor): a unit's norm needs the whole unit.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> wrapper = AGCOptimWrapper(torch.optim.SGD(net.parameters(), lr=0.1), agc=dict(clipping=0.02))
        >>> wrapper.agc
        {'clipping': 0.02, 'eps': 0.001}
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, agc: dict | None = None, max_nonfinite_steps: int = 20, **kwargs
    ):
        super().__init__(optimizer, **kwargs)
        self._set_up_agc(agc, max_nonfinite_steps)

    def step(self, **kwargs) -> None:
        self._refuse_closure(kwargs)
        if self._clip_adaptively():
            super().step(**kwargs)


@OPTIM_WRAPPERS.register_module()
class AmpAGCOptimWrapper(_AGC, AmpOptimWrapper):
    """:class:`AGCOptimWrapper` under automatic mixed precision; gradients are unscaled before they are clipped.

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
        loss_scale: str | float | dict = 'dynamic',
        dtype: str | torch.dtype | None = None,
        use_fsdp: bool = False,
        agc: dict | None = None,
        max_nonfinite_steps: int = 20,
        **kwargs,
    ):
        if use_fsdp:
            raise RuntimeError(
                f'{type(self).__name__} refuses use_fsdp=True: AGC needs whole weights, and FSDP tears '
                'units apart. Use DistributedDataParallel, or a plain AmpOptimWrapper without AGC.'
            )
        on_cpu = get_device() == 'cpu'
        dtype = _check_dtype(dtype, on_cpu)
        loss_scale = _check_loss_scale(loss_scale)
        if loss_scale == 'dynamic' and dtype is torch.bfloat16:
            loss_scale = dict(enabled=False)
        if on_cpu:  # mmengine's constructor refuses it, its other methods do not
            OptimWrapper.__init__(self, **kwargs)
            self.cast_dtype = dtype
            self._scale_update_param = loss_scale if isinstance(loss_scale, float) else None
            options = loss_scale if isinstance(loss_scale, dict) else {}
            if isinstance(loss_scale, float):
                options = dict(init_scale=loss_scale)
            if hasattr(torch.amp, 'GradScaler'):
                self.loss_scaler = torch.amp.GradScaler('cpu', **options)
            elif options.get('enabled', True):
                raise RuntimeError(
                    f'{type(self).__name__}: torch {torch.__version__} has no loss scaling on a CPU '
                    "(2.3 has): use dtype='bfloat16', which needs none"
                )
            else:
                self.loss_scaler = torch.cuda.amp.GradScaler(enabled=False)
        else:
            super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)
        self._set_up_agc(agc, max_nonfinite_steps)

    def load_state_dict(self, state_dict: dict) -> None:
        """As in mmengine; the state of a loss scaler that was off is none to go on from."""
        if not state_dict.get('loss_scaler', True):
            state_dict = {key: value for key, value in state_dict.items() if key != 'loss_scaler'}
        super().load_state_dict(state_dict)

    def step(self, **kwargs) -> None:
        self._refuse_closure(kwargs)
        self.loss_scaler.unscale_(self.optimizer)
        if self._clip_adaptively():
            if self.clip_grad_kwargs:
                self._clip_grad()
            self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update(self._scale_update_param)


def _check_dtype(dtype: str | torch.dtype | None, on_cpu: bool) -> torch.dtype | None:
    names = {'float16': torch.float16, 'bfloat16': torch.bfloat16}
    chosen = names.get(dtype) if isinstance(dtype, str) else torch.bfloat16 if dtype is None and on_cpu else dtype
    if chosen not in names.values() and dtype is not None:
        raise ValueError(
            f"AmpAGCOptimWrapper dtype={dtype!r} must be 'float16' or 'bfloat16'; AGCOptimWrapper trains in float32"
        )
    if on_cpu and chosen is torch.float16:
        raise ValueError(
            f'AmpAGCOptimWrapper dtype={dtype!r} needs an accelerator, and this machine shows none: on a '
            "CPU autocast takes 'bfloat16'"
        )
    return chosen


def _check_loss_scale(loss_scale: str | float | dict) -> str | float | dict:
    if loss_scale == 'dynamic':
        return loss_scale
    if isinstance(loss_scale, (int, float)) and not isinstance(loss_scale, bool) and 0 < loss_scale < math.inf:
        return float(loss_scale)  # mmengine takes no integer
    if isinstance(loss_scale, dict):
        for key in loss_scale:
            if key not in _SCALER_OPTIONS:
                raise ValueError(
                    f"AmpAGCOptimWrapper loss_scale key {key!r} is unknown; torch's GradScaler takes "
                    f'{", ".join(_SCALER_OPTIONS)}'
                )
        return loss_scale
    raise ValueError(
        f"AmpAGCOptimWrapper loss_scale={loss_scale!r} must be 'dynamic', a positive number, or a dict of "
        f'{", ".join(_SCALER_OPTIONS)}'
    )
