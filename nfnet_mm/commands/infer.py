"""Predict pictures and videos with a trained model: drawn, for programs, and as a page, index.html."""

import argparse

from nfnet_mm import inference
from nfnet_mm import run as runs

from .command_line import CFG_OPTIONS, CONFIG_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument(
        'checkpoint', help='checkpoint: a file or an address; for a classifier also public weights by name'
    )
    parser.add_argument(
        'images', nargs='+', help="images and videos, folders of them, or patterns such as 'photos/*.jpg'"
    )
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: the GPU if there is one)')
    parser.add_argument('--batch-size', type=int, default=1, help='pictures of one size at once (default: 1)')
    parser.add_argument('--every', type=int, default=1, help='of a video, predict every so many frames (default: 1)')
    parser.add_argument(
        '--score-thr', '--score', type=float, default=0.3, help='leave out objects of lower scores (default: 0.3)'
    )
    parser.add_argument('--cfg-options', **CFG_OPTIONS)


def run(args: argparse.Namespace) -> None:
    """Predict."""
    cfg = runs.load_config(args.config, args.cfg_options)
    options = args.device, args.score_thr, args.batch_size, args.every
    inference.run(cfg, args.checkpoint, args.images, args.out, *options)
