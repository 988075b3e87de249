"""Convert public weights (DeepMind's pickles, timm's .pth and .safetensors) to this package's names, or back to timm's.

What the source is, and of which variant, is told from its content; nothing in it is ever run. A sharded
run's checkpoint, a folder, becomes one file, whatever its model is.
"""

import argparse

from nfnet_mm.converters.convert import convert_file, write_one_file
from nfnet_mm.converters.errors import ConversionError
from nfnet_mm.engine.sharded_checkpoint import is_sharded_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('source', help='file of weights, its address, or the name of public ones, e.g. deepmind/F0')
    parser.add_argument('target', help='file to write, .pth or .safetensors')
    parser.add_argument(
        '--arch', help='variant they must be of, e.g. F0 or timm/nf_resnet50 (default: found by the shapes)'
    )
    parser.add_argument(
        '--dialect',
        choices=['authors', 'timm'],
        help='the weight standardisation they were trained with, where the content cannot tell: timm '
        'for a dm_nfnet that was trained further in timm',
    )
    parser.add_argument('--to', choices=['ours', 'timm'], default='ours', help='the names to write (default: ours)')
    parser.add_argument('--force', action='store_true', help='replace the target if it exists')


def run(args: argparse.Namespace) -> None:
    """Convert, and say what was converted."""
    try:
        print(convert_file(args.source, args.target, args.arch, args.dialect, args.to, args.force))
    except ConversionError:
        if args.arch or args.dialect or args.to != 'ours' or not is_sharded_checkpoint(args.source):
            raise
        print(write_one_file(args.source, args.target, args.force))
