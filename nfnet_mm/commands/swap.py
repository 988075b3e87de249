"""Replace the ResNet of any config of mmdet, mmseg or mmpretrain by a normalizer-free backbone trained with AGC.

Writes a short config that inherits the original, and prints what it changes; what cannot be converted is refused.
"""

import argparse
from pathlib import Path

from nfnet_mm.errors import check_exists
from nfnet_mm.models.backbones.arch import find_network
from nfnet_mm.named_configs import find_config
from nfnet_mm.swap import config_files, swap


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('config', help='config file, or mmdet::..., mmseg::..., mmpretrain::... of the installed ones')
    parser.add_argument(
        '--backbone',
        required=True,
        help="nfnet_f0, nf_resnet50, nf_regnet_b1, eca_nfnet_l0, ...; timm/nf_resnet50 is timm's network of that name",
    )
    parser.add_argument('-o', '--out', help="file to write (default: the config's name with the backbone in it, here)")
    parser.add_argument('--weights', help="file to start the backbone from: DeepMind's, timm's or ours")
    parser.add_argument('--clipping', type=float, default=0.01, help="AGC's; small batches bear more (default: 0.01)")
    parser.add_argument(
        '--strict',
        action='store_true',
        help='refuse deformable convs and plugins instead of leaving them out with a warning',
    )
    parser.add_argument('--force', action='store_true', help='replace the output if it exists')


def run(args: argparse.Namespace) -> None:
    """Write the new config, and say what it changes."""
    backbone = find_network(args.backbone).name
    if args.weights and '://' not in args.weights:
        check_exists(args.weights, 'weights')
    source = find_config(args.config)
    old = config_files.read_config(source.path)
    new, notes = swap.swap_config(old, backbone, args.weights, args.clipping, args.strict)
    target = Path(args.out or config_files.default_name(source.path, backbone))
    title = f'{source.path.stem} with {backbone} as its backbone, trained with AGC.'
    config_files.write_config(target, source, old, new, title, notes, args.force)
    print('\n'.join([*notes, f'wrote {target}']))
