"""What the commands share: their options, and errors of one line."""

import argparse
import functools
import gc
import os
import sys
from collections.abc import Callable
from typing import Any, ParamSpec

from mmengine import Config, DictAction

from nfnet_mm import run as runs
from nfnet_mm.errors import UserError

_Arguments = ParamSpec('_Arguments')


class _ConfigOptions(DictAction):
    """mmengine's action for KEY=VALUE pairs, which ends in a traceback on anything else."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__call__(*args, **kwargs)
        except ValueError as error:
            what = '--cfg-options takes KEY=VALUE pairs, such as train_dataloader.batch_size=8'
            raise UserError(what) from error


CFG_HELP = 'replace values of the config, by dotted key; a list is "[a,b]"'
CFG_OPTIONS: dict[str, Any] = dict(nargs='+', action=_ConfigOptions, metavar='KEY=VALUE', help=CFG_HELP)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that starts a run."""
    parser.add_argument('--work-dir', help='folder for what is written (default: work_dirs/<name of the config>)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--cfg-options', **CFG_OPTIONS)
    trust = 'load checkpoints that hold more than weights and state, RUNNING what they ask for'
    parser.add_argument('--trust-checkpoint', action='store_true', help=trust)
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """The config that the arguments of such a command name; checkpoints are loaded safely from here on."""
    runs.use_safe_loading(args.trust_checkpoint)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return runs.load_config(args.config, args.cfg_options, args.work_dir, args.launcher)


def one_line_errors(main: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """Make ``main`` end with one line, not a traceback, on a :class:`UserError` (of several processes, one speaks)."""

    @functools.wraps(main)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            main(*args, **kwargs)
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
