"""What training images cost here: the NFNets' pipeline on ImageNet beside mmpretrain's own, in pairs and CPU time."""

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose, default_collate
from mmengine.registry import init_default_scope
from mmpretrain.models.utils import RandomBatchAugment
from mmpretrain.structures import DataSample

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))  # a clone works without installing
from nfnet_mm.engine.total_batch import images_per_sample
from nfnet_mm.tasks.classification.mixing import mixing_collate

MEAN = [104, 116, 124]  # of ImageNet in BGR, as mmpretrain's configs fill with
LOAD = dict(type='LoadImageFromFile')
REST = dict(type='RandomFlip', prob=0.5, direction='horizontal')
OURS = [LOAD, dict(type='nfnet_mm.RandomResizedCrop', scale=224, clip=False), REST, dict(type='PackInputs')]
THEIRS = [
    LOAD,
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    REST,
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
    parser.add_argument('--batch', type=int, default=64, help='images loaded at a time')
    parser.add_argument('--pairs', type=int, default=7)
    parser.add_argument('--ops', type=int, default=4, help='of RandAugment; 0 for none on our side')
    parser.add_argument('--magnitude', type=int, default=5, help='of RandAugment')
    return parser.parse_args()


def write_photos(folder, n):
    """JPEGs of about 500 x 375 pixels: noise of all scales, as photos have it, in quality 90."""
    random = np.random.default_rng(0)
    paths = []
    for i in range(n):
        height, width = (int(side * random.uniform(0.9, 1.1)) for side in (375, 500))
        photo = np.full((height, width, 3), 128.0)
        for side in (4, 8, 16, 32, 64, 128):
            noise = random.normal(0, 100 / side**0.5, (side, side, 3))
            photo += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        paths.append(os.path.join(folder, f'{i}.jpg'))
        cv2.imwrite(paths[-1], photo.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def main():
    args = parse_args()
    cv2.setNumThreads(0)  # as in a data worker
    torch.set_num_threads(1)
    init_default_scope('mmpretrain')
    ours, theirs = Compose(OURS), Compose(THEIRS)
    randaugment = dict(magnitude=args.magnitude, num_ops=args.ops) if args.ops else None
    collate = partial(mixing_collate, num_classes=1000, randaugment=randaugment)
    mix = RandomBatchAugment([dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)])

    def load(pipeline, paths):
        return [pipeline(dict(img_path=path, gt_label=i % 1000)) for i, path in enumerate(paths)]

    def our_batch(paths):
        return collate(load(ours, paths))['inputs']

    def their_batch(paths):
        batch = default_collate(load(theirs, paths))
        scores = torch.nn.functional.one_hot(
            torch.cat([sample.gt_label for sample in batch['data_samples']]), 1000
        ).float()
        inputs, scores = mix(batch['inputs'].float(), scores)
        [DataSample().set_gt_score(score) for score in scores]
        return inputs

    with tempfile.TemporaryDirectory() as folder:
        paths = write_photos(folder, args.batch)

        def seconds(make):
            began = time.process_time()
            made = len(make(paths))
            return time.process_time() - began, made

        pairs = [(seconds(our_batch), seconds(their_batch)) for _ in range(args.pairs + 1)][1:]  # the first warms up
    ratios = sorted(theirs / ours for (ours, _), (theirs, _) in pairs)
    us, them = (args.batch / statistics.median(pair[side][0] for pair in pairs) for side in range(2))
    ratio, each = statistics.median(ratios), images_per_sample(collate)
    print(
        f'{us:.1f} images/s, mmpretrain {them:.1f}, per CPU second of one process; ratio per image {ratio:.3f} (median '
        f'of {args.pairs} pairs, {ratios[0]:.3f} to {ratios[-1]:.3f}), per trained sample {ratio / each:.3f}'
    )


if __name__ == '__main__':
    main()
