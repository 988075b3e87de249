"""Find AGC's clipping value for a config, by short trainings with several values, optimizers and seeds.

Each starts from the same weights and pictures per seed. The learning rate rises linearly over the first tenth of the
iterations and then falls to zero along a cosine, or stays, in place of the config's own schedule. The row 'none' has
the same optimizer wrapper, and clips nothing. The same command again goes on where it was interrupted.
"""

import argparse
from pathlib import Path

from nfnet_mm.clipping_sweep import summarise, sweep, table, verdicts, write_report
from nfnet_mm.clipping_sweep.sweep import VALUES
from nfnet_mm.clipping_sweep.trial import SCHEDULES
from nfnet_mm.named_configs import find_config
from nfnet_mm.run import use_safe_loading

from .command_line import CFG_OPTIONS, CONFIG_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    shown = ' '.join(f'{value:g}' for value in VALUES)
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument('--values', type=float, nargs='+', default=VALUES, help=f'clippings (default: {shown})')
    parser.add_argument(
        '--optimizers',
        nargs='+',
        default=['config'],
        metavar='NAME[=RATE]',
        help="config (the config's own, the default), SGD, AdamW, Lion (timm's), or any of torch's with its rate",
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='(default: 0 1 2)')
    parser.add_argument('--iters', type=int, default=300, help='iterations of each training (default: 300)')
    parser.add_argument('--schedule', default='cosine', choices=SCHEDULES, help='after the rise (default: cosine)')
    parser.add_argument('--validate', action='store_true', help='also validate at the end of each training')
    parser.add_argument('--out', help='folder for what is written (default: work_dirs/sweep_<name of the config>)')
    parser.add_argument('--cfg-options', **CFG_OPTIONS)


def run(args: argparse.Namespace) -> None:
    """Sweep, print the table and write it."""
    use_safe_loading()
    name = find_config(args.config).path.stem
    out = Path(args.out or f'work_dirs/sweep_{name}')
    outcomes = sweep(
        args.config,
        out,
        args.values,
        args.optimizers,
        args.seeds,
        args.iters,
        args.schedule,
        args.validate,
        args.cfg_options,
        lambda line: print(line, flush=True),
    )
    rows = summarise(outcomes)
    print('', *table(rows), '', *verdicts(rows), sep='\n')
    print(f'written: {", ".join(map(str, write_report(out, outcomes, f"{name}, {args.iters} iterations")))}')
