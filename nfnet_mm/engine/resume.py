"""What a resumed run may change, and what would change without a word.

mmengine loads the optimizer's and the schedulers' state over the config, by position: another learning rate, schedule
or grouping of the parameters in the config is ignored, or its momentum goes to other parameters.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from nfnet_mm.errors import UserError, some

_INSTEAD = 'Resume with what it was trained with, on any number of devices, or begin a new run from its weights'
_NO_SETTINGS = ('type', 'last_step', 'verbose')  # of a scheduler


class ResumeHook(Hook):
    """Keep a run's settings in its checkpoints, and hold a checkpoint that it resumes against them."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}

    def before_run(self, runner: Runner) -> None:
        # before a checkpoint is loaded over it; a run that only tests has no optimizer
        self.settings = settings_of(runner) if hasattr(runner.optim_wrapper, 'step') else {}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint['meta'].update(self.settings)

    def after_load_checkpoint(self, runner: Runner, checkpoint: Any) -> None:
        # before the optimizer's state is loaded, and the weights
        if runner._resume and isinstance(checkpoint, Mapping):
            check_resumed(runner, checkpoint, self.settings)


def settings_of(runner: Runner) -> dict[str, Any]:
    """What a run is configured with, to be taken before a checkpoint is loaded and kept in the checkpoints' ``meta``.

    Returns: ``total_batch`` where the loop has one; for each parameter group of the optimizer its ``param_names``,
    ``base_lrs`` and ``group_options`` (as text); ``param_scheduler``, each one's options (as text), in updates where
    the loop has converted them.
    """
    wrapper, model = runner.optim_wrapper, runner.model
    # a loop that counts otherwise than the config says how
    cfgs = getattr(runner.train_loop, 'schedules', None) or runner.cfg.get('param_scheduler') or []
    model = model.get_submodule('module') if is_model_wrapper(model) else model
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


def check_resumed(runner: Runner, checkpoint: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
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
        _refuse(
            "the checkpoint is of a run with a moving average, which is what it holds as the model's weights, and the "
            'config has no EMAHook',
            'Add the hook, or begin a new run from the averaged weights',
        )
    if 'optimizer' not in checkpoint and checkpoint.get('param_schedulers'):
        _refuse(
            'the checkpoint was saved without the state of its optimizer, and its schedules would go on from the '
            'initial rates',
            'Begin a new run from its weights',
        )
    old = checkpoint.get('meta') or {}
    groups = (checkpoint.get('optimizer') or {}).get('param_groups') or []
    _same_parameters(settings, old)
    _same_rates(settings, old, groups)
    _same_schedules(runner, checkpoint, settings, old)
    _same_epochs(runner, checkpoint)
    _configured_options(runner, groups, settings, old)


def _refuse(what: str, instead: str = _INSTEAD) -> NoReturn:
    raise UserError(f'cannot resume: {what}. {instead}: load_from=<the checkpoint> and resume=False')


def _same_parameters(settings: Mapping[str, Any], old: Mapping[str, Any]) -> None:
    """Torch restores momentum by position."""
    new, was = settings.get('param_names'), old.get('param_names')
    if new is None or was is None or new == was:
        return
    place, was_at = ({name: i for i, group in enumerate(side) for name in group} for side in (new, was))
    moved = [name for name in {**place, **was_at} if place.get(name) != was_at.get(name)]
    _refuse(
        f'the parameter groups of the config ({len(new)}) are not those of the checkpoint ({len(was)}); '
        f'{some(moved) or "their order"} would get the state of others'
    )


def _same_rates(settings: Mapping[str, Any], old: Mapping[str, Any], groups: list[dict]) -> None:
    totals = settings.get('total_batch'), old.get('total_batch')
    new = settings.get('base_lrs') or []
    was = old.get('base_lrs') or [float(_base(group, 'lr')) for group in groups if 'lr' in group]
    if len(new) != len(was):  # of other numbers of groups torch tells
        return
    differing = [pair for pair in zip(new, was) if not math.isclose(*pair, rel_tol=1e-6)]
    if differing or (None not in totals and totals[0] != totals[1]):
        sides = []
        for total, rate in zip(totals, [*differing, *zip(new, was), (None, None)][0]):
            facts = [f'total_batch={total}'] if total else []
            facts += [] if rate is None else [f'a base learning rate of {rate:.6g}']
            sides.append(' and '.join(facts))
        _refuse(f'the config has {sides[0]}, the checkpoint {sides[1]}, which would win without a word')


def _same_schedules(
    runner: Runner, checkpoint: Mapping[str, Any], settings: Mapping[str, Any], old: Mapping[str, Any]
) -> None:
    schedules, before = settings.get('param_scheduler'), old.get('param_scheduler')
    if schedules is None or before is None:
        return
    if len(schedules) != len(before):
        _refuse(f'the config has {len(schedules)} param_scheduler, the checkpoint {len(before)}')
    built, states = runner.param_schedulers, checkpoint.get('param_schedulers')
    for i, (new, was) in enumerate(zip(schedules, before)):
        for key in sorted({*new, *was}):
            # what one side leaves out is what it has by default
            value = new[key] if key in new else _as_built(built, i, key)
            then = was[key] if key in was else _as_built(states, i, key)
            if value != then:
                _refuse(
                    f'param_scheduler.{i}.{key} is {value} in the config and '
                    f'{then} in the checkpoint, which would win without a word'
                )


def _as_built(schedulers: Any, i: int, key: str) -> str | None:
    """An option of the i-th scheduler or of its state, as text."""
    if not isinstance(schedulers, list) or i >= len(schedulers):
        return None
    state = schedulers[i] if isinstance(schedulers[i], Mapping) else vars(schedulers[i])
    return str(state[key]) if key in state else None


def _same_epochs(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    """Warn of schedules converted from epochs to iterations whose epochs have another length now."""
    built, states = runner.param_schedulers, checkpoint.get('param_schedulers')
    if isinstance(built, list) and isinstance(states, list):
        for i, (scheduler, state) in enumerate(zip(built, states)):
            if scheduler.end != state.get('end', scheduler.end):
                ends = f'ends at {state["end"]} as in the checkpoint, not at {scheduler.end}'
                why = 'an epoch has another number of iterations now (other devices, batch size or data)'
                what = f'param_scheduler.{i} ({type(scheduler).__name__})'
                print_log(f'{what} {ends}: {why}', 'current', logging.WARNING)


def _configured_options(runner: Runner, groups: list[dict], settings: Mapping, old: Mapping) -> None:
    if 'group_options' not in old:
        return
    built = runner.optim_wrapper.optimizer.param_groups
    for group, state, new, was in zip(built, groups, settings['group_options'], old['group_options']):
        for key in new:
            if new[key] == was.get(key, new[key]):
                continue
            if f'initial_{key}' in state:
                _refuse(
                    f'{key}, which a scheduler changes, begins at {new[key]} in the config '
                    f'and at {was[key]} in the checkpoint, which would win without a word'
                )
            whose = f'of the config for {len(group["params"])} parameters; the checkpoint had {was[key]}'
            print_log(f'resuming with {key}={new[key]} {whose}', 'current', logging.WARNING)
            state[key] = group[key]
