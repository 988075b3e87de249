"""Optimizer wrappers with adaptive gradient clipping, and a guard against non-finite gradients."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import MessageHub, print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from nfnet_mm.errors import DivergedError, UserError, check_positive, did_you_mean
from nfnet_mm.registry import OPTIM_WRAPPERS

from .agc import Verdict, check_agc, clip, clip_, of_each_parameter
from .bfloat16 import keep_boxes_in_float32
from .fused import left_out_where, steps_on_device
from .later import Later
from .sharded import first_nonfinite, local

_DEFAULTS = dict(clipping=0.01, eps=1e-3)
_INSTEAD = 'Use DistributedDataParallel, or a plain OptimWrapper without AGC.'
# Said before these are logged first.
_MEANING = (
    'of what is logged under agc/: clipped_fraction is the part of all units (the weights of one output channel or '
    'neuron) whose gradient the last update clipped, min_scale the smallest factor that one was multiplied by (1: none '
    'was), skipped_steps how many updates were left out so far because a gradient was not finite'
)
# Names, units, clipped units and smallest factors.
UseLayers = Callable[[list[str], list[int], list[int], list[float]], object]
# What marks a parameter as a piece of one.
_SHARDED = {'ds_id': 'DeepSpeed ZeRO-3', '_fsdp_flattened': 'FSDP'}


def iteration() -> str:
    """``iteration N: `` where mmengine's runner counts them, as its log does; empty elsewhere."""
    done = MessageHub.get_current_instance().runtime_info.get('iter')
    return '' if done is None else f'iteration {done + 1}: '


@OPTIM_WRAPPERS.register_module()
class AGCOptimWrapper(OptimWrapper):
    """An optimizer wrapper with adaptive gradient clipping (NFNets, section 4.1).

    Clips at update steps only, on the accumulated gradient, before the optimizer adds weight decay. A step whose
    gradient holds a NaN or an infinity is not taken (weights, momentum and decay untouched), counted and logged with
    the first offending parameter's name. Logs ``agc/clipped_fraction`` (of units), ``agc/min_scale`` and
    ``agc/skipped_steps``. Use it with ``constructor='nfnet_mm.NFOptimWrapperConstructor'``.

    On CUDA, with a fused optimizer, it is the device that leaves such a step out: the host waits for nothing, and what
    it counts, logs and raises comes a step or so later. With another optimizer it looks before each step.

    Args:
        optimizer, accumulative_counts, clip_grad: as in mmengine's ``OptimWrapper``; a ``clip_grad`` is applied
            after AGC.
        agc: ``clipping`` (0.01: batch 1024-4096; more for smaller batches) and ``eps`` (1e-3).
        max_nonfinite_steps: after so many skipped steps in a row a FloatingPointError ends the training.

    Raises:
        ValueError: a misspelt key of ``agc``, or a value that is not a positive finite number.
        RuntimeError: parameters are torn apart (FSDP's flat ones, DeepSpeed's): a unit's norm needs the whole unit.
            Those that PyTorch's ``fully_shard`` spreads keep their rows whole, and may be clipped.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> wrapper = AGCOptimWrapper(torch.optim.SGD(net.parameters(), lr=0.1), agc=dict(clipping=0.02))
        >>> wrapper.agc
        {'clipping': 0.02, 'eps': 0.001}
    """

    cast_dtype: torch.dtype | None = None  # of autocast

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        agc: dict[str, float] | None = None,
        max_nonfinite_steps: int = 20,
        **kwargs: Any,
    ):
        super().__init__(optimizer, **kwargs)
        if agc is not None and not isinstance(agc, Mapping):
            raise UserError(f'agc={agc!r} must be a dict, such as dict(clipping=0.01, eps=1e-3)')
        for key in agc or {}:
            if key not in _DEFAULTS:
                hint = did_you_mean(key, _DEFAULTS).lower()
                raise UserError(f"agc key {key!r} is unknown: agc takes 'clipping' and 'eps'{hint and ';' + hint}")
        self.agc = {**_DEFAULTS, **(agc or {})}
        check_agc(**self.agc)
        self.max_nonfinite_steps = check_positive('max_nonfinite_steps', max_nonfinite_steps)
        self.skipped_steps = 0
        self._nonfinite_in_a_row = 0
        self._names: dict[Tensor, str] = {}
        self.excluded: set[Tensor] = set()
        self._transposed: dict[Tensor, int] = {}
        self._bound = self._explained = False
        self._later = Later()
        self._use_layers: UseLayers | None = None
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
        if self.cast_dtype is torch.bfloat16:
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
            self._look_at(model.get_submodule('module') if is_model_wrapper(model) else model)
        with super().optim_context(model):
            yield

    def step(self, **kwargs: Any) -> None:
        self._refuse_closure(kwargs)
        params = self._params()
        if self._device_decides(params):
            with left_out_where(self._clip_without_looking(params), self.optimizer):
                super().step(**kwargs)
        elif self._clip_adaptively():
            super().step(**kwargs)

    def tell_layers(self, use: 'UseLayers') -> None:
        """Have ``use(names, units, clipped, scales)`` called, once it is known, with what the next update clips.

        A list each, of the parameters that are clipped: names, units, how many of these were clipped, and the smallest
        factor. Of an update that is left out nothing is told. If parameters are spread over processes, all have to
        ask at the same update.
        """
        self._use_layers = use

    def _tell_layers(self, verdict: Verdict) -> None:
        if self._use_layers is None:
            return
        use, self._use_layers = self._use_layers, None
        params, units, told = of_each_parameter(verdict, self._transposed)
        names = [self._names.get(p, f'{i}, of shape {tuple(p.shape)}') for i, p in enumerate(params)]

        def pass_on(values: list[float]) -> None:
            finite, *rest = values
            if finite:
                use(names, units, [int(n) for n in rest[: len(names)]], rest[len(names) :])

        finite = verdict.stats.finite.to(told.device, torch.float64).view(1)
        self._later.put(torch.cat([finite, told.flatten().double()]), pass_on)

    def settle(self) -> None:
        """Wait for what the device has yet to tell of past steps, and log it.

        Raises:
            FloatingPointError: as a step does.
        """
        self._later.read(wait=True)

    def state_dict(self) -> dict[str, Any]:
        self.settle()  # no checkpoint is saved before it is known what to think of it
        return super().state_dict()

    def _params(self) -> list[Tensor]:
        params = [p for group in self.optimizer.param_groups for p in group['params']]
        self._refuse_shards(params)
        return params

    def _device_decides(self, params: list[Tensor]) -> bool:
        grads = [p.grad for p in params if p.grad is not None]
        on_device = bool(grads) and all(clip.on_device(grad) for grad in grads)
        return on_device and steps_on_device(self.optimizer)

    def _clip_grad(self) -> None:
        """As in mmengine; the norm is logged when it is known."""
        params = [p for p in self._params() if p.requires_grad and p.grad is not None]
        norm = self.clip_func(params, **self.clip_grad_kwargs) if params else None
        if norm is not None:
            name = f'train/{self.grad_name}'
            self._later.put(norm.detach().view(1), lambda told: self.message_hub.update_scalar(name, told[0]))

    def _refuse_engine(self, engine: object) -> None:
        raise RuntimeError(
            f'{type(self).__name__} does not work under {type(engine).__name__}: it updates the weights without '
            f'calling the wrapper, so nothing would be clipped. {_INSTEAD}'
        )

    # mmengine's DeepSpeed strategy sets it to an engine that steps by itself, past the clipping.
    model = property(None, _refuse_engine)

    @staticmethod
    def _refuse_shards(params: Iterable[Tensor]) -> None:
        for p in params:
            for mark, by in _SHARDED.items():
                if getattr(p, mark, False) is not False:
                    raise RuntimeError(
                        f'AGC needs whole weights, but a parameter of shape {tuple(p.shape)} is sharded by {by}: the '
                        f'norm of a unit cannot be computed from a piece of it. {_INSTEAD}'
                    )

    def _refuse_closure(self, kwargs: dict[str, Any]) -> None:
        if kwargs.get('closure') is not None:
            why = f'in which {type(self.optimizer).__name__} computes gradients anew that nothing clips'
            raise RuntimeError(f'{type(self).__name__} does not go with a closure, {why}')

    def _clip(self, params: list[Tensor], **kwargs: Any) -> Verdict:
        if not self._bound:
            self._bound = True
            self._warn_of_other_constructor()
        rule: dict[str, Any] = dict(self.agc, transposed=self._transposed, exclude=self.excluded)
        return clip_(params, **rule, **kwargs)

    def _clip_adaptively(self) -> bool:
        """Clip all gradients; whether they are finite, so that the step may be taken."""
        params = self._params()
        verdict = self._clip(params)
        stats = verdict.stats
        # one transfer for everything that the host wants to know
        told = (stats.finite, stats.clipped, stats.min_scale)
        finite, hits, min_scale = torch.stack([x.to(stats.finite.device) for x in told]).tolist()
        if not finite:
            culprit = first_nonfinite(params)
            if culprit is not None:
                self._skip(culprit, _values_of(local(culprit.grad), culprit), iteration())
                return False
            # finite after all: only a float32 norm had overflown
            verdict = self._clip(params, norm_dtype=torch.float64)
            stats = verdict.stats
            hits, min_scale = int(stats.clipped), float(stats.min_scale)
        self._log_step(hits / max(stats.units, 1), min_scale)
        self._tell_layers(verdict)
        return True

    def _clip_without_looking(self, params: list[Tensor]) -> Tensor:
        """Clip all gradients; 1 on the device if one is not finite, so that the step is to be left out, else 0."""
        verdict = self._clip(params)
        stats, first, order, sizes, *_ = verdict
        assert first is not None
        at = iteration()

        def use(told: list[float]) -> None:
            finite, hits, min_scale, unit = told
            if finite:
                self._log_step(hits / max(stats.units, 1), min_scale)
            else:
                ends = itertools.accumulate(sizes)
                self._skip(next(p for p, end in zip(order, ends) if unit < end), 'told later by the device', at)

        told = [x.to(torch.float64) for x in (stats.finite, stats.clipped, stats.min_scale, first)]
        self._later.put(torch.stack(told), use)
        self._tell_layers(verdict)
        return 1 - stats.finite.float()

    def _log_step(self, clipped_fraction: float, min_scale: float) -> None:
        self._nonfinite_in_a_row = 0
        if not self._explained:
            self._explained = True
            print_log(_MEANING, 'current')
        self.message_hub.update_scalar('train/agc/clipped_fraction', clipped_fraction)
        self.message_hub.update_scalar('train/agc/min_scale', min_scale)
        self.message_hub.update_scalar('train/agc/skipped_steps', self.skipped_steps)

    def _warn_of_other_constructor(self) -> None:
        message = (
            f'{type(self).__name__} was built without constructor="nfnet_mm.NFOptimWrapperConstructor": the '
            "classifier's weight is clipped too, and the optimizer's weight decay applies to gains and biases."
        )
        if not self._names:
            message += (
                ' Nor does it know the model (no step was taken in optim_context), so the units of transposed convs '
                'are taken along their first axis, which is their input.'
            )
        print_log(message, 'current', logging.WARNING)

    def _skip(self, culprit: Tensor, found: str, at: str) -> None:
        """Count and report a step that is not taken; stop training after too many in a row.

        ``at``: which iteration it was of.
        """
        self.skipped_steps += 1
        self._nonfinite_in_a_row += 1
        self.message_hub.update_scalar('train/agc/skipped_steps', self.skipped_steps)
        name = self._names.get(culprit, f'a parameter of shape {tuple(culprit.shape)}')
        message = (
            f'{at}non-finite gradient, first in {name} ({found}): step skipped, '
            f'{self._nonfinite_in_a_row} in a row, {self.skipped_steps} in all'
        )
        print_log(message, 'current', logging.WARNING)
        if self._nonfinite_in_a_row >= self.max_nonfinite_steps:
            limit = f'max_nonfinite_steps={self.max_nonfinite_steps}'
            raise DivergedError(f'{message}. Training stops here: {limit}. The weights are still finite.')


def _values_of(grad: Tensor, param: Tensor) -> str:
    bad = grad[~grad.isfinite()]
    return f'{bad.numel()} of {param.numel()} values, e.g. {bad[0].item()}' if len(bad) else 'on another process'
