"""Two implementations of a network side by side: time, memory and launches, measured in turns; or a suite of them.

An implementation is a network of this package, timm/NAME, torchvision/NAME, the dict of a registered backbone or a
config, with arguments after commas: nfnet_f0,with_cp=act. By default a training step and an evaluation are measured.
"""

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger

from nfnet_mm.benchmark import (
    AXES,
    DTYPES,
    LAYOUTS,
    MEASURES,
    SUITES,
    Result,
    Row,
    Run,
    Runner,
    Settings,
    Suite,
    check_settings,
    find_implementation,
    growth,
    has_fused_sgd,
    report,
)
from nfnet_mm.errors import UserError, check_number, check_positive, did_you_mean

_BATCH = dict(cuda=32, cpu=4)  # on CUDA the papers' (NFNets, Appendix A.2)
_DTYPE = dict(cuda='bfloat16', cpu='float32')
_PAIRS = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('implementations', nargs='*', metavar='IMPLEMENTATION', help='one, or two to compare')
    parser.add_argument('--suite', metavar='NAME', help=f'rows that belong together: {", ".join(SUITES)}')
    parser.add_argument('--measure', nargs='+', metavar='NAME', help=f'of {", ".join(MEASURES)}')
    parser.add_argument('--grow', metavar='AXIS', help=f'the training step at several of: {", ".join(AXES)}')
    parser.add_argument('--values', type=int, nargs='+', help='of --grow, in place of --batch-size or --size')
    parser.add_argument('--device', metavar='NAME', help='cuda or cpu (default: cuda, if there is a GPU)')
    parser.add_argument('--dtype', metavar='NAME', help='float32, bfloat16 or float16, the last two by autocast')
    parser.add_argument('--layout', default='best', metavar='NAME', help='best (default), contiguous or channels_last')
    parser.add_argument('--compile', nargs='?', const='default', metavar='MODE', help='compile, in a mode of torch')
    parser.add_argument('--batch-size', type=int, help='images of a forward pass (default: 32 on CUDA, 4 on a CPU)')
    parser.add_argument('--micro-batches', type=int, default=4, help='of the measure accumulate (default: 4)')
    parser.add_argument('--size', type=int, help="pixels (default: each network's training size)")
    parser.add_argument('--pairs', type=int, help=f"samples of each side (default: {_PAIRS}, or the suite's)")
    parser.add_argument('--no-fused', action='store_true', help='the optimizer without its fused form')
    parser.add_argument('--threads', type=int, help='of a CPU')
    parser.add_argument('--seconds', type=float, help='after which no further row of a suite begins')
    parser.add_argument('--out', metavar='FOLDER', help='for benchmark.json and the pictures')


def run(args: argparse.Namespace) -> None:
    """Measure, print the table as it grows, and write the files."""
    suite = SUITES[_known('--suite', args.suite, SUITES)]() if args.suite else None
    if bool(suite) == bool(args.implementations):
        raise UserError('name one or two implementations, such as nfnet_f0 timm/dm_nfnet_f0, or a --suite')
    if len(args.implementations) > 2:
        raise UserError(f'{len(args.implementations)} implementations were named: name one or two')
    for option, of, why in (
        ('measure', args.suite, f'--suite {args.suite}, whose rows say what is measured'),
        ('measure', args.grow, '--grow, which measures the training step'),
        ('grow', args.suite, 'a --suite, but with implementations'),
        ('values', not args.grow, 'a benchmark without --grow'),
    ):
        if getattr(args, option) and of:
            raise UserError(f'--{option} does not go with {why}')
    for option in ('batch_size', 'micro_batches', 'size', 'pairs', 'threads'):
        if getattr(args, option) is not None:
            check_positive(f'--{option.replace("_", "-")}', getattr(args, option))
    if args.seconds is not None:
        check_number('--seconds', args.seconds, '(0, inf)')
    if args.threads:
        if args.threads > (os.cpu_count() or args.threads):  # thousands would bring a machine to a standstill
            raise UserError(f'--threads {args.threads} is more than this machine has cores: {os.cpu_count()}')
        torch.set_num_threads(args.threads)
    settings = _settings(args, dict(suite.settings) if suite else {})
    if args.out:  # before anything is measured
        report.check_folder(Path(args.out))
    limit = args.seconds or (suite.seconds if suite else None)
    until = time.monotonic() + limit if limit else None
    pairs = args.pairs or (suite.pairs if suite else _PAIRS)
    of_run = Run(settings, pairs, until, _progress())
    with _quiet():
        if args.grow:
            _grow(args, of_run)
        else:
            _measure(args, suite, of_run)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and the log of what is measured; cuDNN chooses its algorithms in the first steps."""
    chooses, level = torch.backends.cudnn.benchmark, logging.getLogger('torch').level
    log = MMLogger.get_instance(f'nfnet_mm.benchmark {time.monotonic()}', log_level='ERROR')  # the newest is current
    torch.backends.cudnn.benchmark = True
    logging.getLogger('torch').setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        torch.backends.cudnn.benchmark = chooses
        logging.getLogger('torch').setLevel(level)
        MMLogger._instance_dict.pop(log.instance_name, None)


def _measure(args: argparse.Namespace, suite: Suite | None, of_run: Run) -> None:
    """Print the table row by row, and write the files after each: a run that is cut off leaves what it had."""
    settings = dict(of_run.settings)
    rows = suite.rows if suite else _rows(args)
    if not suite:
        for name in args.implementations:
            _check(name, settings)
    where = report.machine(settings['device'])
    print(f'{suite.what}\n' if suite else '', report.line(report.HEADER), sep='')
    results: list[Result] = []
    for result in Runner(of_run).results(rows):
        results.append(result)
        _progress_over()
        print('\n'.join(report.lines(result)), flush=True)
        if args.out:
            report.write(Path(args.out), report.as_json(results, [], where, settings), results, [])
    print('\n'.join(report.legend(results, settings, of_run.pairs, where)))
    _say_files(args, results, [], where, settings)
    if all(result.failure for result in results):
        raise UserError(f'nothing could be measured: {results[0].failure}')


def _known(option: str, value: str, known: Any) -> str:
    if value not in known:
        raise UserError(f'{option} {value!r} is unknown.{did_you_mean(value, known)} Known: {", ".join(known)}')
    return value


def _settings(args: argparse.Namespace, of_suite: dict[str, Any]) -> dict[str, Any]:
    """Those of the run: the options', else the suite's, else by device."""
    device = args.device or of_suite.get('device') or ('cuda' if torch.cuda.is_available() else 'cpu')
    _known('--device', device, _BATCH)
    if device == 'cuda' and not torch.cuda.is_available():
        asked = f'--suite {args.suite}' if args.suite and not args.device else '--device cuda'
        raise UserError(f'{asked}: torch sees no CUDA device here; python -m nfnet_mm doctor tells more')
    dtype = _known('--dtype', args.dtype or of_suite.get('dtype') or _DTYPE[device], DTYPES)
    return dict(
        device=device,
        dtype=dtype,
        layout=_known('--layout', args.layout, ['best', *LAYOUTS]),
        batch=args.batch_size or of_suite.get('batch') or _BATCH[device],
        size=args.size,
        compiled=args.compile,
        fused=not args.no_fused and has_fused_sgd(device),
    )


def _check(name: str, settings: dict[str, Any]) -> None:
    """Refuse before anything is measured what no row of an implementation could be."""
    found = find_implementation(name)
    size = settings['size'] or found.size
    check_settings(Settings(**{**settings, 'size': size, 'layout': 'contiguous'}))


def _rows(args: argparse.Namespace) -> list[Row]:
    ours, theirs = (*args.implementations, None)[:2]
    rows = []
    for name in args.measure or ('train', 'eval'):
        what = MEASURES[_known('--measure', name, MEASURES)].what
        options = dict(micro_batches=args.micro_batches) if name == 'accumulate' else {}
        rows.append(Row(what, name, ours, theirs, options=options))
    return rows


def _grow(args: argparse.Namespace, of_run: Run) -> None:
    """Time the axis, print the points and the line, and write the files."""
    axis, default = AXES[_known('--grow', args.grow, AXES)]
    for name in args.implementations:
        _check(name, {**of_run.settings, 'size': args.size})
    found = growth(args.implementations, args.grow, args.values or default, of_run)
    _progress_over()
    for one in found:
        print(f'{one.name}: seconds of a training step against {axis}')
        for point in one.points:
            print(f'  {point.x:>9}  {report.figure(point.seconds.median, "s")}')
        print(f'  line: {one.line.intercept:.4g} + {one.line.slope:.4g} x, R2 {one.line.r2:.4f}')
    _say_files(args, [], found, report.machine(of_run.settings['device']), dict(of_run.settings))


def _say_files(args: argparse.Namespace, results: Any, growths: Any, where: Any, settings: Any) -> None:
    if args.out:
        content = report.as_json(results, growths, where, settings)
        files = report.write(Path(args.out), content, results, growths)
        print(f'Written: {", ".join(map(str, files))}')


def _progress() -> Callable[[str], None]:
    """Writes how far it is into one line of a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda _: None
    return lambda what: print(f'\r\033[K{what[:100]}', end='', file=sys.stderr, flush=True)


def _progress_over() -> None:
    _progress()('')
