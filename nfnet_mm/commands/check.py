"""Before training: which block's variance leaves the plan of a normalizer-free backbone, and what usually causes it.

Every backbone of the config is built with random weights and run on noise; it takes seconds and no data. A network
without a plan (any other backbone) is told what keeps its signal in scale, and held against explosion and vanishing.
The exit status is 0 where all is as planned, 1 where something is not, and 2 after a wrong argument or config.
"""

import argparse
import sys
from typing import Any

import torch
from mmengine import Config
from mmengine.registry import init_default_scope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nfnet_mm.analysis.signal_blocks import find_blocks
from nfnet_mm.analysis.signal_check import Finding, check_signal
from nfnet_mm.errors import UserError, check_positive
from nfnet_mm.models.backbones.base import NFBackbone
from nfnet_mm.run import load_config
from nfnet_mm.signal_models import STD, build, find_backbones, noise

from .command_line import CFG_OPTIONS, CONFIG_HELP

_SIZE, _OTHER_SIZE = 64, 224  # px; transformers run on no fewer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument('--batch-size', type=int, default=16, help='images of noise (default: 16)')
    parser.add_argument('--size', type=int, help=f'pixels (default: {_SIZE}, or {_OTHER_SIZE} where there is no plan)')
    parser.add_argument('--cfg-options', **CFG_OPTIONS)


def run(args: argparse.Namespace) -> None:
    """Check, print what was found; exit with status 1 where that is not as planned."""
    batch = check_positive('--batch-size', args.batch_size)
    if args.size is not None:
        check_positive('--size', args.size)
    cfg = load_config(args.config, args.cfg_options)
    backbones = list(find_backbones(cfg))
    if not backbones:
        raise UserError(f'config {args.config!r} has no model.backbone to check')
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    wrong = False
    for key, part in backbones:
        torch.manual_seed(0)
        backbone = build(part)
        channels = getattr(backbone, 'in_channels', 3)
        try:
            find_blocks(backbone)
        except UserError as error:
            print(f'{key}: {error}, so that there is nothing to check')
            continue
        size = args.size or (_SIZE if isinstance(backbone, NFBackbone) else _OTHER_SIZE)
        images = noise(batch, size)[:, [i % 3 for i in range(channels if isinstance(channels, int) else 3)]]
        found = [*_images(cfg, backbone), *check_signal(backbone, images)]
        wrong = wrong or bool(found)
        print('\n'.join([f'{key}: {_told(backbone)}', *(f'  {one}' for one in found)]))
        if found:
            print(f'{key}: {len(found)} place{"s" * (len(found) > 1)} where the signal leaves its scale')
        elif isinstance(backbone, NFBackbone):
            print(f'{key}: every block keeps to the plan')
    sys.exit(1 if wrong else 0)


def _told(backbone: nn.Module) -> str:
    """What the network is, and what keeps its signal in scale."""
    name, count = type(backbone).__name__, len(find_blocks(backbone))
    if isinstance(backbone, NFBackbone):
        return f'{name}, {count} blocks, held against the plan of its blocks'
    norms = [one for one in backbone.modules() if isinstance(one, _BatchNorm)]
    if norms and getattr(backbone, 'norm_eval', False):
        kept = f'{len(norms)} BatchNorms keep its signal in scale, by the averages of a checkpoint (norm_eval)'
    elif norms:
        kept = f'{len(norms)} BatchNorms keep its signal in scale, so that an output in training depends on its batch'
    elif any(isinstance(one, (nn.GroupNorm, nn.LayerNorm)) for one in backbone.modules()):
        kept = 'normalisation of each image keeps its signal in scale'
    else:
        kept = 'it has no normalisation: nothing but its initial weights keeps its signal in scale'
    return f'{name}, {count} blocks, is no normalizer-free network of this package and has no plan; {kept}'


def _images(cfg: Config, backbone: nn.Module) -> list[Finding]:
    """Whether images come to a normalizer-free network at unit variance, where the config says how."""
    given: Any = (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    std = given.get('std')
    if not isinstance(backbone, NFBackbone) or not std:
        return []
    variance = sum((ours / theirs) ** 2 for ours, theirs in zip(STD, std)) / min(len(std), 3)
    if 0.25 < variance < 4:
        return []
    seen = (
        f'the data preprocessor divides by std={list(std)}, so that images come at a variance of about {variance:.3g}'
    )
    return [Finding('images', seen, f'normalizer-free networks want 1: std={list(STD)} for pixels of 0 to 255')]
