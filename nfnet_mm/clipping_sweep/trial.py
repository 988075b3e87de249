"""One short training of a sweep: its config, and what came of it."""

import copy
import importlib.util
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine import Config
from mmengine.registry import OPTIMIZERS

from nfnet_mm import run as runs
from nfnet_mm.engine.agc import check_agc
from nfnet_mm.errors import DivergedError, UserError, check_number, did_you_mean, short
from nfnet_mm.registry import type_name
from nfnet_mm.swap.settings import set_agc
from nfnet_mm.swap.tree import Notes

SCHEDULES = ('cosine', 'constant')
# A clipping at which nothing is clipped: the row without AGC has the same wrapper, parameter groups and guards.
_NEVER = 1e30
# The optimizers that a sweep knows by name, if the config's own is another. SGD: NFNets, Appendix A.1, the rate being
# for a batch of 256. AdamW: a usual choice for convolutional networks. Lion (Chen et al. 2023, section 5): a rate 3-10
# times smaller than AdamW's and a decay as many times larger; torch has none, timm has.
OPTIMIZERS_KNOWN: dict[str, dict[str, Any]] = {
    'SGD': dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=2e-5),
    'AdamW': dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    'Lion': dict(type='timm.optim.Lion', lr=1e-4, weight_decay=0.5),
}


@dataclass(frozen=True)
class Outcome:
    """What one training came to. Losses are means over a tenth of the iterations; None: not finite."""

    optimizer: str  # name and learning rate
    clipping: float | None  # None: nothing was clipped
    seed: int
    first_loss: float | None  # of the first tenth
    loss: float | None  # of the last tenth
    clipped: float | None  # fraction of units that were clipped, the mean over the updates
    scale: float | None  # the smallest factor of an update, the median over the updates
    skipped: int  # updates left out, a gradient being not finite
    diverged: str  # why it counts as diverged; empty: it does not
    scores: dict[str, float] = field(default_factory=dict)  # of the validation at the end, if there was one


def parse_optimizer(text: str, cfg: Config) -> tuple[str, dict[str, Any]]:
    """(label, config) of an optimizer: ``NAME`` or ``NAME=RATE``; ``config`` for that of the config.

    Where NAME is that of the config's own optimizer, all its settings are kept.

    Raises:
        UserError: there is no such optimizer, its package is missing, or the rate is no positive number.

    >>> cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.002, weight_decay=0.05))))
    >>> parse_optimizer('config', cfg)
    ('AdamW 0.002', {'type': 'AdamW', 'lr': 0.002, 'weight_decay': 0.05})
    >>> parse_optimizer('SGD=0.05', cfg)[0]
    'SGD 0.05'
    """
    name, _, rate = text.partition('=')
    own = copy.deepcopy(dict((cfg.get('optim_wrapper') or {}).get('optimizer') or {}))
    if not own:
        raise UserError('the config has no optim_wrapper.optimizer to sweep with')
    if name in ('config', type_name(own)):
        chosen, name = own, type_name(own)
    elif name in OPTIMIZERS_KNOWN:
        chosen = dict(OPTIMIZERS_KNOWN[name])
    elif OPTIMIZERS.get(name):
        if not rate:
            raise UserError(f'--optimizers {name}: state its learning rate, {name}=RATE; it has no default here')
        chosen, name = dict(type=name), name.rpartition('.')[2]
    else:
        known = ('config', *OPTIMIZERS_KNOWN, *OPTIMIZERS.module_dict)
        hint = did_you_mean(name, known) or f' Known: config, {", ".join(OPTIMIZERS_KNOWN)}, and those of torch.optim'
        raise UserError(f'--optimizers {text!r}: there is no optimizer {name!r}.{hint}')
    if str(chosen['type']).startswith('timm.') and not importlib.util.find_spec('timm'):
        raise UserError(f'--optimizers {name}: the implementation used is that of timm: pip install timm')
    if rate:
        try:
            chosen['lr'] = float(rate)
        except ValueError:
            raise UserError(f'--optimizers {text!r}: {rate!r} is no learning rate') from None
    check_number(f'the learning rate of {name}', chosen.get('lr'), '(0, inf)')
    return f'{name} {chosen["lr"]:g}', chosen


def shorten(cfg: Config, iters: int, schedule: str, validate: bool) -> None:
    """Make a config, in place, a training of ``iters`` iterations that leaves no checkpoints.

    Its learning rate rises linearly over the first tenth; then it stays ('constant') or falls to zero along a cosine.
    The config's own schedules, which are for its own length, are left out.
    """
    loop = cfg.get('train_cfg') or {}
    if type_name(loop) == 'TotalBatchTrainLoop':
        kept = {key: loop[key] for key in ('type', 'total_batch', 'lr_batch') if key in loop}
        cfg.train_cfg = dict(kept, max_iters=iters, val_interval=iters)
    else:
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iters, val_interval=iters)
    warm = max(iters // 10, 1)
    cfg.param_scheduler = [dict(type='LinearLR', start_factor=1 / warm, by_epoch=False, begin=0, end=warm)]
    if schedule == 'cosine' and iters > warm:
        steps = dict(begin=warm, end=iters, T_max=iters - warm)
        cfg.param_scheduler.append(dict(type='CosineAnnealingLR', by_epoch=False, eta_min=0, **steps))
    hooks = cfg.setdefault('default_hooks', {})
    hooks['checkpoint'] = dict(type='CheckpointHook', by_epoch=False, interval=-1, save_last=False)
    hooks['logger'] = dict(type='LoggerHook', interval=max(iters // 20, 1), log_metric_by_epoch=False)
    cfg.log_processor = dict(by_epoch=False, window_size=10)
    cfg.log_level = 'ERROR'
    visualizer = dict(cfg.get('visualizer') or dict(type='Visualizer'), vis_backends=[dict(type='LocalVisBackend')])
    visualizer.pop('name', None)  # one of its own for each training
    cfg.visualizer = visualizer
    cfg.resume = False
    if not validate:
        runs.skip_validation(cfg)


def set_clipping(cfg: Config, optimizer: dict[str, Any], clipping: float | None) -> list[str]:
    """Give a config AGC with an optimizer and a clipping, None for none; returns what that changed, a line each."""
    wrapper, notes = cfg.optim_wrapper, Notes()
    wrapper['optimizer'] = copy.deepcopy(optimizer)
    before = dict(wrapper.get('agc') or {})
    value = _NEVER if clipping is None else clipping
    set_agc(cfg, value, notes)
    wrapper['agc'] = {**wrapper['agc'], **before, 'clipping': value}
    check_agc(**wrapper['agc'])
    return notes


def run_trial(cfg: Config, label: str, clipping: float | None, seed: int, folder: Path) -> Outcome:
    """Train by a config that is complete but for its seed and folder.

    Raises:
        UserError: something other than divergence ended it.
    """
    cfg = copy.deepcopy(cfg)
    cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    cfg.work_dir, cfg.experiment_name = str(folder), str(folder)
    runner = runs.build_runner(cfg)
    ended = ''
    try:
        runs.train(runner)
    except DivergedError as error:
        ended = str(error)
    except Exception as error:
        # what a model does with activations that are not finite differs; it is no error of the config
        losses = _history(runner, 'train/loss')
        if isinstance(error, UserError) or not losses or abs(losses[-1]) < 1e3 * abs(losses[0]):
            raise
        ended = f'{type(error).__name__}: {error}'
    losses, iters = _history(runner, 'train/loss'), int(cfg.train_cfg.max_iters)
    tenth = max(iters // 10, 1)
    first, last = _mean(losses[:tenth]), _mean(losses[-tenth:])
    if not ended and (last is None or (first is not None and last >= first)):
        ended = 'the loss is not finite' if last is None else 'the loss did not fall'
    clipped, scales = (_history(runner, f'train/agc/{name}') for name in ('clipped_fraction', 'min_scale'))
    scalars = runner.message_hub.log_scalars
    return Outcome(
        label,
        clipping,
        seed,
        first,
        last if runner.iter >= iters else None,
        _mean(clipped),
        statistics.median(scales) if scales else None,
        getattr(runner.optim_wrapper, 'skipped_steps', 0),
        short(ended),
        {name.removeprefix('val/'): float(scalars[name].current()) for name in scalars if _is_score(name)},
    )


def _is_score(name: str) -> bool:
    return name.startswith('val/') and not name.endswith('time')


def _history(runner: Any, name: str) -> list[float]:
    scalars = runner.message_hub.log_scalars
    return [float(value) for value in scalars[name].data[0]] if name in scalars else []


def _mean(values: Sequence[float]) -> float | None:
    mean = statistics.fmean(values) if values else math.nan
    return mean if math.isfinite(mean) else None
