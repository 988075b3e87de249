"""Rerun the papers' claims on real digits, and write what shows here and what does not: a page with figures."""

import argparse
import os
import sys
from pathlib import Path

# Before torch loads: small models gain nothing from threads, and two jobs run side by side.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('OMP_NUM_THREADS', '1')

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # a clone works without installing
from demo.claims import LETTERS, finished  # noqa: E402
from demo.claims.finished import Job  # noqa: E402
from demo.claims.measuring import measure, run_all  # noqa: E402
from nfnet_mm.commands.command_line import one_line_errors  # noqa: E402
from nfnet_mm.errors import UserError, check_positive  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m demo.claims', description=__doc__)
    parser.add_argument('--only', nargs='+', choices=LETTERS, default=LETTERS, help='these claims (default: all)')
    parser.add_argument('--seeds', type=int, default=3, help='(default: %(default)s)')
    parser.add_argument('--quick', action='store_true', help='a few steps each: shows that it runs, and nothing else')
    parser.add_argument('--jobs', type=int, default=min(2, os.cpu_count() or 1), help='side by side (%(default)s)')
    parser.add_argument('--work-dir', default='work_dirs/claims', help='(default: %(default)s)')
    parser.add_argument('--again', action='store_true', help='measure again what is there')
    parser.add_argument('--one', nargs=2, metavar=('CLAIM', 'SEED'), help=argparse.SUPPRESS)  # what a job is started as
    return parser.parse_args()


@one_line_errors
def main() -> None:
    args = parse_args()
    folder = Path(args.work_dir).resolve()
    if args.one:
        measure(Job(args.one[0], int(args.one[1]), args.quick), folder)
        return
    # settings were chosen on seed 0, which is no evidence for them
    seeds = range(1, check_positive('--seeds', args.seeds) + 1)
    jobs = [Job(letter, seed, args.quick) for letter in args.only for seed in seeds]
    wanted = [job for job in jobs if args.again or finished.read(job, folder) is None]
    try:
        if wanted:
            folder.mkdir(parents=True, exist_ok=True)
            run_all(wanted, folder, check_positive('--jobs', args.jobs))
    except OSError as error:
        raise UserError(f'--work-dir {args.work_dir!r}: {error.strerror or error}') from error
    from demo.claims.page import write_page

    for letter, verdict in write_page(folder, [*seeds], args.quick).items():
        print(f'({letter}) {"shows" if verdict.shown else "does NOT show"}: {verdict.statement}')
    print(f'page: {folder / "index.html"}', flush=True)


if __name__ == '__main__':
    main()
