"""Evaluate a checkpoint with any config of mmdet, mmseg, mmpretrain or plain mmengine."""

import argparse
import os
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))  # a clone works without installing
from nfnet_mm import run


@run.one_line_errors
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
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
    args = run.parse_args(parser)
    cfg = run.load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    if '://' not in args.checkpoint:
        run.check_exists(args.checkpoint, 'checkpoint')
    cfg.load_from, cfg.resume = args.checkpoint, False  # a resumed run's config says otherwise
    run.show_predictions(cfg, args.show, args.show_dir, args.wait_time)
    if args.tta:
        run.use_tta(cfg)
    run.check_coco_files(cfg, ('test',))
    run.prepare_launcher(cfg)
    runner = run.build_runner(cfg)
    run.require_whole(runner, args.allow_missing)
    if args.out:
        run.dump_predictions(runner, args.out)
    runner.test()


if __name__ == '__main__':
    main()
