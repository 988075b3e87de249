"""What can be configured together and would not do what it says."""

from collections.abc import Mapping
from typing import Any

from mmengine import Config

from nfnet_mm.errors import UserError
from nfnet_mm.registry import type_name

_SHARDING = ('MMFullyShardedDataParallel', 'FSDPStrategy', 'DeepSpeedStrategy', 'ColossalAIStrategy')


def check_combinations(cfg: Config) -> None:
    """Look at a run's optimizer wrapper, hooks and strategy together.

    Raises:
        UserError: an average is taken between two updates, as if the weights had changed; or AGC or SAM is to work on
            weights in pieces.

    >>> check_combinations(Config(dict(
    ...     optim_wrapper=dict(type='OptimWrapper', accumulative_counts=4),
    ...     custom_hooks=[dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', interval=4)])))
    """
    wrapper = cfg.get('optim_wrapper') or {}
    hooks = [hook for hook in cfg.get('custom_hooks') or () if isinstance(hook, Mapping)]
    if not isinstance(wrapper, Mapping):
        return
    if type_name(cfg.get('train_cfg') or {}) != 'TotalBatchTrainLoop':  # which refuses any count but its own
        _check_average(wrapper.get('accumulative_counts', 1), hooks)
    clipping = 'AGC' if 'AGC' in type_name(wrapper) else None
    ascent = next(('SAM' for hook in hooks if type_name(hook) == 'SAMHook'), None)
    for place in ('model_wrapper_cfg', 'strategy'):
        kind = type_name(cfg.get(place) or {})
        if kind in _SHARDING and (what := clipping or ascent):
            raise UserError(
                f'{place}.type={kind!r} spreads weights in pieces over the processes, and {what} needs whole ones: '
                'leave it out, for DistributedDataParallel'
            )


def _check_average(accumulated: Any, hooks: list[Mapping[str, Any]]) -> None:
    for hook in hooks:
        interval = hook.get('interval', 1)
        if type_name(dict(type=hook.get('ema_type', ''))) == 'WarmupEMA' and interval % accumulated:
            raise UserError(
                f'EMAHook interval={interval} averages between the updates, which come at every '
                f'optim_wrapper.accumulative_counts={accumulated} batches: set interval={accumulated}'
            )
