"""Build the runner of a config, and what it starts from."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine import Config
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook
from mmengine.registry import METRICS, RUNNERS

from nfnet_mm.errors import UserError, check_exists

from .channels import check_channels
from .combinations import check_combinations
from .latest import newest_checkpoint
from .type_names import check_types

if TYPE_CHECKING:
    from mmengine.runner import Runner


def use_resume(cfg: Config, resume: str | None) -> None:
    """Resume from a checkpoint.

    Args:
        cfg: the config; ``resume`` and ``load_from`` in it are set.
        resume: the file; or 'last', the newest whole checkpoint in the work folder; or 'auto', the same where there is
            one and otherwise a start as without ``resume``, as for the first of a job that is requeued. What is done,
            and which checkpoints were passed over as not whole, is printed. None: neither.

    Raises:
        UserError: there is no such file, or nothing to resume.
    """
    if resume in ('last', 'auto'):
        folder = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        path, passed = newest_checkpoint(cfg.work_dir, folder.get('out_dir'), folder.get('filename_tmpl'))
        for line in passed:
            print(f'not resumed from {line}', flush=True)
        cfg.resume = path is not None
        if path is not None:
            print(f'resuming from {path!r}', flush=True)
            cfg.load_from = path
            return
        what = f'nothing to resume in {cfg.work_dir!r}{", where no checkpoint is whole" if passed else ""}'
        if resume == 'last' or passed:
            raise UserError(f'{what}; name one with --resume PATH, or start anew without --resume')
        start = f'from load_from={cfg.load_from!r}' if cfg.get('load_from') else "from the config's initial weights"
        print(f'{what}: training starts {start}', flush=True)
    elif resume is not None:
        if '://' not in resume:
            check_exists(resume, 'checkpoint')
        cfg.resume, cfg.load_from = True, resume


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
    """The runner of a config, of the class its ``runner_type`` names if it has one.

    mmengine's checkpoint hook is replaced in the config by
    :class:`~nfnet_mm.engine.checkpoint_hook.SafeCheckpointHook`, which saves the same, and hooks are added that no
    config has to name.

    Raises:
        UserError: a type of this package is misspelt, settings do not go together, or a neck or head reads other
            channels than the backbone gives.
    """
    from mmengine.runner import Runner

    from nfnet_mm.engine.broken_pictures import BrokenPicturesHook
    from nfnet_mm.engine.exact_resume import ExactResumeHook
    from nfnet_mm.engine.finite import FiniteWeightsHook
    from nfnet_mm.engine.hang import HangHook
    from nfnet_mm.engine.random_start import RandomStartHook
    from nfnet_mm.engine.rank_seed import RankSeedHook
    from nfnet_mm.engine.signals import StopOnSignalHook

    check_types(cfg)
    check_combinations(cfg)
    hooks = cfg.setdefault('default_hooks', {})
    hooks.setdefault('checkpoint', dict(type='CheckpointHook'))  # mmengine's default
    for hook in (hooks['checkpoint'], *(cfg.get('custom_hooks') or ())):
        if isinstance(hook, dict) and hook.get('type') in ('CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook):
            hook['type'] = 'nfnet_mm.SafeCheckpointHook'
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    check_channels(runner)
    for added in (RandomStartHook(), StopOnSignalHook(), ExactResumeHook()):  # in this order
        runner.register_hook(added)
    for kind in (BrokenPicturesHook, RankSeedHook, FiniteWeightsHook, HangHook):
        if not any(isinstance(hook, kind) for hook in runner.hooks):
            runner.register_hook(kind())
    return runner


def require_whole(runner: 'Runner', allow_missing: bool = False) -> None:
    """Let the runner load a checkpoint only if it is its model's, whole (see ``StrictLoadHook``).

    With ``allow_missing``, as for fine-tuning, only if it holds something of it.
    """
    from nfnet_mm.engine.strict_load import StrictLoadHook

    runner.register_hook(StrictLoadHook(allow_missing))


def how_to_go_on(runner: 'Runner') -> str:
    """The line that an interrupted training ends with: how far it came, and how to go on."""
    came = f'training interrupted after {runner.iter} of {runner.max_iters} iterations'
    folder = Path(runner.work_dir)
    last = folder / 'last_checkpoint'
    if last.is_file():
        name = os.path.basename(last.read_text().strip())
        return f'{came}; to go on from {name}, run the same again with --work-dir {runner.work_dir} --resume'
    if best := sorted(folder.glob('best_*.pth'), key=os.path.getmtime):  # mmengine's last_checkpoint names no such
        return f'{came}; no other checkpoint was due yet: run the same again with --resume {best[-1]}'
    hook = (runner.cfg.get('default_hooks') or {}).get('checkpoint') or {}
    due = (
        f' (the first is due after {hook["interval"]}: default_hooks.checkpoint.interval)' if 'interval' in hook else ''
    )
    return f'{came}; {runner.work_dir!r} holds no checkpoint yet{due}, to start again begins anew'


def check_out(path: str | None, item: str | None) -> None:
    """Raise a :class:`UserError` unless a file of such a name can hold predictions, or metrics if they are the item."""
    if path is None:
        if item is not None:
            raise UserError(f'--out-item {item} needs a file to write: --out FILE')
        return
    kinds = ('.json', '.yaml', '.yml', '.pkl', '.pickle') if item == 'metrics' else ('.pkl', '.pickle')
    if not path.endswith(kinds):
        raise UserError(f'--out {path!r} must end in {", ".join(kinds[:-1])} or {kinds[-1]}')


def dump_predictions(runner: 'Runner', path: str) -> None:
    """Also write a test run's predictions to the pickle file ``path``, as the runner's framework lays them out."""
    from mmengine.evaluator import DumpResults

    with METRICS.switch_scope_and_registry(None) as registry:
        kind = registry.get('DumpDetResults') or DumpResults  # mmdet's packs masks into run lengths
    runner.test_evaluator.metrics.append(kind(out_file_path=path))
