"""Print the design of a network, block by block, with the numbers that scale its signal.

Without arguments: the families and the names in them.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import nn

from nfnet_mm.errors import UserError, did_you_mean

from ..layers import activation_gain
from .arch import FAMILIES, find_network, resolve_arch
from .base import NFBackbone
from .plan import BlockSpec, NFArch, plan_blocks

CLASSES = 1000
LEGEND = """\
A row is one block, or several of one shape: then beta, drop_rate and variance are those of the first and the last, and
  parameters those of each.
width, groups: channels and groups of the 3x3 convs. out_stride: of the block's output, in image pixels.
variance: expected of the block's output, the sum of shortcut and branch before any activation, if all branches keep
  variance. alpha^2 is added by each block; a transition (block 0) resets it to 1 first (NF-ResNets, section 4).
beta: 1 / sqrt(variance of the block's input), so that the branch reads unit variance (NF-ResNets, section 4).
alpha: scale of the branch (NF-ResNets, section 4; NFNets, section 3).
drop_rate: of stochastic depth, the whole network's times index / number of blocks (the authors' code); branches that
  are kept are not rescaled (NF-ResNets, Appendix B.2).
Shapes: NFNets, section 5 and Appendix C; NF-ResNets, section 5.1 (ResNets), section 5.2 and Appendix C (RegNets); timm.
NF-ResNets is arXiv 2101.08692, NFNets arXiv 2102.06171."""


def design(title: str, arch: NFArch, alpha: float = 0.2, drop_path_rate: float = 0.0) -> str:
    """The text that is printed for one network.

    Args:
        title: what the network is called.
        arch: its design.
        alpha, drop_path_rate: see :func:`plan_blocks`.

    Raises:
        UserError: ``alpha`` or ``drop_path_rate`` is out of range.
    """
    plan = plan_blocks(arch, alpha, drop_path_rate)
    with torch.device('meta'):  # for the sizes only
        net = NFBackbone(arch, act='identity', out_indices=(4,))
    pool = ', then 3x3 max pooling of stride 2' if arch.stem_pool else ''
    lines = [
        title,
        f'activation: {arch.act}, its gain {activation_gain(arch.act):.4f} (NF-ResNets, section 4.3); '
        f'attention: {arch.attention or "none"}',
        f'stem: {arch.stem_kernel}x{arch.stem_kernel} convs of {_list(arch.stem_channels)} channels, strides '
        f'{_list(arch.stem_strides)}{pool}; {_parameters(net.stem):,} parameters',
        '',
    ]
    rows = []
    for _, run in groupby(plan, lambda b: (b.stage, b.transition, b.in_channels, b.width)):
        blocks = list(run)
        rows.append(_row(blocks, _parameters(net.stages[blocks[0].stage].get_submodule(str(blocks[0].index)))))
    table = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    lines += ['  '.join(cell.rjust(width) for cell, width in zip(row, widths)) for row in table]
    if net.final_conv is not None:
        count = _parameters(net.final_conv)
        lines += ['', f'final conv: 1x1, {arch.widths[-1]} -> {arch.final_channels} channels; {count:,} parameters']
    total, features = _parameters(net), arch.final_channels or arch.widths[-1]
    lines += [
        '',
        f'total: {len(plan)} blocks, {total:,} parameters; '
        f'{total + (features + 1) * CLASSES:,} with a classifier of {CLASSES} classes',
        '',
        LEGEND,
    ]
    return '\n'.join(lines)


def _row(blocks: Sequence[BlockSpec], parameters: int) -> dict[str, str]:
    """{column: cell} of blocks of one shape."""
    first, last = blocks[0], blocks[-1]

    def span(one: float, other: float, digits: str) -> str:
        texts = [format(one, digits), format(other, digits)]
        return texts[0] if texts[0] == texts[1] else ' .. '.join(texts)

    return dict(
        stage=str(first.stage),
        block=span(first.index, last.index, 'd'),
        channels=f'{first.in_channels} -> {first.out_channels}',
        width=str(first.width),
        groups=str(first.groups),
        stride=str(first.stride),
        out_stride=str(first.out_stride),
        beta=span(first.beta, last.beta, '.4f'),
        alpha=f'{first.alpha:g}',
        drop_rate=span(first.drop_path_rate, last.drop_path_rate, '.4f'),
        variance=span(first.out_variance, last.out_variance, '.4f'),
        parameters=f'{parameters:,}',
    )


def _list(numbers: Sequence[int]) -> str:
    return ', '.join(map(str, numbers))


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _text(args: argparse.Namespace) -> str:
    if args.family in (None, *FAMILIES) and args.arch is None:
        families = FAMILIES if args.family is None else [args.family]
        return '\n'.join(f'{family}: {", ".join(FAMILIES[family][1])}' for family in families)
    if args.arch is None:
        network = find_network(args.family)
        return design(f'{network.family} {network.key}', network.arch, args.alpha, args.drop_path_rate)
    if args.family not in FAMILIES:
        hint = did_you_mean(args.family, FAMILIES)
        raise UserError(f'family {args.family!r} is unknown.{hint} Known: {", ".join(FAMILIES)}')
    arch = resolve_arch(args.family, args.arch)
    return design(f'{args.family} {args.arch}', arch, args.alpha, args.drop_path_rate)


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m nfnet_mm.models.backbones',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('family', nargs='?', help="NFNet, NFResNet or NFRegNet; or a network's full name, nfnet_f0")
    parser.add_argument('arch', nargs='?', help='the name of a network in the family, e.g. F0, 50 or B1')
    parser.add_argument('--alpha', type=float, default=0.2, help='scale of the residual branches (default: 0.2)')
    parser.add_argument('--drop-path-rate', type=float, default=0.0, help='of stochastic depth (default: 0)')
    try:
        print(_text(parser.parse_args(argv)))
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
