"""The weights that a swapped backbone starts from: which network they are of, and whether every part gets its own."""

import os
from typing import Any

import torch

from nfnet_mm.converters.initializer import NFPretrained
from nfnet_mm.converters.load import Weights
from nfnet_mm.converters.recognise import describe_network, networks_of
from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones.arch import Network
from nfnet_mm.registry import MODELS

from .tree import type_name, walk

_STEM = 'backbone.stem.conv0.weight'


def choose_network(asked: Network, path: str, weights: Weights) -> tuple[Network, list[str]]:
    """The network that weights are of: the one asked for, or its namesake, the paper's or timm's.

    Args:
        asked: the network.
        path: where the weights are from, for messages.
        weights: what was read there.

    Returns:
        the network, and notes on what was chosen.

    Raises:
        UserError: they are of another network; the message names both.
    """
    found = networks_of(weights)
    if asked in found:
        return asked, []
    for network in found:
        if _bare_name(network) == _bare_name(asked):
            whose = f'{path!r} holds the weights of {network.name}'
            return network, [f'{whose}, which is taken in place of its namesake {asked.name}']
    name = f': --backbone {found[0].name} takes them' if found and found[0].arch.method == 'nf' else ''
    raise UserError(f'weights {path!r} are of {describe_network(weights)}, not of {asked.name}{name}')


def _bare_name(network: Network) -> str:
    return network.name.removeprefix('timm/').removeprefix('dm_')


def image_channels(weights: Weights) -> int:
    """The channels of the images that weights were trained with."""
    return weights.state_dict[_STEM].shape[1]


def check_start(cfg: dict[str, Any], weights: Weights) -> None:
    """Hold weights against every part of a swapped config's model that starts from them.

    Raises:
        UserError: they lack something that a part needs; the message names it.
    """
    for item in walk(cfg['model']):
        start = item.value.get('init_cfg') if isinstance(item.value, dict) else None
        if not isinstance(start, dict) or type_name(start) != 'NFPretrained':
            continue
        with torch.device('meta'):  # names and shapes only
            module = MODELS.build({key: value for key, value in item.value.items() if key != 'init_cfg'})
        try:
            NFPretrained(**{key: value for key, value in start.items() if key != 'type'}).fit(module, weights)
        except UserError as error:
            raise UserError(f'model.{item.path}: {error}') from None


def absolute(path: str) -> str:
    """The path of what exists from the root, so that a config finds it from any folder; names and URLs stay."""
    return os.path.abspath(path) if os.path.exists(path) else path
