"""Train any config of mmdet, mmseg, mmpretrain or plain mmengine."""

import argparse
import os
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))  # a clone works without installing
from nfnet_mm import run


@run.one_line_errors
def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='auto|PATH',
        help="go on from this checkpoint, or from the work folder's last one",
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision, by the wrapper that else does what the configured one does'
    )
    args = run.parse_args(parser)
    cfg = run.load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    run.use_resume(cfg, args.resume)
    if args.amp:
        run.use_amp(cfg)
    run.check_amp_device(cfg)
    run.check_coco_files(cfg, ('train', 'val') if cfg.get('val_cfg') else ('train',))
    run.prepare_launcher(cfg)
    runner = run.build_runner(cfg)
    run.require_whole(runner, allow_missing=not cfg.get('resume'))
    runner.train()


if __name__ == '__main__':
    main()
