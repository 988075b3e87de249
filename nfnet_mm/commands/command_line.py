"""What the commands share: their options, and errors of one line."""

import argparse
import functools
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, ParamSpec

from mmengine import Config, DictAction

from nfnet_mm import run as runs
from nfnet_mm.errors import UserError, short

_Arguments = ParamSpec('_Arguments')


class _ConfigOptions(DictAction):
    """mmengine's action for KEY=VALUE pairs, which ends in a traceback on anything else."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__call__(*args, **kwargs)
        except ValueError as error:
            what = '--cfg-options takes KEY=VALUE pairs, such as train_dataloader.batch_size=8'
            raise UserError(what) from error
        except (RecursionError, AssertionError):  # of mmengine's parser, on dict(...) and on a bracket too few
            what = 'takes numbers, texts and "[a,b]" lists of them; what needs a dict, as a hook does, is for a config'
            raise UserError(f'--cfg-options {what}: got {" ".join(map(short, args[2]))}') from None


CONFIG_HELP = 'config file, scope::path of an installed package, or the name of a shipped one'
CFG_HELP = 'replace values of the config, by dotted key; a list is "[a,b]"'
CFG_OPTIONS: dict[str, Any] = dict(nargs='+', action=_ConfigOptions, metavar='KEY=VALUE', help=CFG_HELP)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that starts a run."""
    parser.add_argument('--work-dir', help='folder for what is written (default: work_dirs/<name of the config>)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--cfg-options', **CFG_OPTIONS)
    trust = 'load checkpoints that hold more than weights and state, RUNNING what they ask for'
    parser.add_argument('--trust-checkpoint', action='store_true', help=trust)
    parser.add_argument('--no-pin-memory', action='store_true', help='turn off pin_memory of the data loaders')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


class _Instead(argparse.Action):
    """An option of other tools: its help is what does the same here."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        raise UserError(f'{option_string} is no option here; what does it is: {self.const}')


def add_instead(parser: argparse.ArgumentParser, options: Mapping[str, str]) -> None:
    """Let options that other tools have say what does the same here.

    Args:
        parser: of a command.
        options: option: what does it.
    """
    for option, instead in options.items():
        parser.add_argument(option, nargs='*', action=_Instead, const=instead, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """The config that the arguments of such a command name; checkpoints are loaded safely from here on."""
    runs.use_safe_loading(args.trust_checkpoint)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return runs.load_config(args.config, args.cfg_options, args.work_dir, args.launcher)


def one_line_errors(main: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """Make ``main`` end with one line, not a traceback, on a :class:`UserError` or an interrupt (Ctrl-C).

    Of several processes one speaks. The exit status is 2 after an error, 130 after an interrupt.
    """

    @functools.wraps(main)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            with _quiet_workers():
                main(*args, **kwargs)
        except UserError as error:
            _end(2, f'error: {error}', error.of_one_process)
        except KeyboardInterrupt as stop:
            _end(130, str(stop) or 'interrupted')
        except SystemExit as stop:
            if _in_group() and isinstance(stop.code, int):
                _end(stop.code)
            raise
        except BaseException:
            if _in_group():  # a rank that waits for the others would never end
                traceback.print_exc()
                _end(1)
            raise
        if _in_group():
            # threads of the process group that outlive the interpreter's end abort it, now and then
            gc.collect()  # the runner and what it holds use the group
            sys.modules['torch'].distributed.destroy_process_group()

    return wrapped


@contextmanager
def _quiet_workers() -> Iterator[None]:
    """Let Ctrl-C, which a terminal sends to the workers of data loaders too, interrupt this process alone, and once.

    A second one ends a process at once; of several, the launcher sends the second, and it is passed over.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def interrupt(number: int, frame: Any) -> None:
        if os.getpid() != owner:  # a worker, forked with this handler: it is ended by the process that it works for
            sys.excepthook = lambda *_: None  # whose connection to it breaks off
            return
        signal.signal(number, signal.SIG_IGN if 'RANK' in os.environ else signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except KeyboardInterrupt:  # what ends the process is not interrupted
        raise
    except BaseException:
        signal.signal(signal.SIGINT, before)
        raise
    signal.signal(signal.SIGINT, before)


def was_interrupted(error: BaseException | None) -> bool:
    """Whether an exception is an interrupt, or what was raised on one: some code of mmengine catches everything."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _in_group() -> bool:
    torch = sys.modules.get('torch')
    return bool(torch and torch.distributed.is_available() and torch.distributed.is_initialized())


def _end(status: int, line: str | None = None, whoever: bool = False) -> NoReturn:
    if line and (whoever or os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'):
        print(line, file=sys.stderr, flush=True)
    if _in_group():
        # Destroying the group would wait for ranks that may have died; the system closes what this one has open, and
        # its workers end when they see that it is gone.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
