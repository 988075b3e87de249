"""What a resumed run may change, and what would change without a word.

mmengine loads the optimizer's and the schedulers' state over the config, by position: another learning rate, schedule
or grouping of the parameters in the config is ignored, or its momentum goes to other parameters.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

from mmengine.hooks import EMAHook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper

from nfnet_mm.errors import UserError, some

_INSTEAD = (
    'Resume with what it was trained with, on any number of devices, or begin a new run from its weights: '
    'load_from=<the checkpoint> and resume=False'
)
_NO_SETTINGS = ('type', 'last_step', 'verbose')  # of a scheduler


def settings_of(runner) -> dict[str, Any]:
    """What a run is configured with, to be taken before a checkpoint is loaded and kept in the checkpoints' ``meta``.

    Returns: ``total_batch`` where the loop has one; for each parameter group of the optimizer its ``param_names``,
    ``base_lrs`` and ``group_options`` (as text); ``param_scheduler``, each one's options (as text).
    """
    wrapper, model, cfgs = runner.optim_wrapper, runner.model, runner.cfg.get('param_scheduler') or []
    model = model.module if is_model_wrapper(model) else model
    settings: dict[str, Any] = {}
    if hasattr(runner.train_loop, 'total_batch'):
        settings['total_batch'] = runner.train_loop.total_batch
    if hasattr(wrapper, 'optimizer'):
        names, groups = {p: name for name, p in model.named_parameters()}, wrapper.optimizer.param_groups
        settings.update(
            param_names=[[names.get(p, '?') for p in group['params']] for group in groups],
            base_lrs=[float(_base(group, 'lr')) for group in groups],
            group_options=[{key: repr(_base(group, key)) for key in group if _is_option(key)} for group in groups],
        )
    cfgs = [cfgs] if 'type' in cfgs else cfgs
    if all(isinstance(cfg, Mapping) for cfg in cfgs):  # of several optimizers there are more
        settings['param_scheduler'] = [
            {key: str(value) for key, value in sorted(cfg.items()) if key not in _NO_SETTINGS} for cfg in cfgs
        ]
    return settings


def _base(group: dict, key: str) -> Any:
    """An option of a parameter group, as it was before any scheduler changed it."""
    return group.get(f'initial_{key}', group[key])


def _is_option(key: str) -> bool:
    return key not in ('params', 'lr') and not key.startswith('initial_')


def check_resumed(runner, checkpoint: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Hold a checkpoint that a run resumes against the run's config, before mmengine loads the optimizer's state.

    The base learning rates, the schedules, the parameters of each group and the total batch must be the same; other
    options of the groups (weight decay, momentum, ...) that the config changes become the config's, with a warning.
    A checkpoint that does not tell its settings is only held to the rates.

    Args:
        runner: with its optimizer wrapper built.
        checkpoint: as loaded; options of its parameter groups are changed in place.
        settings: the run's (see :func:`settings_of`).

    Raises:
        UserError: what differs, as in the checkpoint and as in the config, and what to do.
    """
    if 'ema_state_dict' in checkpoint and not any(isinstance(hook, EMAHook) for hook in runner.hooks):
        raise UserError(
            'cannot resume: the checkpoint is of a run with a moving average, which is what it holds as '
            "the model's weights, and the config has no EMAHook. Add the hook, or begin a new run from the "
            'averaged weights: load_from=<the checkpoint> and resume=False'
        )
    if 'optimizer' not in checkpoint and checkpoint.get('param_schedulers'):
        raise UserError(
            'cannot resume: the checkpoint was saved without the state of its optimizer, and its schedules '
            'would go on from the initial rates. Begin a new run from its weights: load_from=<the '
            'checkpoint> and resume=False'
        )
    old = checkpoint.get('meta') or {}
    groups = (checkpoint.get('optimizer') or {}).get('param_groups') or []
    _same_parameters(settings, old)
    _same_rates(settings, old, groups)
    _same_schedules(settings, old)
    _same_epochs(runner, checkpoint)
    _configured_options(runner, groups, settings, old)


def _same_parameters(settings: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    """torch restores momentum by position."""
    sides = [side.get('param_names') for side in (settings, old)]
    if None in sides or sides[0] == sides[1]:
        return
    place = [{name: i for i, group in enumerate(side) for name in group} for side in sides]
    moved = [name for name in {**place[0], **place[1]} if place[0].get(name) != place[1].get(name)]
    raise UserError(
        f'cannot resume: the parameter groups of the config ({len(sides[0])}) are not those of the '
        f'checkpoint ({len(sides[1])}); {some(moved) or "their order"} would get the state of '
        f'others. {_INSTEAD}'
    )


def _same_rates(settings: Mapping[str, Any], old: Mapping[str, Any], groups: list[dict]) -> None:
    totals = [side.get('total_batch') for side in (settings, old)]
    rates = [
        settings.get('base_lrs') or [],
        old.get('base_lrs') or [float(_base(group, 'lr')) for group in groups if 'lr' in group],
    ]
    differing = [pair for pair in zip(*rates) if not math.isclose(*pair, rel_tol=1e-6)]
    if len(rates[0]) != len(rates[1]):  # of other numbers of groups torch tells
        return
    if differing or (None not in totals and totals[0] != totals[1]):
        sides = []
        for total, rate in zip(totals, (differing or list(zip(*rates)) or [(None, None)])[0]):
            facts = ([f'total_batch={total}'] if total else []) + (
                [f'a base learning rate of {rate:.6g}'] if rate is not None else []
            )
            sides.append(' and '.join(facts))
        raise UserError(
            f'cannot resume: the config has {sides[0]}, the checkpoint {sides[1]}, which would win '
            f'without a word. {_INSTEAD}'
        )


def _same_schedules(settings: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    sides = [side.get('param_scheduler') for side in (settings, old)]
    if None in sides:
        return
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            f'cannot resume: the config has {len(sides[0])} param_scheduler, the checkpoint {len(sides[1])}. {_INSTEAD}'
        )
    for i, (new, was) in enumerate(zip(*sides)):
        for key in sorted({*new, *was}):
            if new.get(key) != was.get(key):
                raise UserError(
                    f'cannot resume: param_scheduler.{i}.{key} is {new.get(key)} in the config and '
                    f'{was.get(key)} in the checkpoint, which would win without a word. {_INSTEAD}'
                )


def _same_epochs(runner, checkpoint: Mapping[str, Any]) -> None:
    """Warn of schedules converted from epochs to iterations whose epochs have another length now."""
    built, states = runner.param_schedulers, checkpoint.get('param_schedulers')
    if isinstance(built, list) and isinstance(states, list):
        for i, (scheduler, state) in enumerate(zip(built, states)):
            if scheduler.end != state.get('end', scheduler.end):
                print_log(
                    f'param_scheduler.{i} ({type(scheduler).__name__}) ends at {state["end"]} as in the '
                    f'checkpoint, not at {scheduler.end}: an epoch has another number of iterations now (other '
                    'devices, batch size or data)',
                    logger='current',
                    level=logging.WARNING,
                )


def _configured_options(runner, groups: list[dict], settings: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    if 'group_options' not in old:
        return
    built = runner.optim_wrapper.optimizer.param_groups
    for group, state, new, was in zip(built, groups, settings['group_options'], old['group_options']):
        for key in new:
            if new[key] == was.get(key, new[key]):
                continue
            if f'initial_{key}' in state:
                raise UserError(
                    f'cannot resume: {key}, which a scheduler changes, begins at {new[key]} in the config '
                    f'and at {was[key]} in the checkpoint, which would win without a word. {_INSTEAD}'
                )
            print_log(
                f'resuming with {key}={new[key]} of the config for {len(group["params"])} parameters; the '
                f'checkpoint had {was[key]}',
                logger='current',
                level=logging.WARNING,
            )
            state[key] = group[key]
