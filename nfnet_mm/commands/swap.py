"""Replace the ResNet of any config of mmdet, mmseg or mmpretrain by a normalizer-free backbone trained with AGC.

Writes a short config that inherits the original, and prints what it changes; what cannot be converted is refused.
"""

import argparse
from pathlib import Path

from nfnet_mm.converters.load import load_weights
from nfnet_mm.models.backbones.arch import find_network
from nfnet_mm.named_configs import find_config
from nfnet_mm.swap import config_files, swap
from nfnet_mm.swap.weights import absolute, check_start, choose_network, image_channels

from .command_line import CONFIG_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument(
        '--backbone',
        required=True,
        help="nfnet_f0, nf_resnet50, nf_regnet_b1, eca_nfnet_l0, ...; timm/nf_resnet50 is timm's network of that name",
    )
    parser.add_argument('-o', '--out', help="file to write (default: the config's name with the backbone in it, here)")
    parser.add_argument(
        '--weights',
        help="what the backbone starts from: a name such as deepmind/F0, an address, or a file of DeepMind's, timm's "
        'or ours; read, and held against the backbone',
    )
    parser.add_argument('--clipping', type=float, default=0.01, help="AGC's; small batches bear more (default: 0.01)")
    parser.add_argument(
        '--strict',
        action='store_true',
        help='refuse deformable convs and plugins instead of leaving them out with a warning',
    )
    parser.add_argument('--force', action='store_true', help='replace the output if it exists')


def run(args: argparse.Namespace) -> None:
    """Write the new config, and say what it changes."""
    network, weights = find_network(args.backbone), None
    source = find_config(args.config)
    old = config_files.read_config(source.path)
    told: list[str] = []
    if args.weights:
        weights = load_weights(args.weights)
        network, told = choose_network(network, args.weights, weights)
    start = absolute(args.weights) if args.weights else None
    channels = image_channels(weights) if weights else 3
    new, notes = swap.swap_config(old, network.name, start, args.clipping, args.strict, channels)
    if weights:
        check_start(new, weights)
    target = Path(args.out or config_files.default_name(source.path, network.name))
    title = f'{source.path.stem} with {network.name} as its backbone, trained with AGC.'
    config_files.write_config(target, source, old, new, title, [*told, *notes], args.force)
    print('\n'.join([*told, *notes, f'wrote {target}']))
