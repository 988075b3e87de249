"""Train any config of mmdet, mmseg, mmpretrain or plain mmengine."""

import argparse

from nfnet_mm import run as runs

from .command_line import add_run_options, load_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='last',
        metavar='auto|PATH',
        help="go on from this checkpoint, or from the work folder's last whole one; with auto, begin if there is none",
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision, by the wrapper that else does what the configured one does'
    )
    add_run_options(parser)


def run(args: argparse.Namespace) -> None:
    """Train."""
    cfg = load_config(args)
    runs.use_resume(cfg, args.resume)
    if args.amp:
        runs.use_amp(cfg)
    runs.check_amp_device(cfg)
    runs.check_coco_files(cfg, ('train', 'val') if cfg.get('val_cfg') else ('train',))
    runs.prepare_launcher(cfg)
    runner = runs.build_runner(cfg)
    runs.require_whole(runner, allow_missing=not cfg.get('resume'))
    runner.train()
