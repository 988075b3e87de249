"""Generate the digits, train Mask R-CNN on an NFNet with AGC on them, evaluate, and draw what it found."""
import argparse
import os
import sys
from pathlib import Path

# Threads that wait by spinning lose most of the time to each other where the cores are shared: 0.45 s per iteration
# became 2.0 s beside one other busy process. Read when torch loads, therefore before it.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

from mmengine import DictAction  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # a clone works without installing
from nfnet_mm.demo import digits, report  # noqa: E402
from nfnet_mm.utils import running  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', default=str(ROOT / 'configs/demo/mask_rcnn_nfnet_nano_digits.py'))
    parser.add_argument('--data', default='data/digits', help='folder of the generated pictures (%(default)s)')
    parser.add_argument('--work-dir', default='work_dirs/demo', help='folder of everything else (%(default)s)')
    parser.add_argument('--pictures', type=int, default=16, help='validation pictures to draw (%(default)s)')
    parser.add_argument('--train', type=int, default=2000, help='training pictures (%(default)s)')
    parser.add_argument('--val', type=int, default=200, help='validation pictures (%(default)s)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='replace values of the config, by dotted key')
    return parser.parse_args()


@running.one_line_errors
def main():
    args = parse_args()
    print(f'1/4 pictures: {args.train} to train on, {args.val} to validate, in {args.data}', flush=True)
    try:
        digits.generate(args.data, digits.DigitsSpec(train=args.train, val=args.val))
    except (ImportError, OSError, ValueError) as error:
        raise running.UserError(error) from error
    cfg = running.load_config(args.config, None, args.work_dir)
    running.use_data_root(cfg, args.data)
    cfg.merge_from_dict(args.cfg_options or {})
    print(f'2/4 training: {cfg.train_cfg.max_iters} iterations', flush=True)
    runner = running.build_runner(cfg)
    runner.train()
    print(f'3/4 drawing {args.pictures} predictions and the curves', flush=True)
    pictures = report.draw(runner, Path(args.work_dir) / 'pictures', args.pictures)
    print('4/4 done', flush=True)
    print(report.summary(runner, pictures), flush=True)


if __name__ == '__main__':
    main()
