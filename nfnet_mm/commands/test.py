"""Evaluate a checkpoint with any config of mmdet, mmseg, mmpretrain or plain mmengine."""

import argparse
import re

from nfnet_mm import run as runs
from nfnet_mm.converters.hub import local_file

from .command_line import add_run_options, load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint',
        help="checkpoint: a file or an address; for a classifier also DeepMind's or timm's weights, by name too",
    )
    parser.add_argument('--out', help='write the predictions to this .pkl file')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='write pictures of the predictions into this folder')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds a window stays')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation, as the config's tta_* keys say")
    parser.add_argument(
        '--allow-missing',
        action='store_true',
        help='score a model also if the checkpoint lacks weights of it or holds others besides',
    )
    add_run_options(parser)


def run(args: argparse.Namespace) -> None:
    """Evaluate."""
    cfg = load_config(args)
    if re.match('(?!https?:)[a-z0-9-]+://', args.checkpoint) is None:  # others are mmengine's to find
        args.checkpoint = local_file(args.checkpoint, 'checkpoint')
        runs.use_public_weights(cfg, args.checkpoint, args.allow_missing)
    cfg.load_from, cfg.resume = args.checkpoint, False  # a resumed run's config says otherwise
    runs.show_predictions(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        runs.use_tta(cfg)
    runs.check_coco_files(cfg, ('test',))
    runs.prepare_launcher(cfg)
    runner = runs.build_runner(cfg)
    runs.require_whole(runner, args.allow_missing)
    if args.out:
        runs.dump_predictions(runner, args.out)
    runner.test()
