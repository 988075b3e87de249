"""Start a run from a config, and say in one line what is wrong with it before anything is built.

The same for every framework of the stack: the config's ``default_scope`` decides which one is loaded, by mmengine.
"""

import functools
import gc
import json
import mmap
import os
import re
import sys
from pathlib import Path

from nfnet_mm.errors import UserError, check_exists, nearest_files

__all__ = [
    'UserError',
    'build_runner',
    'check_amp_device',
    'check_coco_files',
    'dump_predictions',
    'load_config',
    'one_line_errors',
    'prepare_launcher',
    'require_whole',
    'show_predictions',
    'use_amp',
    'use_data_root',
    'use_resume',
    'use_tta',
]

# The wrapper that trains in mixed precision as this one does in float32.
AMP_TWINS = {'OptimWrapper': 'AmpOptimWrapper', 'nfnet_mm.AGCOptimWrapper': 'nfnet_mm.AmpAGCOptimWrapper'}
COCO_KEYS = ('images', 'annotations', 'categories')
COCO_IMAGES = ('images', 'categories')  # without answers
# Parsing more than this (in bytes) only to check it would delay the start by seconds.
PARSE_LIMIT = 64 << 20


def one_line_errors(main):
    """Make ``main`` end with one line, not a traceback, on a :class:`UserError` (of several processes, one speaks)."""

    @functools.wraps(main)
    def wrapped():
        try:
            main()
            _leave_process_group()
        except UserError as error:
            if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
                print(f'error: {error}', file=sys.stderr, flush=True)
            sys.exit(2)

    return wrapped


def _leave_process_group():
    """End a distributed run: threads of the group that outlive the interpreter's end abort it, now and then."""
    torch = sys.modules.get('torch')
    if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # the runner and what it holds use the group
        torch.distributed.destroy_process_group()


def load_config(path, options=None, work_dir=None, launcher='none'):
    """Read a config file.

    Args:
        path (str): The file.
        options (dict, optional): Values that replace the file's, by dotted key.
        work_dir (str, optional): Replaces the file's ``work_dir``; with neither, ``work_dirs/<name of the file>``.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        mmengine.Config: the config, ready for :func:`build_runner`.

    Raises:
        UserError: there is no such file.
    """
    from mmengine import Config

    check_exists(path, 'config')
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options or {})
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('work_dirs', Path(path).stem)
    return cfg


def use_resume(cfg, resume):
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


def _last_checkpoint(cfg):
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
    raise UserError(
        f'the last checkpoint of {cfg.work_dir!r} is {last!r}, and {here!r} does not exist: name the one '
        'to go on from with --resume PATH'
    )


def _name(kind):
    """The bare name of a type in a config, given as text or as a class."""
    return str(kind if isinstance(kind, str) else getattr(kind, '__name__', kind)).rpartition('.')[2]


def use_amp(cfg):
    """Replace the optimizer wrapper by the one that does the same in mixed precision; its other keys stay.

    Raises:
        UserError: the wrapper has no known twin. Another one in its place would drop what it does.

    >>> from mmengine import Config
    >>> cfg = Config(dict(optim_wrapper=dict(type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.01))))
    >>> use_amp(cfg)
    >>> cfg.optim_wrapper.type, cfg.optim_wrapper.agc.clipping
    ('nfnet_mm.AmpAGCOptimWrapper', 0.01)
    """
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, dict):
        raise UserError(f'--amp changes the type of optim_wrapper, and the config has optim_wrapper={wrapper!r}')
    kind = wrapper.get('type', 'OptimWrapper')
    name = kind if isinstance(kind, str) else _class_path(kind)
    known = {}
    for plain, twin in AMP_TWINS.items():
        for own, other in ((plain, twin), (twin, twin)):
            known[own] = known[own.rpartition('.')[2]] = other
    name = name[len('mmengine.') :] if name.startswith('mmengine.') else name
    if name not in known:
        raise UserError(
            f'--amp does not know the optimizer wrapper {name!r}, and any other would drop what it does; '
            f'known are {", ".join([*AMP_TWINS, *AMP_TWINS.values()])}: set optim_wrapper.type to one of '
            'these, or leave --amp and configure mixed precision in the wrapper itself'
        )
    wrapper['type'] = known[name]


def _class_path(kind):
    """How a config names a class of mmengine or of this package; any other class by its full name."""
    package = kind.__module__.partition('.')[0]
    return f'{package if package in ("mmengine", "nfnet_mm") else kind.__module__}.{kind.__name__}'


def check_amp_device(cfg):
    """Raise a :class:`UserError` if mmengine's ``AmpOptimWrapper``, which wants an accelerator, would find none."""
    from mmengine.device import get_device

    if _name((cfg.get('optim_wrapper') or {}).get('type')) == 'AmpOptimWrapper' and get_device() == 'cpu':
        raise UserError(
            "optimizer wrapper 'AmpOptimWrapper' needs an accelerator, and this machine shows none: train "
            'in float32 here (without --amp)'
        )


def _datasets(cfg):
    """Every innermost dataset config below a dataset config (RepeatDataset, ConcatDataset and the like hold more)."""
    inner = cfg.get('datasets') or ([cfg['dataset']] if 'dataset' in cfg else None)
    if inner is None:
        yield cfg
    else:
        for dataset in inner:
            yield from _datasets(dataset)


def _is_coco(kind):
    from mmengine.registry import DATASETS

    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    # By name, because the class belongs to a framework that this package does not import.
    return any(base.__name__ == 'CocoDataset' for base in getattr(kind, '__mro__', ()))


def _unlabelled(dataset):
    """Whether a dataset's pipeline asks for no answers, as that of semi-supervised training's unlabelled pictures."""
    return any(_name(transform.get('type')) == 'LoadEmptyAnnotations' for transform in dataset.get('pipeline') or ())


def check_coco_file(path, needed=COCO_KEYS, used_by=''):
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
            with open(path, encoding='utf-8') as file:
                content = json.load(file)
        except ValueError as error:
            raise UserError(f'{what} {path!r} is not JSON ({error}); {holds}') from error
        content = content if isinstance(content, dict) else {}
        found = [key for key in needed if isinstance(content.get(key), list)]
    if missing := [key for key in needed if key not in found]:
        raise UserError(f'{what} {path!r} is not a COCO file, it lacks {", ".join(missing)}; {holds}')


def check_coco_files(cfg, splits):
    """Check the annotation files of every COCO dataset and metric of a config, before anything is built from it.

    Args:
        cfg (mmengine.Config): The config.
        splits (Sequence[str]): Of 'train', 'val' and 'test', those the run will use.

    Raises:
        UserError: a file is missing or is not COCO (see :func:`check_coco_file`).
    """
    from mmengine.registry import init_default_scope

    init_default_scope(cfg.get('default_scope') or 'mmengine')
    checked = set()
    for split in splits:
        evaluators = cfg.get(f'{split}_evaluator') or []
        evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
        # A test set without public answers is COCO without annotations, and can only be predicted on.
        needed = COCO_KEYS if not any(e.get('format_only') for e in evaluators) else COCO_IMAGES
        loader = cfg.get(f'{split}_dataloader') or {}
        files = [
            (
                dataset.get('data_root') or '',
                dataset.get('ann_file'),
                f'{split}_dataloader',
                COCO_IMAGES if _unlabelled(dataset) else needed,
            )
            for dataset in (_datasets(loader['dataset']) if 'dataset' in loader else ())
            if not dataset.get('backend_args') and _is_coco(dataset.get('type'))
        ]
        files += [
            ('', evaluator.get('ann_file'), f'{split}_evaluator', needed)
            for evaluator in evaluators
            if _name(evaluator.get('type')).endswith('CocoMetric') and not evaluator.get('backend_args')
        ]
        for root, file, used_by, keys in files:
            path = os.path.join(root, file or '')
            if file and '://' not in path and (path, keys) not in checked:
                check_coco_file(path, keys, used_by)
                checked.add((path, keys))


def prepare_launcher(cfg):
    """Let ``cfg.launcher == 'pytorch'`` work on a machine without an accelerator (gloo between CPU processes).

    mmengine's launcher would select a CUDA device, and its model wrapper would name one.
    """
    import torch
    from mmengine.device import get_device

    if cfg.launcher == 'none' or get_device() != 'cpu':
        return
    if cfg.launcher != 'pytorch':
        raise UserError(
            f'launcher {cfg.launcher!r} needs an accelerator, and this machine shows none: use '
            "tools/dist_train.sh (launcher 'pytorch'), which runs on CPUs too"
        )
    torch.distributed.init_process_group('gloo')
    wrapper = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**(cfg.get('model_wrapper_cfg') or wrapper), 'device_ids': None}


def build_runner(cfg):
    """The runner of a config, of the class its ``runner_type`` names if it has one."""
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def require_whole(runner, allow_missing=False):
    """Let the runner load a checkpoint only if it is its model's, whole (see ``StrictLoadHook``).

    With ``allow_missing``, as for fine-tuning, only if it holds something of it.
    """
    from nfnet_mm.engine.strict_load import StrictLoadHook

    runner.register_hook(StrictLoadHook(allow_missing))


def show_predictions(cfg, show=False, directory=None, wait_time=2.0):
    """Turn on the visualization hook of the config's framework.

    Args:
        cfg (mmengine.Config): The config; unchanged if neither ``show`` nor ``directory`` is given.
        show (bool): Open a window per picture, for ``wait_time`` seconds.
        directory (str, optional): Write the pictures there.

    Raises:
        UserError: the config has no visualization hook of mmdet, mmseg or mmpretrain.
    """
    if not (show or directory):
        return
    hook = (cfg.get('default_hooks') or {}).get('visualization') or {}
    name = _name(hook.get('type'))
    known = {'DetVisualizationHook': 'test_out_dir', 'VisualizationHook': 'out_dir', 'SegVisualizationHook': None}
    if name not in known:
        raise UserError(
            f'default_hooks.visualization is {name!r}, so nothing can be shown: set its type to one of '
            f'{", ".join(known)}'
        )
    hook['enable' if name == 'VisualizationHook' else 'draw'] = True
    hook.update(show=show, wait_time=wait_time)
    if directory and known[name]:
        hook[known[name]] = directory
    elif directory:  # mmseg's hook leaves the folder to the visualizer
        cfg.visualizer.save_dir = directory


def use_tta(cfg):
    """Wrap the model for test-time augmentation, as the config's ``tta_model`` and ``tta_pipeline`` say."""
    if missing := [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]:
        raise UserError(f'--tta needs {" and ".join(missing)} in the config')
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def dump_predictions(runner, path):
    """Also write a test run's predictions to the pickle file ``path``, as the runner's framework lays them out."""
    from mmengine.evaluator import DumpResults
    from mmengine.registry import METRICS

    if not path.endswith(('.pkl', '.pickle')):
        raise UserError(f'--out {path!r} must end in .pkl or .pickle')
    with METRICS.switch_scope_and_registry(None) as registry:
        kind = registry.get('DumpDetResults') or DumpResults  # mmdet's packs masks into run lengths
    runner.test_evaluator.metrics.append(kind(out_file_path=path))


def use_data_root(cfg, root):
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
