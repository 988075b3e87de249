"""Evaluate a checkpoint with any config of mmdet, mmseg, mmpretrain or plain mmengine."""

import argparse
import re

from mmengine.fileio import dump

from nfnet_mm import run as runs
from nfnet_mm.converters.hub import local_file

from .command_line import CONFIG_HELP, add_instead, add_run_options, load_config

# What other test tools have, and what does it here.
INSTEAD = {
    '--eval': "the config's test_evaluator, e.g. --cfg-options test_evaluator.metric=bbox",
    '--eval-options': '--cfg-options test_evaluator.KEY=VALUE',
    '--metrics': '--cfg-options test_evaluator.KEY=VALUE',
    '--format-only': '--cfg-options test_evaluator.format_only=True test_evaluator.outfile_prefix=FOLDER/NAME',
    '--dump': '--out FILE.pkl',
    '--show-score-thr': '--cfg-options default_hooks.visualization.score_thr=NUMBER',
    '--opacity': '--cfg-options visualizer.alpha=NUMBER',
    '--aug-test': '--tta',
    '--gpu-collect': '--cfg-options test_evaluator.collect_device=gpu',
    '--gpu-id': 'CUDA_VISIBLE_DEVICES=N in the environment',
    '--options': '--cfg-options KEY=VALUE',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument(
        'checkpoint',
        help="checkpoint: a file or an address; for a classifier also DeepMind's or timm's weights, by name too",
    )
    parser.add_argument('--out', help='write the predictions to this .pkl file, or what --out-item names')
    parser.add_argument(
        '--out-item',
        choices=['pred', 'metrics'],
        help='what --out writes: predictions (default), or metrics, to a .json, .yaml or .pkl file',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='write pictures of the predictions into this folder')
    parser.add_argument('--interval', type=int, default=1, help='of the pictures, show or write every so many')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds a window stays')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation, as the config's tta_* keys say")
    parser.add_argument(
        '--allow-missing',
        action='store_true',
        help='score a model also if the checkpoint lacks weights of it or holds others besides',
    )
    parser.add_argument(
        '--no-fold',
        action='store_true',
        help='standardise the weights anew for every batch, not once: same up to rounding',
    )
    add_run_options(parser)
    add_instead(parser, INSTEAD)


def run(args: argparse.Namespace) -> None:
    """Evaluate."""
    cfg = load_config(args)
    if re.match('(?!https?:)[a-z0-9-]+://', args.checkpoint) is None:  # others are mmengine's to find
        args.checkpoint = local_file(args.checkpoint, 'checkpoint')
        runs.use_public_weights(cfg, args.checkpoint, args.allow_missing)
    cfg.load_from, cfg.resume = args.checkpoint, False  # a resumed run's config says otherwise
    runs.check_out(args.out, args.out_item)
    if args.tta:
        runs.use_tta(cfg)
    if args.amp:
        runs.use_amp_in_test(cfg)
    runs.set_loaders(cfg, not args.no_pin_memory)
    runs.check_data(cfg, ('test',))
    runs.prepare_launcher(cfg)
    runner = runs.build_runner(cfg)
    runs.check_labels(runner)
    runs.require_whole(runner, args.allow_missing)
    if not args.no_fold:
        runs.use_folded(runner)
    runs.show_predictions(runner, args.show, args.show_dir, args.wait_time, args.interval)
    if args.out and args.out_item != 'metrics':
        runs.dump_predictions(runner, args.out)
    metrics = runs.test(runner)
    if args.out and args.out_item == 'metrics' and runner.rank == 0:
        dump(metrics, args.out)
