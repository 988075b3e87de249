"""The backbones and images that signal propagation is measured of, from what a command line names."""

import ast
import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from .converters.formats.read import read_weights
from .converters.hub import local_file
from .converters.recognise import is_run_checkpoint
from .engine.strict_load import mismatches
from .errors import UserError, short
from .models.backbones.arch import find_network, network_names
from .models.backbones.base import NFBackbone
from .registry import type_name
from .run.config import load_config

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, RGB, as every recipe here has them


def noise(batch: int, size: int, seed: int = 0) -> Tensor:
    """(batch, 3, size, size) of N(0, 1), the same for a seed."""
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def pictures(paths: Sequence[Path], size: int, limit: int) -> Tensor:
    """(N, 3, size, size) of the first files, resized and normalised by ImageNet's statistics.

    Raises:
        UserError: a file is no picture.
    """
    import cv2

    found = []
    for path in paths[:limit]:
        picture = cv2.imread(str(path))
        if picture is None:
            raise UserError(f'{str(path)!r} is no picture that can be read')
        resized = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)[..., ::-1]
        found.append((resized.astype(np.float32) - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()


def build_backbone(name: str) -> nn.Module:
    """The backbone that a name means, with random weights in training mode, or with a checkpoint's in eval mode.

    Args:
        name: a network of the table, the dict of a registered backbone, or a config; with ``@FILE`` behind it the
            weights of a file.

    Raises:
        UserError: there is no such thing, it cannot be built, or the weights are not of it.
    """
    what, _, checkpoint = name.partition('@')
    if what.lstrip().startswith(('dict(', '{')):
        cfg = _parsed(what)
    elif what.lower() in network_names():
        cfg = find_network(what).cfg
    else:
        loaded = load_config(what)
        backbones = list(find_backbones(loaded))
        if not backbones:
            raise UserError(f'config {what!r} has no model.backbone')
        init_default_scope(loaded.get('default_scope') or 'mmengine')
        cfg = backbones[0][1]
    return build(cfg, checkpoint or None)


def _parsed(text: str) -> dict[str, Any]:
    """``dict(type='mmdet.ResNet', depth=50)``, of literals only; nothing is run."""

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
            return {str(one.arg): value(one.value) for one in node.keywords}
        return ast.literal_eval(node)

    try:
        found = value(ast.parse(text.strip(), mode='eval').body)
        assert isinstance(found, dict) and 'type' in found
    except (SyntaxError, ValueError, AssertionError):
        example = "dict(type='mmdet.ResNet', depth=50)"
        raise UserError(f'{short(text)!r} is no dict of a backbone, such as {example}') from None
    return found


def find_backbones(cfg: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """(dotted key, config) of every backbone in a config's model."""

    def walk(part: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, value in part.items() if isinstance(part, Mapping) else ():
            if isinstance(value, Mapping):
                if name == 'backbone' and 'type' in value:
                    yield f'{key}.{name}', value  # type: ignore[misc]
                else:
                    yield from walk(value, f'{key}.{name}')

    yield from walk(cfg.get('model') or {}, 'model')


def build(given: Mapping[str, Any], checkpoint: str | None = None) -> nn.Module:
    """A backbone of a config: random weights, whatever it says of weights; or those of a checkpoint.

    Raises:
        UserError: as :func:`build_backbone`.
    """
    cfg: dict[str, Any] = copy.deepcopy(dict(given))
    start = cfg.get('init_cfg')
    if isinstance(start, Mapping) and 'checkpoint' in start:
        cfg.pop('init_cfg')
    if cfg.get('pretrained') is not None:
        cfg['pretrained'] = None
    scope = str(cfg['type']).partition('.')[0] if isinstance(cfg['type'], str) and '.' in cfg['type'] else ''
    if scope in ('mmdet', 'mmseg', 'mmpretrain'):
        init_default_scope(scope)
    if checkpoint:
        checkpoint = local_file(checkpoint, 'checkpoint')
        ours = not is_run_checkpoint(checkpoint)
        if ours:
            cfg['init_cfg'] = dict(type='nfnet_mm.NFPretrained', checkpoint=checkpoint)
    MMLogger.get_instance('nfnet_mm.signal', log_level='ERROR')  # which else tells of every parameter
    try:
        backbone = revert_sync_batchnorm(MODELS.build(cfg))
        backbone.init_weights() if hasattr(backbone, 'init_weights') else None
    except UserError:
        raise
    except Exception as error:  # of another package's constructor
        raise UserError(f'the backbone {type_name(cfg)} cannot be built: {short(error)}') from error
    if not checkpoint:
        return _unfrozen(backbone)
    if not ours:
        _load(backbone, checkpoint)
    return backbone.eval()


def _unfrozen(backbone: nn.Module) -> nn.Module:
    """In training mode, in which every BatchNorm takes the batch's statistics: random weights have no averages."""
    for module in backbone.modules():
        module.training = True
    return backbone


def _load(backbone: nn.Module, path: str) -> None:
    state = read_weights(path).state_dict or {}
    inside = {key.removeprefix('backbone.'): value for key, value in state.items() if key.startswith('backbone.')}
    wrong, left_over, _ = mismatches(backbone, dict(state_dict=inside or state))
    if wrong or (left_over and not isinstance(backbone, NFBackbone)):
        raise UserError(f'checkpoint {path!r} is not of {type(backbone).__name__}: {"; ".join(wrong + left_over)}')
