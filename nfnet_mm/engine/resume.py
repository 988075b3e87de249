"""What a resumed run may change, and what would change without a word.

mmengine loads the optimizer's and the schedulers' state over the config, by position: another learning rate, schedule or
grouping of the parameters in the config is ignored, or its momentum goes to other parameters.
"""
import logging
import math
from typing import Any, Iterator, List, Mapping, Optional

from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper

from nfnet_mm.errors import UserError, some

_INSTEAD = ('Resume with what it was trained with, on any number of devices, or begin a new run from its weights: '
            'load_from=<the checkpoint> and resume=False')
_SET_BY_SCHEDULERS = ('lr', 'momentum', 'betas')
_NO_OPTIONS = ('params', 'lr', 'lr_mult', 'decay_mult')


def group_names(runner) -> Optional[List[List[str]]]:
    """The names of the parameters in each group of a run's optimizer; None where there is not one optimizer."""
    wrapper, model = runner.optim_wrapper, runner.model
    if not hasattr(wrapper, 'optimizer'):
        return None
    model = model.module if is_model_wrapper(model) else model
    names = {p: name for name, p in model.named_parameters()}
    return [[names.get(p, '?') for p in group['params']] for group in wrapper.optimizer.param_groups]


def check_resumed(runner, checkpoint: Mapping[str, Any]) -> None:
    """Hold a checkpoint that a run resumes against the run's config, before mmengine loads the optimizer's state.

    The base learning rates, the schedules, the parameters of each group and the total batch must be the same; other
    settings of the groups (weight decay, momentum, ...) become the config's, with a warning.

    Args:
        runner: with its loop, optimizer wrapper and schedulers built.
        checkpoint: as loaded; settings of its parameter groups are changed in place. Its ``meta`` may tell
            ``total_batch`` and ``param_names`` (see :func:`group_names`).

    Raises:
        UserError: what differs, as in the checkpoint and as in the config, and what to do.
    """
    if 'ema_state_dict' in checkpoint and not any(isinstance(hook, EMAHook) for hook in runner.hooks):
        raise UserError('cannot resume: the checkpoint is of a run with a moving average, which is what it holds as the '
                        "model's weights, and the config has no EMAHook. Add the hook, or begin a new run from the "
                        'averaged weights: load_from=<the checkpoint> and resume=False')
    meta = checkpoint.get('meta') or {}
    groups, resumed = [], []
    if 'optimizer' in checkpoint and hasattr(runner.optim_wrapper, 'optimizer'):
        groups = runner.optim_wrapper.optimizer.param_groups
        resumed = checkpoint['optimizer'].get('param_groups', [])
        _same_parameters(group_names(runner), meta.get('param_names'))
    _same_rates(groups, resumed, getattr(runner.train_loop, 'total_batch', None), meta.get('total_batch'))
    _same_schedules(runner, checkpoint)
    _configured_options(groups, resumed)


def _same_parameters(names: List[List[str]], resumed: Optional[List[List[str]]]) -> None:
    """torch restores momentum by position."""
    if resumed in (None, names):
        return
    place = [{name: i for i, group in enumerate(side) for name in group} for side in (names, resumed)]
    moved = [name for name in {**place[0], **place[1]} if place[0].get(name) != place[1].get(name)]
    raise UserError(f'cannot resume: the parameter groups of the config ({len(names)}) are not those of the checkpoint '
                    f'({len(resumed)}); {some(moved) or "their order"} would get the state of others. {_INSTEAD}')


def _same_rates(groups: List[dict], resumed: List[dict], total: Optional[int], resumed_total: Optional[int]) -> None:
    rates = [[float(group.get('initial_lr', group['lr'])) for group in side] for side in (groups, resumed)]
    differing = [pair for pair in zip(*rates) if not math.isclose(*pair, rel_tol=1e-6)]
    other_total = None not in (total, resumed_total) and total != resumed_total
    if len(groups) == len(resumed) and (differing or other_total):  # of other numbers of groups torch tells
        sides = []
        for batch, rate in zip((total, resumed_total), (differing or list(zip(*rates)) or [(None, None)])[0]):
            facts = ([f'total_batch={batch}'] if batch else []) + (
                [f'a base learning rate of {rate:.6g}'] if rate is not None else [])
            sides.append(' and '.join(facts))
        raise UserError(f'cannot resume: the config has {sides[0]}, the checkpoint {sides[1]}, which would win without a '
                        f'word. {_INSTEAD}')


def _same_schedules(runner, checkpoint: Mapping[str, Any]) -> None:
    built, states = runner.param_schedulers, checkpoint.get('param_schedulers')
    cfgs = runner.cfg.get('param_scheduler')
    cfgs = [cfgs] if isinstance(cfgs, dict) else cfgs
    if not all(isinstance(part, (list, tuple)) for part in (built, states, cfgs)):
        return
    if len(built) != len(states):
        raise UserError(f'cannot resume: the config has {len(built)} param_scheduler, the checkpoint {len(states)}. '
                        f'{_INSTEAD}')
    for i, (scheduler, state, cfg) in enumerate(zip(built, states, cfgs)):
        for key, new in vars(scheduler).items():
            if isinstance(cfg, dict) and key in cfg and key in state and not _equal(new, state[key]):
                raise UserError(f'cannot resume: param_scheduler.{i} ({type(scheduler).__name__}) has {key}={new!r} in the '
                                f'config and {state[key]!r} in the checkpoint, which would win without a word. {_INSTEAD}')


def _configured_options(groups: List[dict], resumed: List[dict]) -> None:
    for group, old in zip(groups, resumed):
        for key in _options(group):
            if key in old and not _equal(group[key], old[key]):
                print_log(f'resuming with {key}={group[key]!r} of the config for {len(group["params"])} parameters; the '
                          f'checkpoint had {old[key]!r}', logger='current', level=logging.WARNING)
                old[key] = group[key]


def _options(group: dict) -> Iterator[str]:
    scheduled = any(key.startswith('initial_') and key != 'initial_lr' for key in group)
    for key in group:
        if key not in _NO_OPTIONS and not key.startswith('initial_') and not (scheduled and key in _SET_BY_SCHEDULERS):
            yield key


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other) if type(one) is type(other) else one is other
