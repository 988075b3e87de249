"""What SAM costs here: a training step with it over one without, in pairs; on a CPU, in CPU time."""

import argparse
import os
import statistics
import sys
import time
from types import SimpleNamespace

import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))  # a clone works without installing
from nfnet_mm.engine.sam import SAMHook


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--arch', default='F0', help='of NFNet')
    parser.add_argument('--batch', type=int, default=10)
    parser.add_argument('--size', type=int, default=128, help='of the images, in pixels')
    parser.add_argument('--fraction', type=float, default=0.2, help='of the batch, for the ascent')
    parser.add_argument('--pairs', type=int, default=5)
    parser.add_argument('--amp', action='store_true', help='bfloat16')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    return parser.parse_args()


def build(arch, amp, device):
    """A classifier in training mode with the recipe's optimizer, as a runner would hold them."""
    backbone = MODELS.build(dict(type='nfnet_mm.NFNet', arch=arch, out_indices=(4,), drop_path_rate=0.25))
    head = dict(type='nfnet_mm.NFClsHead', num_classes=1000, in_channels=backbone.out_channels[-1])
    neck = dict(type='mmpretrain.GlobalAveragePooling')
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck, head=head))
    model.to(device).train()
    cfg = dict(
        type='nfnet_mm.AGCOptimWrapper',
        constructor='nfnet_mm.NFOptimWrapperConstructor',
        optimizer=dict(type='SGD', lr=1e-3, momentum=0.9, nesterov=True, weight_decay=2e-5),
    )
    if amp:
        cfg.update(type='nfnet_mm.AmpAGCOptimWrapper', dtype='bfloat16')
    return SimpleNamespace(model=model, optim_wrapper=build_optim_wrapper(model, cfg))


def main():
    args = parse_args()
    from mmpretrain.structures import DataSample

    runner = build(args.arch, args.amp, args.device)
    hook = SAMHook(fraction=args.fraction)
    clock = time.process_time if args.device == 'cpu' else time.perf_counter  # CPU time feels other loads less
    images = torch.randn(args.batch, 3, args.size, args.size)

    def seconds():
        batch = dict(inputs=images, data_samples=[DataSample().set_gt_label(i % 1000) for i in range(args.batch)])
        began = clock()
        runner.model.train_step(batch, runner.optim_wrapper)
        if args.device.startswith('cuda'):
            torch.cuda.synchronize()
        return clock() - began

    plain, sam = [], []
    for _ in range(args.pairs + 1):
        hook.after_train(runner)
        plain.append(seconds())
        hook.before_train(runner)
        sam.append(seconds())
    ratios = sorted(b / a for a, b in zip(plain[1:], sam[1:]))  # without the first pair, which warms up
    print(
        f'NFNet-{args.arch}, batch {args.batch}, {args.size} px, {args.device}: '
        f'{1e3 * min(plain[1:]):.1f} ms a step, {1e3 * min(sam[1:]):.1f} with SAM on {args.fraction:g} of the batch; '
        f'ratio {statistics.median(ratios):.3f} (median of {args.pairs} pairs, {ratios[0]:.3f} to {ratios[-1]:.3f})'
    )


if __name__ == '__main__':
    main()
