"""The commands of ``python -m nfnet_mm``, each in the module of its name.

A module has ``add_arguments(parser)`` and ``run(args)``; its docstring is the command's description.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from nfnet_mm.dependencies import import_yapf
from nfnet_mm.errors import UserError, did_you_mean

from .command_line import one_line_errors

COMMANDS = {
    'train': 'train any config of mmdet, mmseg, mmpretrain or plain mmengine',
    'test': 'evaluate a checkpoint',
    'infer': 'predict pictures and videos: drawn, for programs, and as a page',
    'export': 'write a model for onnxruntime, OpenVINO or plain torch, checked against it',
    'swap': 'put a normalizer-free backbone into a ResNet config',
    'convert': "convert public weights to our names, or back to timm's",
    'cost': 'parameters, multiply-adds, time and memory of a training step here',
    'signal': 'signal propagation plots of networks, as pictures and CSV',
    'check': "before training: which block's variance leaves the plan, and what usually causes it",
    'benchmark': 'implementations of a network side by side: time, memory, launches',
    'clipping': 'what AGC clipped in a run, per layer and over time: pictures and words',
    'sweep-clipping': 'find the clipping value of a config by short trainings',
    'doctor': 'what is installed and what this machine has, with a fix for each problem',
    'pack': 'put a folder of data into one file',
    'prepare-nyu': 'unpack the labelled NYU Depth v2 file',
}


@one_line_errors
def main(command: str | None = None, argv: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        command: a key of ``COMMANDS``, as a file of ``tools/`` names it; by default the first argument.
        argv: the arguments (default: the process's).

    Raises:
        SystemExit: with status 2, after one line that says what is wrong; with 130, after an interrupt.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    prog = os.path.basename(sys.argv[0])
    if command is None:
        if not argv or argv[0] in ('-h', '--help'):
            print(_overview())
            return
        command = argv.pop(0)
        prog = f'python -m nfnet_mm {command}'
    if command not in COMMANDS:
        raise UserError(f'no command {command!r}.{did_you_mean(command, COMMANDS)} Known: {", ".join(COMMANDS)}')
    if {'RANK', 'SLURM_PROCID'} & os.environ.keys():  # one of several processes
        import_yapf()
    module = import_module(f'{__name__}.{command.replace("-", "_")}')
    parser = argparse.ArgumentParser(prog=prog, description=module.__doc__)
    module.add_arguments(parser)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        known = [
            name for action in parser._actions if action.help is not argparse.SUPPRESS for name in action.option_strings
        ]
        what = 'option' if unknown[0].startswith('-') else 'further argument'
        raise UserError(
            f'{command} takes no {what} {unknown[0]!r}.{did_you_mean(unknown[0].partition("=")[0], known)} '
            f'Its options: {", ".join(name for name in known if name.startswith("--"))}'
        )
    module.run(args)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {what}' for name, what in COMMANDS.items()]
    return '\n'.join(['usage: python -m nfnet_mm COMMAND ...   (COMMAND --help tells its options)', '', *lines])
