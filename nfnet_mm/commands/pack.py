"""Put a folder of data into one file, which data_root takes in its place; or check such a file.

The file is a tar without compression that begins with an index. It appears under its name when it is whole and has been
read back. Links are followed, hidden files are left out, and the folder stays as it is.
"""

import argparse
import time

from nfnet_mm.pack import check_pack, write_pack

_PAUSE = 10.0  # seconds between two lines of progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('source', help='folder to pack; without a target, the pack whose every file is to be checked')
    parser.add_argument('target', nargs='?', help='file to write, ending in .tar')


def run(args: argparse.Namespace) -> None:
    """Pack, or check, and say how many files there are."""
    last = time.monotonic()

    def say(line: str) -> None:
        nonlocal last
        if time.monotonic() - last > _PAUSE:
            last = time.monotonic()
            print(line, flush=True)

    if args.target is None:
        print(f'{args.source}: {check_pack(args.source, say):,} files, each as it was packed')
        return
    count = write_pack(args.source, args.target, say)
    print(f'{count:,} files packed and read back: train with --cfg-options data_root={args.target}')
