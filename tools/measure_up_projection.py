"""Time the up-projections of the depth head against unpooling and 5x5 convs, on one 304 x 228 image's last feature.

Each round times both forms one after the other, so that a busy machine slows both; the median of the rounds' ratios is
what counts. Both have the same weights and plain convs with BatchNorm.
"""

import argparse
import copy
import os
import statistics
import sys
import time

import torch
from torch import nn

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))  # a clone works without installing
from nfnet_mm.tasks.depth import UpProjectionHead, unpool


class PlainUp(nn.Module):
    """Unpooling and one 5x5 conv, its kernel at hand."""

    def __init__(self, up):
        super().__init__()
        kernel = up.kernel().detach()
        self.conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], 5, padding=2, bias=False)
        self.conv.weight.data = kernel

    def forward(self, x):
        return self.conv(unpool(x))


def timed(blocks, x, train, device):
    """Seconds of one pass, and its output."""

    def synchronize():
        if device == 'cuda':
            torch.cuda.synchronize()

    synchronize()
    start = time.perf_counter()
    with torch.set_grad_enabled(train):
        out = x
        for block in blocks:
            out = block(out)
        if train:
            out.sum().backward()
    synchronize()
    seconds = time.perf_counter() - start
    for parameter in blocks.parameters():
        parameter.grad = None
    return seconds, out.detach()


def measure(batch, rounds, device):
    """Yield (train, ratios, plain seconds, fast seconds, relative difference of the outputs), without and with a
    backward pass; the first round warms up and is left out."""
    torch.manual_seed(0)
    fast = UpProjectionHead(in_channels=2048, norm_cfg=dict(type='BN')).blocks.to(device)
    plain = copy.deepcopy(fast)
    for block in plain:
        block.up = PlainUp(block.up).to(device)
    x = torch.randn(batch, 1024, 8, 10, device=device)
    for train in (False, True):
        fast.train(train)
        plain.train(train)
        seconds = []
        for _ in range(rounds + 1):
            (slow, expected), (quick, out) = (timed(blocks, x, train, device) for blocks in (plain, fast))
            seconds.append((slow, quick))
        slow, quick = zip(*seconds[1:])
        error = ((out - expected).norm() / expected.norm()).item()
        yield train, [a / b for a, b in zip(slow, quick)], slow, quick, error


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--batch', type=int, default=1, help='images (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=7, help='pairs of runs (default: %(default)s)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    for train, ratios, slow, quick, error in measure(args.batch, args.rounds, args.device):
        print(
            f'{"forward + backward" if train else "forward"}: plain {1e3 * statistics.median(slow):.1f} ms, '
            f'interleaved {1e3 * statistics.median(quick):.1f} ms, plain / interleaved '
            f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); relative difference '
            f'{error:.1e}'
        )


if __name__ == '__main__':
    main()
