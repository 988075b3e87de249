"""Score public weights as they are: converted in memory, and only by the network that they are of."""

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from nfnet_mm.converters.load import Weights, load_weights
from nfnet_mm.converters.recognise import SOURCES, describe_network, is_run_checkpoint, networks_of
from nfnet_mm.errors import UserError, some
from nfnet_mm.models.backbones.arch import FAMILIES, Network, find_network, network_names
from nfnet_mm.registry import MODELS, type_name

_STEM, _GAIN, _HEAD = 'backbone.stem.conv0.weight', 'backbone.stem.conv0.gain', 'head.fc.weight'


def use_public_weights(cfg: Config, path: str, allow_missing: bool = False) -> None:
    """Let a run of a config load a file of DeepMind's or timm's weights, or a converted one, as its checkpoint.

    Whoever loads ``path`` by mmengine's ``CheckpointLoader`` gets it read by this package's safe readers, under our
    names. A file that is neither, a run's own checkpoint of any framework, is left to mmengine.

    Args:
        cfg: the config; not changed.
        path: an existing file.
        allow_missing: take a model that is no classifier, too.

    Raises:
        UserError: the file is unreadable, or of another network, dialect or number of classes or image channels than
            the model; one line that names both.
    """
    if is_run_checkpoint(path):
        return
    weights = _fitting(cfg, path, allow_missing)

    def load_from_public_weights(filename: str, map_location: Any = None) -> dict[str, Any]:
        return _converted(weights, filename)

    CheckpointLoader.register_scheme(rf'{re.escape(path)}\Z', load_from_public_weights, force=True)


def read_public_weights(cfg: Config, path: str) -> dict[str, Any]:
    """What a run of a config would load of such a file, after the same checks."""
    return _converted(_fitting(cfg, path, allow_missing=False), path)


def _fitting(cfg: Config, path: str, allow_missing: bool) -> Weights:
    weights = load_weights(path)
    _check_model(cfg.get('model') or {}, weights, path, allow_missing)
    return weights


def _converted(weights: Weights, path: str) -> dict[str, Any]:
    """A checkpoint of weights, as mmengine's runner loads one; the log says what they were."""
    print_log(f'{os.fspath(path)!r} holds {_told(weights)}: converted in memory', 'current')
    return dict(state_dict=dict(weights.state_dict), meta=dict(dialect=weights.dialect))


def _told(weights: Weights) -> str:
    dialect = f' (dialect {weights.dialect})' if _GAIN in weights.state_dict else ''
    return f'{SOURCES[weights.source]} of {describe_network(weights)}{dialect}'


def _check_model(model: Mapping[str, Any], weights: Weights, path: str, allow_missing: bool) -> None:
    """Raise a UserError unless a model's config is that of the classifier whose weights these are."""
    holds, backbone, head = f'{path!r} holds {_told(weights)}', model.get('backbone'), model.get('head')
    if not isinstance(backbone, dict) or type_name(backbone) not in FAMILIES:
        kind = type_name(backbone) if isinstance(backbone, dict) else backbone
        raise UserError(f"{holds}, and model.backbone of the config is {kind!r}, none of this package's networks")
    _check_backbone(backbone, weights, holds)
    if not isinstance(head, dict):
        if not allow_missing:
            what = f'{type_name(model)}, which has more parts than that: train it from them, by model.backbone.init_cfg'
            raise UserError(f'{holds}, and the model of the config is a {what}')
    elif _HEAD in weights.state_dict:
        classes = weights.state_dict[_HEAD].shape[0]
        if head.get('num_classes', classes) != classes:
            raise UserError(f'{holds} for {classes} classes, and model.head.num_classes={head["num_classes"]}')


def _check_backbone(backbone: dict[str, Any], weights: Weights, holds: str) -> None:
    with torch.device('meta'):  # names and shapes only
        net = MODELS.build({key: value for key, value in backbone.items() if key != 'init_cfg'})
    want = {f'backbone.{key}': tuple(value.shape) for key, value in net.state_dict().items()}
    have = {key: tuple(value.shape) for key, value in weights.state_dict.items()}
    missing = want.keys() - have.keys()
    other = [key for key in want if key in have and have[key] != want[key] and key != _STEM]
    other_dialect = net.arch.method == 'nf' and net.arch.dialect != weights.dialect
    found = networks_of(weights)
    if other or other_dialect or (found and net.arch not in [network.arch for network in found]):
        own = [network.name for network in map(find_network, network_names()) if network.arch == net.arch]
        name = own[0] if own else f'{type_name(backbone)} in a design that has no name (dialect {net.arch.dialect})'
        name += f', with another shape of {some(other)}' if other and not own else ''
        instead = _instead(found)
        if other_dialect and not (other or missing) and weights.source == 'timm':
            instead += '; or converted with --dialect timm, for what timm computes with them'
        raise UserError(f'{holds}, and model.backbone of the config is {name}{instead}')
    if missing:
        raise UserError(f'{holds}, but without {len(missing)} weights of the model: {some(missing)}')
    if have[_STEM] != want[_STEM]:
        trained, given = have[_STEM][1], want[_STEM][1]
        raise UserError(f'{holds} for images of {trained} channels, and model.backbone.in_channels={given}')


def _instead(found: list[Network]) -> str:
    if not found:
        return ''
    arguments = ', '.join(f'{key}={value!r}' for key, value in found[0].cfg.items())
    return f'; they are scored by model.backbone=dict({arguments}, ...)'
