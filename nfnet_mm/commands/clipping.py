"""How much AGC clipped in a run, per layer and over time: pictures, CSV, and the most clipped layers in words."""

import argparse
from pathlib import Path

from nfnet_mm.analysis.clipping import most_clipped, read_clipping, write_clipping
from nfnet_mm.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='work folder of a run, resumed or not')
    parser.add_argument('--out', help='folder for what is written (default: each work folder)')
    parser.add_argument('--count', type=int, default=10, help='layers to name (default: 10)')


def run(args: argparse.Namespace) -> None:
    """Read, say, draw."""
    if args.count < 1:
        raise UserError(f'--count {args.count} must be a positive integer')
    logs = {name: read_clipping(name) for name in args.work_dirs}  # all, before anything is written
    for number, (name, log) in enumerate(logs.items(), 1):
        print(f'{name}:', *most_clipped(log, args.count), sep='\n')
        stem = f'clipping_{number}_{Path(name).resolve().name}' if args.out and len(logs) > 1 else 'clipping'
        files = write_clipping(log, Path(args.out or name), stem, f'What AGC clipped in {Path(name).resolve().name}')
        print(f'written: {", ".join(map(str, files))}')
