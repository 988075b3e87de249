"""Read a config, and make the changes to it that a command's options ask for."""

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine import Config
from mmengine.device import get_device

from nfnet_mm.errors import UserError, did_you_mean
from nfnet_mm.named_configs import find_config
from nfnet_mm.read_config import read_config
from nfnet_mm.registry import type_name

from .classes import data_root, follow_data_root, model_classes, use_num_classes
from .device import is_first_process
from .inherited import is_last
from .packs import use_packs

# Optimizer wrapper: the one that does the same in mixed precision.
MIXED_PRECISION = {'OptimWrapper': 'AmpOptimWrapper', 'nfnet_mm.AGCOptimWrapper': 'nfnet_mm.AmpAGCOptimWrapper'}

# What holds for all that depends on it, and what else than the runner's arguments is read from a config's top level.
_SETTINGS = ('data_root', 'num_classes', 'weights')
_READ_LATER = (
    'auto_scale_lr',
    'custom_imports',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'tta_model',
    'tta_pipeline',
)


def load_config(
    path: str, options: dict[str, Any] | None = None, work_dir: str | None = None, launcher: str = 'none'
) -> Config:
    """Read a config file.

    Three settings at its top level, or among the options, hold for all that depends on them: ``data_root``, a folder or
    a pack of one, for every dataset, ``num_classes`` for heads, losses, mixing, top-k and class names (see
    :func:`use_num_classes`), and ``weights`` for the backbone's initializer. A setting that is inherited gives way to a
    place that is stated later.

    Args:
        path: the file, or the name of a shipped one (see :func:`nfnet_mm.named_configs.find_config`).
        options: values that replace the file's, by dotted key.
        work_dir: replaces the file's ``work_dir``; with neither, ``work_dirs/<name of the file>``.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        the config, ready for :func:`build_runner`.

    Raises:
        UserError: there is no such file, it does not load, an option's key is misspelt, or nothing in the file takes
            the ``weights`` or ``num_classes`` of the options.
    """
    source = find_config(path)
    options = options or {}
    cfg = read_config(source.path)
    _check_keys(cfg, options)
    said = [_passed_over(source.path, cfg, 'weights', options, _checkpoint, _checkpoint(cfg))]
    if said[0] is None:
        _use_weights(cfg, options)
    root, classes = data_root(cfg), model_classes(cfg)
    cfg.merge_from_dict(options)
    said.append(_passed_over(source.path, cfg, 'data_root', options, data_root, root))
    if said[1] is None:
        follow_data_root(cfg)
    use_packs(cfg)
    said.append(_passed_over(source.path, cfg, 'num_classes', options, model_classes, classes))
    if said[2] is None:
        said.append(use_num_classes(cfg, options))
    if is_first_process():
        print(*(f'{line}\n' for line in said if line), sep='', end='', flush=True)
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', source.path.stem)
    return cfg


def _passed_over(
    path: Path,
    cfg: Config,
    name: str,
    options: Mapping[str, Any],
    value_of_places: Callable[[Config], Any],
    before: Any,
) -> str | None:
    """A line on a setting that is not followed, since the config or an option states its places later; else None.

    Args:
        path: the config's file.
        cfg: the config, with the options.
        name: of the setting.
        options: values that replace the file's, by dotted key.
        value_of_places: the value that the places have in a config.
        before: that value without the options.
    """
    setting, value = cfg.get(name), value_of_places(cfg)
    if setting is None or value is None or name in options or str(setting).rstrip('/') == str(value).rstrip('/'):
        return None
    if value == before and is_last(path, cfg, name, value_of_places):
        return None
    return f'{name}={setting!r} at the top level of the config is not followed: {value!r} is stated where it is used'


def _checkpoint(cfg: Mapping[str, Any]) -> str | None:
    """What the backbone starts from, empty for random weights; None if it takes none."""
    start = _backbone(cfg).get('init_cfg')
    return start.get('checkpoint') or '' if isinstance(start, dict) and type_name(start) == 'NFPretrained' else None


def _backbone(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    model = cfg.get('model')
    backbone = model.get('backbone') if isinstance(model, Mapping) else None
    return backbone if isinstance(backbone, Mapping) else {}


def _check_keys(cfg: Config, options: Mapping[str, Any]) -> None:
    """Raise a :class:`UserError` if the first part of an option's key is misspelt: it would be a new value unread."""
    from mmengine.runner import Runner

    known = {*inspect.signature(Runner.__init__).parameters, *_READ_LATER}
    for key in options:
        first = key.partition('.')[0]
        hint = did_you_mean(first, [*_SETTINGS, *cfg, *known], cutoff=0.8)
        if first not in cfg and first not in known and first not in _SETTINGS and hint:
            raise UserError(f'--cfg-options {key}={options[key]}: the config has no {first!r}.{hint}')


def _use_weights(cfg: Config, options: Mapping[str, Any]) -> None:
    """Give ``weights`` of the options to the backbone's initializer, which a config reads them into once, as it loads.

    So it is with a config that states ``weights`` itself and inherits the backbone.
    """
    weights = options.get('weights', cfg.get('weights'))
    start = _backbone(cfg).get('init_cfg')
    if isinstance(start, dict) and type_name(start) == 'NFPretrained' and weights is not None:
        start['checkpoint'] = weights
    elif 'weights' in options and 'weights' not in cfg:
        what = f'--cfg-options weights={weights}: this config starts from random weights, and takes none'
        raise UserError(
            f"{what}; model.backbone.init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=...) in it would"
        )


def use_amp(cfg: Config) -> None:
    """Replace the optimizer wrapper by the one that does the same in mixed precision; its other keys stay.

    Raises:
        UserError: the wrapper has no known form in mixed precision. Any other in its place would drop what it does.

    >>> cfg = Config(dict(optim_wrapper=dict(type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.01))))
    >>> use_amp(cfg)
    >>> cfg.optim_wrapper.type, cfg.optim_wrapper.agc.clipping
    ('nfnet_mm.AmpAGCOptimWrapper', 0.01)
    """
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, dict):
        raise UserError(f'--amp changes the type of optim_wrapper, and the config has optim_wrapper={wrapper!r}')
    kind = wrapper.get('type', 'OptimWrapper')
    if not isinstance(kind, str):  # as a config names a class of mmengine or of this package; another in full
        package = kind.__module__.partition('.')[0]
        kind = f'{package if package in ("mmengine", "nfnet_mm") else kind.__module__}.{kind.__name__}'
    name = kind.removeprefix('mmengine.')
    forms = {**MIXED_PRECISION, **{form: form for form in MIXED_PRECISION.values()}}
    forms.update({own.rpartition('.')[2]: form for own, form in forms.items()})
    if name not in forms:
        raise UserError(
            f'--amp does not know the optimizer wrapper {name!r}, and any other would drop what it does; '
            f'known are {", ".join([*MIXED_PRECISION, *MIXED_PRECISION.values()])}: set optim_wrapper.type to one of '
            'these, or leave --amp and configure mixed precision in the wrapper itself'
        )
    wrapper['type'] = forms[name]


def check_amp_device(cfg: Config) -> None:
    """Raise a :class:`UserError` if mmengine's ``AmpOptimWrapper``, which wants an accelerator, would find none."""
    if type_name(cfg.get('optim_wrapper') or {}) == 'AmpOptimWrapper' and get_device() == 'cpu':
        why = 'needs an accelerator, and this machine shows none: train in float32 here (without --amp)'
        raise UserError(f"optimizer wrapper 'AmpOptimWrapper' {why}")
