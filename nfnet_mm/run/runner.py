"""Build the runner of a config, and what it starts from."""

import os
from typing import TYPE_CHECKING

from mmengine import Config
from mmengine.device import get_device
from mmengine.registry import METRICS, RUNNERS

from nfnet_mm.errors import UserError, check_exists

from .type_names import check_types

if TYPE_CHECKING:
    from mmengine.runner import Runner


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

    Raises:
        UserError: a type of this package is misspelt.
    """
    from mmengine.runner import Runner

    from nfnet_mm.engine.random_start import RandomStartHook

    check_types(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.register_hook(RandomStartHook())
    return runner


def require_whole(runner: 'Runner', allow_missing: bool = False) -> None:
    """Let the runner load a checkpoint only if it is its model's, whole (see ``StrictLoadHook``).

    With ``allow_missing``, as for fine-tuning, only if it holds something of it.
    """
    from nfnet_mm.engine.strict_load import StrictLoadHook

    runner.register_hook(StrictLoadHook(allow_missing))


def how_to_go_on(runner: 'Runner') -> str:
    """The line that an interrupted training ends with: how far it came, and how to go on."""
    from mmengine.runner import find_latest_checkpoint

    came = f'training interrupted after {runner.iter} of {runner.max_iters} iterations'
    marked = os.path.isfile(os.path.join(runner.work_dir, 'last_checkpoint'))
    if not marked:
        return f'{came}; {runner.work_dir!r} holds no checkpoint yet, to start again begins anew'
    last = os.path.basename(str(find_latest_checkpoint(runner.work_dir)).strip())
    return f'{came}; to go on from {last}, run the same again with --work-dir {runner.work_dir} --resume'


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
