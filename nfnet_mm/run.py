"""Start a run from a config, and say in one line what is wrong with it before anything is built.

The same for every framework of the stack: the config's ``default_scope`` decides which one is loaded, by mmengine.
"""

import argparse
import functools
import gc
import json
import mmap
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import DATASETS, METRICS, RUNNERS, init_default_scope

from nfnet_mm.errors import UserError, check_exists, nearest_files
from nfnet_mm.registry import type_name

if TYPE_CHECKING:
    from mmengine.runner import Runner


class _ConfigOptions(DictAction):
    """mmengine's action for KEY=VALUE pairs, which ends in a traceback on anything else."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__call__(*args, **kwargs)
        except ValueError as error:
            what = '--cfg-options takes KEY=VALUE pairs, such as train_dataloader.batch_size=8'
            raise UserError(what) from error


# Optimizer wrapper: the one that does the same in mixed precision.
MIXED_PRECISION = {'OptimWrapper': 'AmpOptimWrapper', 'nfnet_mm.AGCOptimWrapper': 'nfnet_mm.AmpAGCOptimWrapper'}
CFG_HELP = 'replace values of the config, by dotted key; a list is "[a,b]"'
CFG_OPTIONS: dict[str, Any] = dict(nargs='+', action=_ConfigOptions, metavar='KEY=VALUE', help=CFG_HELP)
COCO_KEYS = ('images', 'annotations', 'categories')
COCO_IMAGES = ('images', 'categories')  # without answers
# Parsing more than this (in bytes) only to check it would delay the start by seconds.
PARSE_LIMIT = 64 << 20


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, of a parser's own arguments and the options of every command that starts a run."""
    parser.add_argument('--work-dir', help='folder for what is written (default: work_dirs/<name of the config>)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--cfg-options', **CFG_OPTIONS)
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def one_line_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Make ``main`` end with one line, not a traceback, on a :class:`UserError` (of several processes, one speaks)."""

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
            torch = sys.modules.get('torch')
            if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
                # threads of the process group that outlive the interpreter's end abort it, now and then
                gc.collect()  # the runner and what it holds use the group
                torch.distributed.destroy_process_group()
        except UserError as error:
            if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
                print(f'error: {error}', file=sys.stderr, flush=True)
            sys.exit(2)

    return wrapped


def load_config(
    path: str, options: dict[str, Any] | None = None, work_dir: str | None = None, launcher: str = 'none'
) -> Config:
    """Read a config file.

    Args:
        path: the file.
        options: values that replace the file's, by dotted key.
        work_dir: replaces the file's ``work_dir``; with neither, ``work_dirs/<name of the file>``.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        the config, ready for :func:`build_runner`.

    Raises:
        UserError: there is no such file, or it takes no ``weights`` that the options name.
    """
    check_exists(path, 'config')
    cfg = Config.fromfile(path)
    _use_weights(cfg, options or {})
    cfg.merge_from_dict(options or {})
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(path).stem)
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


def use_resume(cfg: Config, resume: str | None) -> None:
    """Resume from the checkpoint ``resume``, or from the work folder's last one if that is 'auto' (None: neither).

    Where there is none yet, as in the first start of a job that is requeued, training starts as without ``resume``,
    from ``cfg.load_from`` if that is set; a line says so.
    """
    if resume == 'auto':
        cfg.resume = os.path.isfile(os.path.join(cfg.work_dir, 'last_checkpoint'))
        if cfg.resume:
            cfg.load_from = _last_checkpoint(cfg)
        else:
            start = f'from load_from={cfg.load_from!r}' if cfg.get('load_from') else "from the config's initial weights"
            print(f'nothing to resume in {cfg.work_dir!r}: training starts {start}', flush=True)
    elif resume is not None:
        if '://' not in resume:
            check_exists(resume, 'checkpoint')
        cfg.resume, cfg.load_from = True, resume


def _last_checkpoint(cfg: Config) -> str:
    """The work folder's last checkpoint, also where the folder was moved or copied since it was written."""
    from mmengine.runner import find_latest_checkpoint

    last = str(find_latest_checkpoint(cfg.work_dir)).strip()
    here = os.path.join(cfg.work_dir, os.path.basename(last))
    if '://' in last:
        return last
    if os.path.isfile(here):
        return here
    # a CheckpointHook's own folder, not the work folder that this one was copied from
    if os.path.isfile(last) and not os.path.exists(os.path.join(os.path.dirname(last), 'last_checkpoint')):
        return last
    what = f'the last checkpoint of {cfg.work_dir!r} is {last!r}, and {here!r} does not exist'
    raise UserError(f'{what}: name the one to go on from with --resume PATH')


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


def _datasets(cfg: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every innermost dataset config below a dataset config (RepeatDataset, ConcatDataset and the like hold more)."""
    inner = cfg.get('datasets') or ([cfg['dataset']] if 'dataset' in cfg else None)
    if inner is None:
        yield cfg
    else:
        for dataset in inner:
            yield from _datasets(dataset)


def _is_coco(kind: Any) -> bool:
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    # By name, because the class belongs to a framework that this package does not import.
    return any(base.__name__ == 'CocoDataset' for base in getattr(kind, '__mro__', ()))


def _unlabelled(dataset: Mapping[str, Any]) -> bool:
    """Whether a dataset's pipeline asks for no answers, as that of semi-supervised training's unlabelled pictures."""
    return any(type_name(transform) == 'LoadEmptyAnnotations' for transform in dataset.get('pipeline') or ())


def check_coco_file(path: str, needed: Sequence[str] = COCO_KEYS, used_by: str = '') -> None:
    """Raise a :class:`UserError` unless ``path`` is a JSON object with the keys of a COCO annotation file.

    A file over 64 MiB is searched for the keys and for its closing bracket rather than parsed.
    """
    holds = f'a COCO file is one JSON object with the lists {", ".join(needed)}'
    what = f'annotation file{used_by and f" of {used_by}"}'
    if not os.path.isfile(path):
        folder, names = nearest_files(path)
        hint = f' (in {str(folder)!r} there is {", ".join(repr(name) for name in names)})' if names else ''
        raise UserError(f'{what} {path!r} does not exist{hint}; {holds}')
    if os.path.getsize(path) > PARSE_LIMIT:
        with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if not text[-4096:].rstrip().endswith(b'}'):
                raise UserError(f'{what} {path!r} is cut off: it does not end in a closing bracket; {holds}')
            found = [key for key in needed if re.search(rb'"%s"\s*:\s*\[' % key.encode(), text)]
    else:
        try:
            content = json.loads(Path(path).read_text(encoding='utf-8'))
        except ValueError as error:
            raise UserError(f'{what} {path!r} is not JSON ({error}); {holds}') from error
        content = content if isinstance(content, dict) else {}
        found = [key for key in needed if isinstance(content.get(key), list)]
    if missing := [key for key in needed if key not in found]:
        raise UserError(f'{what} {path!r} is not a COCO file, it lacks {", ".join(missing)}; {holds}')


def _coco_files(cfg: Config, split: str) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """(path, keys that are needed in it, key of the config) of each local file of a split's COCO data and metrics."""
    evaluators = cfg.get(f'{split}_evaluator') or []
    evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
    # A test set without public answers is COCO without annotations, and can only be predicted on.
    needed = COCO_IMAGES if any(e.get('format_only') for e in evaluators) else COCO_KEYS
    loader = cfg.get(f'{split}_dataloader') or {}
    users = [
        (dataset, COCO_IMAGES if _unlabelled(dataset) else needed, f'{split}_dataloader')
        for dataset in (_datasets(loader['dataset']) if 'dataset' in loader else ())
        if not dataset.get('backend_args') and _is_coco(dataset.get('type'))
    ]
    users += [
        ({'ann_file': evaluator.get('ann_file')}, needed, f'{split}_evaluator')
        for evaluator in evaluators
        if not evaluator.get('backend_args') and type_name(evaluator).endswith('CocoMetric')
    ]
    for user, keys, used_by in users:
        path = os.path.join(user.get('data_root') or '', user.get('ann_file') or '')
        if user.get('ann_file') and '://' not in path:
            yield path, keys, used_by


def check_coco_files(cfg: Config, splits: Sequence[str]) -> None:
    """Check the annotation files of every COCO dataset and metric of a config, before anything is built from it.

    Args:
        cfg: the config.
        splits: of 'train', 'val' and 'test', those that the run will use.

    Raises:
        UserError: a file is missing or is not COCO (see :func:`check_coco_file`).
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    checked = set()
    for split in splits:
        for path, keys, used_by in _coco_files(cfg, split):
            if (path, keys) not in checked:
                check_coco_file(path, keys, used_by)
                checked.add((path, keys))


def prepare_launcher(cfg: Config) -> None:
    """Let ``cfg.launcher == 'pytorch'`` work on a machine without an accelerator (gloo between CPU processes).

    mmengine's launcher would select a CUDA device, and its model wrapper would name one.
    """
    import torch

    if cfg.launcher == 'none' or get_device() != 'cpu':
        return
    if cfg.launcher != 'pytorch':
        instead = "use tools/dist_train.sh (launcher 'pytorch'), which runs on CPUs too"
        raise UserError(f'launcher {cfg.launcher!r} needs an accelerator, and this machine shows none: {instead}')
    torch.distributed.init_process_group('gloo')
    unused = cfg.get('find_unused_parameters', False)
    wrapper = dict(type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=unused)
    cfg.model_wrapper_cfg = {**(cfg.get('model_wrapper_cfg') or wrapper), 'device_ids': None}


def build_runner(cfg: Config) -> 'Runner':
    """The runner of a config, of the class its ``runner_type`` names if it has one."""
    from mmengine.runner import Runner

    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def require_whole(runner: 'Runner', allow_missing: bool = False) -> None:
    """Let the runner load a checkpoint only if it is its model's, whole (see ``StrictLoadHook``).

    With ``allow_missing``, as for fine-tuning, only if it holds something of it.
    """
    from nfnet_mm.engine.strict_load import StrictLoadHook

    runner.register_hook(StrictLoadHook(allow_missing))


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


def dump_predictions(runner: 'Runner', path: str) -> None:
    """Also write a test run's predictions to the pickle file ``path``, as the runner's framework lays them out."""
    from mmengine.evaluator import DumpResults

    if not path.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {path!r} must end in .pkl or .pickle')
    with METRICS.switch_scope_and_registry(None) as registry:
        kind = registry.get('DumpDetResults') or DumpResults  # mmdet's packs masks into run lengths
    runner.test_evaluator.metrics.append(kind(out_file_path=path))


def use_data_root(cfg: Config, root: str) -> None:
    """Point every dataset of a config, and the annotation files of its metrics, at another data folder.

    The folder is replaced at the start of the metrics' paths, as ``data_root`` names it in the file.
    """
    old = cfg.data_root
    root = os.path.join(root, '')
    for split in ('train', 'val', 'test'):
        for dataset in _datasets((cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}):
            dataset['data_root'] = root
        evaluator = cfg.get(f'{split}_evaluator') or {}
        if str(evaluator.get('ann_file')).startswith(old):
            evaluator['ann_file'] = root + evaluator['ann_file'][len(old) :]
    cfg.data_root = root
