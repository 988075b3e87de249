"""Read a config, and make the changes to it that a command's options ask for."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine import Config
from mmengine.device import get_device

from nfnet_mm.errors import UserError
from nfnet_mm.named_configs import find_config, read_config_file
from nfnet_mm.registry import type_name

# Optimizer wrapper: the one that does the same in mixed precision.
MIXED_PRECISION = {'OptimWrapper': 'AmpOptimWrapper', 'nfnet_mm.AGCOptimWrapper': 'nfnet_mm.AmpAGCOptimWrapper'}


def load_config(
    path: str, options: dict[str, Any] | None = None, work_dir: str | None = None, launcher: str = 'none'
) -> Config:
    """Read a config file.

    Args:
        path: the file, or the name of a shipped one (see :func:`nfnet_mm.named_configs.find_config`).
        options: values that replace the file's, by dotted key.
        work_dir: replaces the file's ``work_dir``; with neither, ``work_dirs/<name of the file>``.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        the config, ready for :func:`build_runner`.

    Raises:
        UserError: there is no such file, or it takes no ``weights`` that the options name.
    """
    source = find_config(path)
    cfg = read_config_file(source.path)
    _use_weights(cfg, options or {})
    cfg.merge_from_dict(options or {})
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', source.path.stem)
    return cfg


def _use_weights(cfg: Config, options: Mapping[str, Any]) -> None:
    """Give ``weights`` of the options to the backbone's initializer, which a config reads them into once, as it loads.

    So it is with a config that states ``weights`` itself and inherits the backbone.
    """
    weights = options.get('weights', cfg.get('weights'))
    backbone = (cfg.get('model') or {}).get('backbone') or {}
    start = backbone.get('init_cfg') or {}
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


def show_predictions(cfg: Config, show: bool = False, directory: str | None = None, wait_time: float = 2.0) -> None:
    """Turn on the visualization hook of the config's framework.

    Args:
        cfg: the config; unchanged if neither ``show`` nor ``directory`` is given.
        show: open a window per picture.
        directory: write the pictures there.
        wait_time: how long a window stays, in seconds.

    Raises:
        UserError: the config has no visualization hook of mmdet, mmseg or mmpretrain.
    """
    if not (show or directory):
        return
    hook = (cfg.get('default_hooks') or {}).get('visualization') or {}
    name = type_name(hook)
    known = {'DetVisualizationHook': 'test_out_dir', 'VisualizationHook': 'out_dir', 'SegVisualizationHook': None}
    if name not in known:
        what = f'default_hooks.visualization is {name!r}, so nothing can be shown'
        raise UserError(f'{what}: set its type to one of {", ".join(known)}')
    hook['enable' if name == 'VisualizationHook' else 'draw'] = True
    hook.update(show=show, wait_time=wait_time)
    if directory and known[name]:
        hook[known[name]] = directory
    elif directory:  # mmseg's hook leaves the folder to the visualizer
        cfg.visualizer.save_dir = directory


def use_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation, as the config's ``tta_model`` and ``tta_pipeline`` say."""
    if missing := [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]:
        raise UserError(f'--tta needs {" and ".join(missing)} in the config')
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def use_data_root(cfg: Config, root: str) -> None:
    """Point every dataset of a config, and the annotation files of its metrics, at another data folder.

    The folder is replaced at the start of the metrics' paths, as ``data_root`` names it in the file.
    """
    old = cfg.data_root
    root = os.path.join(root, '')
    for split in ('train', 'val', 'test'):
        for dataset in datasets((cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}):
            dataset['data_root'] = root
        evaluator = cfg.get(f'{split}_evaluator') or {}
        if str(evaluator.get('ann_file')).startswith(old):
            evaluator['ann_file'] = root + evaluator['ann_file'][len(old) :]
    cfg.data_root = root


def datasets(cfg: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every innermost dataset config below a dataset config (RepeatDataset, ConcatDataset and the like hold more)."""
    inner = cfg.get('datasets') or ([cfg['dataset']] if 'dataset' in cfg else None)
    if inner is None:
        yield cfg
    else:
        for dataset in inner:
            yield from datasets(dataset)
