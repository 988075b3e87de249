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
from nfnet_mm.registry import MODELS

from ..layers import activation_gain
from .arch import FAMILIES, find_network, resolve_arch
from .plan import plan_blocks

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


# What a row tells of a block; where the first and the last of a row differ, both are printed.
COLUMNS = dict(
    stage='{0.stage}',
    block='{0.index}',
    channels='{0.in_channels} -> {0.out_channels}',
    width='{0.width}',
    groups='{0.groups}',
    stride='{0.stride}',
    out_stride='{0.out_stride}',
    beta='{0.beta:.4f}',
    alpha='{0.alpha:g}',
    drop_rate='{0.drop_path_rate:.4f}',
    variance='{0.out_variance:.4f}',
)
NORMALIZER_FREE = ('beta', 'alpha', 'variance')  # columns of these networks only
METHODS = dict(bn='BatchNorm', fixup='FixUp', skipinit='SkipInit')


def design(family: str, key: str, alpha: float = 0.2, drop_path_rate: float = 0.0) -> str:
    """The text that is printed for a network of a family, see :func:`plan_blocks` for the numbers."""
    arch = resolve_arch(family, key)
    plan = plan_blocks(arch, alpha, drop_path_rate)
    with torch.device('meta'):  # for the sizes only
        net = MODELS.build(dict(type=f'nfnet_mm.{family}', arch=arch, act='identity', out_indices=(4,)))
    columns = {k: v for k, v in COLUMNS.items() if arch.method == 'nf' or k not in NORMALIZER_FREE}
    table = [[*columns, 'parameters']]
    for _, run in groupby(plan, lambda b: (b.stage, b.transition, b.in_channels, b.width)):
        blocks = list(run)
        module = net.stages[blocks[0].stage].get_submodule(str(blocks[0].index))
        ends = [dict.fromkeys(text.format(block) for block in (blocks[0], blocks[-1])) for text in columns.values()]
        table.append([*map(' .. '.join, ends), f'{_parameters(module):,}'])
    widths = [max(map(len, column)) for column in zip(*table)]

    channels, strides = (', '.join(map(str, numbers)) for numbers in (arch.stem_channels, arch.stem_strides))
    pool = ', then 3x3 max pooling of stride 2' if arch.stem_pool else ''
    scaled = f'its gain {activation_gain(arch.act):.4f} (NF-ResNets, section 4.3)'
    lines = [
        f'{family} {key}',
        f'activation: {arch.act}, {scaled if arch.method == "nf" else f"with {METHODS[arch.method]}"}; '
        f'attention: {arch.attention or "none"}',
        f'stem: {arch.stem_kernel}x{arch.stem_kernel} convs of {channels} channels, strides {strides}{pool}; '
        f'{_parameters(net.stem):,} parameters\n',
        *('  '.join(cell.rjust(width) for cell, width in zip(row, widths)) for row in table),
    ]
    if net.final_conv is not None:
        conv = f'1x1, {arch.widths[-1]} -> {arch.final_channels} channels'
        lines.append(f'\nfinal conv: {conv}; {_parameters(net.final_conv):,} parameters')
    total = _parameters(net)
    whole = f'{total + (net.out_channels[0] + 1) * CLASSES:,} with a classifier of {CLASSES} classes'
    return '\n'.join([*lines, f'\ntotal: {len(plan)} blocks, {total:,} parameters; {whole}\n', LEGEND])


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _text(args: argparse.Namespace) -> str:
    family, key = args.family, args.arch
    if key is None and family in (None, *FAMILIES):
        families = FAMILIES if family is None else [family]
        return '\n'.join(f'{family}: {", ".join(FAMILIES[family][1])}' for family in families)
    if key is None:
        family, key = find_network(family)
    elif family not in FAMILIES:
        hint = did_you_mean(family, FAMILIES)
        raise UserError(f'family {family!r} is unknown.{hint} Known: {", ".join(FAMILIES)}')
    return design(family, key, args.alpha, args.drop_path_rate)


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the command line asks for; the exit status."""
    prog, as_it_is = 'python -m nfnet_mm.models.backbones', argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=as_it_is)
    parser.add_argument('family', nargs='?', help="NFNet, NFResNet, ...; or a network's full name, nfnet_f0")
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
