"""What training images cost here, step by step, and how many workers feed a GPU; in CPU time, on made-up photos."""

import argparse
import os
import statistics
import sys
import tempfile
import time

import torch

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))  # a clone works without installing
from nfnet_mm.commands.command_line import one_line_errors
from nfnet_mm.errors import check_number, check_positive
from nfnet_mm.pack import address, write_pack
from nfnet_mm.run import load_config
from nfnet_mm.training_cost.loading import loading_cost, reading_cost, write_photos

CONFIGS = ['imagenet/nfnet_f0.py', 'imagenet/nf_resnet50.py']
MEAN = [104, 116, 124]  # of ImageNet in BGR, as mmpretrain's configs fill with
THEIRS = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=MEAN, interpolation='bicubic'),
    ),
    dict(type='PackInputs'),
]


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    shipped = [f'nfnet_mm::{name}' for name in CONFIGS]
    parser.add_argument('configs', nargs='*', default=shipped, help='of classifiers (default: %(default)s)')
    parser.add_argument('--samples-per-second', type=float, default=1000, help='that the GPU trains on')
    parser.add_argument('--images', type=int, default=64, help='photos that are made up; one batch')
    parser.add_argument('--repeats', type=int, default=7)
    parser.add_argument('--against-mmpretrain', action='store_true', help="beside mmpretrain's own recipe, in pairs")
    return parser.parse_args()


@one_line_errors
def main():
    args = parse_args()
    check_positive('--images', args.images)
    check_positive('--repeats', args.repeats)
    check_number('--samples-per-second', args.samples_per_second, '(0, inf)')
    with tempfile.TemporaryDirectory() as folder:
        photos = os.path.join(folder, 'photos')
        os.mkdir(photos)
        paths = write_photos(photos, args.images)
        size = statistics.mean(map(os.path.getsize, paths))
        print(f'{args.images} photos of {size / 1e3:.0f} kB; milliseconds of CPU time for each that is loaded')
        write_pack(photos, f'{folder}/photos.tar')
        packed = [address(f'{folder}/photos.tar') + os.path.basename(path) for path in paths]
        print(f'read: {reading_cost(paths) * 1e3:.3f} from files, {reading_cost(packed) * 1e3:.3f} from a pack')
        for name in args.configs:
            cfg = load_config(name)
            show(name, loading_cost(cfg, paths, args.repeats), args.samples_per_second)
            if args.against_mmpretrain:
                compare(cfg, paths, args.repeats)


def show(name, cost, rate):
    steps = ', '.join(f'{step} {seconds * 1e3:.2f}' for step, seconds in cost.steps.items())
    print(f'{name}: {steps}')
    two = ' (each mixed from two)' if cost.images_per_sample == 2 else ''
    need = f'{cost.workers(rate)} workers feed {rate:g} samples{two} a second'
    print(f'  {cost.images_per_second:.0f} images a second per worker; {need}')


def compare(cfg, paths, repeats):
    """Beside mmpretrain's pipeline for ResNets, with its mixing on the device counted in."""
    from mmpretrain.models.utils import RandomBatchAugment

    theirs = load_config('nfnet_mm::imagenet/nf_resnet50.py')
    theirs.train_dataloader.dataset.pipeline = THEIRS
    mix = RandomBatchAugment([dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)])

    def mixing():
        began = time.process_time()
        mix(torch.zeros(len(paths), 3, 224, 224), torch.zeros(len(paths), 1000))
        return (time.process_time() - began) / len(paths)

    ratios = []
    for _ in range(repeats):
        ours, other = (loading_cost(one, paths, 1) for one in (cfg, theirs))
        ratios.append((1 / other.images_per_second + mixing()) * ours.images_per_second)
    ratio, each = statistics.median(ratios), ours.images_per_sample
    spread = f'{min(ratios):.2f} to {max(ratios):.2f}'
    print(f'  mmpretrain takes {ratio:.2f} times as long for an image ({spread}), {ratio / each:.2f} for a sample')


if __name__ == '__main__':
    main()
