"""Build the runner of a config, and what it starts from."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine import Config
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook, RuntimeInfoHook
from mmengine.registry import METRICS, RUNNERS

from nfnet_mm.dependencies import import_yapf
from nfnet_mm.engine.sharded_checkpoint import is_sharded_checkpoint
from nfnet_mm.errors import UserError, check_exists, make_folder
from nfnet_mm.registry import type_name

from .channels import check_channels
from .combinations import check_combinations
from .compiled import compile_options, compile_the_backbone
from .device import copy_without_waiting, is_first_process, use_cuda_well
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
        UserError: there is no such file, or nothing to resume, or the launcher is to start a run again that failed,
            which would lose what was done.
    """
    restarts = os.environ.get('TORCHELASTIC_MAX_RESTARTS', '0')
    if restarts != '0' and resume not in ('last', 'auto'):
        at = 'anew' if resume is None else f'at {resume!r}'
        what = f'the launcher starts it again {restarts} times if it fails (MAX_RESTARTS, --max-restarts)'
        raise UserError(f'{what}, and each time it would begin {at}: add --resume auto')
    if resume in ('last', 'auto'):
        folder = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        path, passed = newest_checkpoint(cfg.work_dir, folder.get('out_dir'), folder.get('filename_tmpl'))
        said = [f'not resumed from {line}' for line in passed]
        cfg.resume = path is not None
        if path is not None:
            _say(*said, f'resuming from {path!r}')
            cfg.load_from = path
            return
        what = f'nothing to resume in {cfg.work_dir!r}{", where no checkpoint is whole" if passed else ""}'
        if resume == 'last' or passed:
            _say(*said)
            raise UserError(f'{what}; name one with --resume PATH, or start anew without --resume')
        start = f'from load_from={cfg.load_from!r}' if cfg.get('load_from') else "from the config's initial weights"
        _say(f'{what}: training starts {start}')
    elif resume is not None:
        if '://' not in resume and not is_sharded_checkpoint(resume):
            check_exists(resume, 'checkpoint')
        cfg.resume, cfg.load_from = True, resume


def _say(*lines: str) -> None:
    if is_first_process():
        print(*(f'{line}\n' for line in lines), sep='', end='', flush=True)


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
    wrapper = cfg.get('model_wrapper_cfg') or wrapper
    cfg.model_wrapper_cfg = wrapper if is_fully_sharded(cfg) else {**wrapper, 'device_ids': None}


def is_fully_sharded(cfg: Config) -> bool:
    """Whether a config spreads its model over the processes."""
    return type_name(cfg.get('model_wrapper_cfg') or {}) == 'FullyShard'


def build_runner(cfg: Config) -> 'Runner':
    """The runner of a config, of the class its ``runner_type`` names if it has one.

    mmengine's checkpoint hook is replaced in the config by
    :class:`~nfnet_mm.engine.checkpoint_hook.SafeCheckpointHook`, which saves the same, its hook for losses by
    :class:`~nfnet_mm.engine.scalars_later.ScalarsLaterHook`, which does not wait for a GPU, and hooks are added that no
    config has to name. ``compile`` in the config means the backbone. On CUDA, batches are pinned and copied while the
    host goes on.

    Raises:
        UserError: a type of this package is misspelt, settings do not go together, the work folder cannot be made, or
            a neck or head reads other channels than the backbone gives.
    """
    from mmengine.runner import Runner

    from nfnet_mm.engine.broken_pictures import BrokenPicturesHook
    from nfnet_mm.engine.clipping_log import ClippingLogHook
    from nfnet_mm.engine.contiguous import keep_operators_contiguous
    from nfnet_mm.engine.data_workers import DataWorkersHook
    from nfnet_mm.engine.exact_resume import ExactResumeHook
    from nfnet_mm.engine.finite import FiniteWeightsHook
    from nfnet_mm.engine.hang import HangHook
    from nfnet_mm.engine.hook_states import HookStatesHook
    from nfnet_mm.engine.log_files import go_on_without_logs
    from nfnet_mm.engine.random_start import RandomStartHook
    from nfnet_mm.engine.rank_seed import RankSeedHook
    from nfnet_mm.engine.signals import StopOnSignalHook

    from .safe_load import SafeSaveHook

    check_types(cfg)
    check_combinations(cfg)
    compile_options(cfg)
    make_folder(cfg.work_dir, 'work_dir')
    hooks = cfg.setdefault('default_hooks', {})
    hooks.setdefault('checkpoint', dict(type='CheckpointHook'))  # mmengine's default
    for hook in (hooks['checkpoint'], *(cfg.get('custom_hooks') or ())):
        if isinstance(hook, dict) and hook.get('type') in ('CheckpointHook', 'mmengine.CheckpointHook', CheckpointHook):
            hook['type'] = 'nfnet_mm.SafeCheckpointHook'
        if isinstance(hook, dict) and type_name(hook) == 'EarlyStoppingHook':
            hook.setdefault('priority', 'LOW')  # so that what is saved after a validation has seen its score
    info = hooks.setdefault('runtime_info', dict(type='RuntimeInfoHook'))  # mmengine's default
    if isinstance(info, dict) and info.get('type') in ('RuntimeInfoHook', 'mmengine.RuntimeInfoHook', RuntimeInfoHook):
        info['type'] = 'nfnet_mm.ScalarsLaterHook'
    use_cuda_well(cfg)
    import_yapf()
    kind: Any = Runner
    if is_fully_sharded(cfg):
        from nfnet_mm.engine.sharded_runner import ShardedRunner as kind

        if 'runner_type' in cfg:
            raise UserError(f'FullyShard has a runner of its own: remove runner_type={cfg.runner_type!r}')
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else kind.from_cfg(cfg)
    copy_without_waiting(runner)
    keep_operators_contiguous(runner.model)
    go_on_without_logs(runner)
    check_channels(runner)
    compile_the_backbone(runner)
    for hook in (RandomStartHook, StopOnSignalHook, ExactResumeHook, HookStatesHook, SafeSaveHook):  # in this order
        runner.register_hook(hook())
    for hook in (BrokenPicturesHook, ClippingLogHook, DataWorkersHook, RankSeedHook, FiniteWeightsHook, HangHook):
        if not any(isinstance(one, hook) for one in runner.hooks):
            runner.register_hook(hook())
    return runner


def require_whole(runner: 'Runner', allow_missing: bool = False) -> None:
    """Let the runner load a checkpoint only if it is its model's, whole (see ``StrictLoadHook``).

    With ``allow_missing``, as for fine-tuning, only if it holds something of it.
    """
    from nfnet_mm.engine.strict_load import StrictLoadHook

    runner.register_hook(StrictLoadHook(allow_missing))


def train(runner: 'Runner') -> None:
    """Train; a data worker that dies or hangs is one line, and a checkpoint that is being written is finished."""
    from nfnet_mm.engine.checkpoint_hook import finishing_checkpoints
    from nfnet_mm.engine.data_workers import telling_of_workers

    with telling_of_workers(runner), finishing_checkpoints(runner):
        runner.train()


def test(runner: 'Runner') -> dict:
    """Evaluate; a data worker that dies or hangs is one line."""
    from nfnet_mm.engine.data_workers import telling_of_workers

    with telling_of_workers(runner):
        return runner.test()


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
