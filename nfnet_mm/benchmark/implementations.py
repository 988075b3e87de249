"""What can be measured: networks of this package, of timm and torchvision, and any registered backbone."""

import ast
import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from nfnet_mm.errors import UserError, did_you_mean, short
from nfnet_mm.models.backbones.arch import find_network, network_names
from nfnet_mm.models.backbones.base import Backbone, NFBackbone
from nfnet_mm.named_configs import find_config
from nfnet_mm.read_config import read_config
from nfnet_mm.recipes import setting
from nfnet_mm.registry import type_name

Clipping = Literal['ours', 'timm'] | None
_LAYOUTS = ('best', 'contiguous', 'channels_last')
_KNOWN = (
    'a network of this package (nfnet_f0), timm/NAME, torchvision/NAME, a dict of a registered backbone, or a config'
)
# What of an implementation's arguments is not the network's.
_SETTINGS: Mapping[str, tuple[type, ...]] = dict(
    size=(int,), agc=(bool,), compiled=(str, bool), layout=(str,), batch=(int,)
)


@dataclass(frozen=True)
class Implementation:
    """A classifier that is measured, by what was asked for.

    Attributes:
        name: as it was asked for, with its arguments.
        size: of the square images, in pixels: what it was asked for with, or the network's training size.
        clipping: whose adaptive gradient clipping its training step has.
        build: number of classes -> network of (N, 3, H, W) images, whose logits are (N, classes).
        settings: ``compiled``, ``layout`` and ``batch`` where they were asked for.
    """

    name: str
    size: int
    clipping: Clipping
    build: Callable[[int], nn.Module]
    settings: Mapping[str, Any]
    network: str | None = None  # of the table of this package
    cfg: Mapping[str, Any] = field(default_factory=dict)  # of such a network, with the arguments it was asked for with


class Classifier(nn.Module):
    """A backbone, global average pooling and a linear layer of weight std 0.01.

    Shape: (N, 3, H, W) -> (N, classes).
    """

    def __init__(self, backbone: nn.Module, channels: int, classes: int):
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(channels, classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(_pooled(self.backbone(x)))


def _pooled(features: Tensor | tuple[Tensor, ...]) -> Tensor:
    feature = features[-1] if isinstance(features, (tuple, list)) else features
    return feature.mean((2, 3)) if feature.dim() == 4 else feature


def find_implementation(text: str) -> Implementation:
    """The implementation of a name as on the command line.

    Args:
        text: ``NAME[,KEY=VALUE]...``. The name is one of this package's networks (``nfnet_f0``; ``bn_resnet50`` is the
            papers' BatchNorm ResNet), ``timm/NAME``, ``torchvision/NAME``, or a config file or its name, of which the
            backbone is taken; or all of it is a dict, ``dict(type='mmpretrain.ResNet', depth=50)``. The keys are
            arguments of the network, and ``size``, ``batch``, ``layout``, ``compiled`` (True or a mode of
            ``torch.compile``), and ``agc`` (whether a training step clips: by default, whether the network is
            normalizer-free).

    Raises:
        UserError: the network is unknown, with near names, or its package is not installed.
    """
    name, arguments = _parse(text)
    settings: dict[str, Any] = {key: arguments.pop(key) for key in _SETTINGS if key in arguments}
    for key, value in settings.items():
        good = isinstance(value, _SETTINGS[key])
        if good and key in ('size', 'batch'):
            good = value is not True and value >= 1
        if not good:
            raise UserError(f'{text!r}: {key}={value!r} must be {_wanted(key)}')
    if settings.get('layout', 'best') not in _LAYOUTS:
        raise UserError(f'{text!r}: layout={settings["layout"]!r} must be {", ".join(_LAYOUTS)}')
    if isinstance(name, dict):
        found = _backbone(text, dict(name, **arguments))
    elif name.startswith('timm/'):
        found = _timm(text, name.removeprefix('timm/'), arguments)
    elif name.startswith('torchvision/'):
        found = _torchvision(text, name.removeprefix('torchvision/'), arguments)
    elif name.endswith('.py') or '::' in name:
        found = _of_config(text, name, arguments)
    else:
        found = _ours(text, name, arguments)
    size = settings.pop('size', found.size)
    clips = settings.pop('agc', found.clipping is not None)
    clipping: Clipping = (found.clipping or 'ours') if clips else None
    return dataclasses.replace(found, size=size, clipping=clipping, settings=settings)


def _wanted(key: str) -> str:
    if key in ('size', 'batch'):
        return 'a positive integer'
    return 'True or False' if key == 'agc' else ', '.join(_LAYOUTS) if key == 'layout' else "True or 'max-autotune'"


def _parse(text: str) -> tuple[str | dict[str, Any], dict[str, Any]]:
    """(name or dict, arguments) of a text."""
    if text.startswith(('dict(', '{')):
        try:
            found = _literal(ast.parse(text, mode='eval').body)
        except (SyntaxError, ValueError, TypeError):
            found = None
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise UserError(f"{text!r} is no dict of plain values, such as dict(type='nfnet_mm.NFNet')")
        return found, {}
    name, *words = _split(text)
    arguments = {}
    for word in words:
        key, equals, value = word.partition('=')
        if not equals or not key.isidentifier():
            raise UserError(f'{text!r}: {word!r} must be KEY=VALUE, as in nfnet_f0,drop_path_rate=0.25')
        try:
            arguments[key] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            arguments[key] = value
    return name, arguments


def _split(text: str) -> list[str]:
    """The parts between commas that are in no brackets."""
    parts: list[str] = []
    depth = 0
    for piece in text.split(','):
        if depth > 0:
            parts[-1] += f',{piece}'
        else:
            parts.append(piece)
        depth += sum(piece.count(c) for c in '([{') - sum(piece.count(c) for c in ')]}')
    return parts


def _literal(node: ast.expr) -> Any:
    """The plain value of an expression, in which ``dict(key=value)`` is one, too.

    Raises:
        ValueError: it is none.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        if any(word.arg is None for word in node.keywords):
            raise ValueError('a dict that is unpacked')
        return {str(word.arg): _literal(word.value) for word in node.keywords}
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError('a dict that is unpacked')
        return {ast.literal_eval(key): _literal(value) for key, value in zip(node.keys, node.values) if key}
    if isinstance(node, (ast.List, ast.Tuple)):
        return (list if isinstance(node, ast.List) else tuple)(map(_literal, node.elts))
    return ast.literal_eval(node)


def _ours(text: str, name: str, arguments: dict[str, Any]) -> Implementation:
    try:
        network = find_network(name)
    except UserError as error:
        near = did_you_mean(name, network_names(), count=3)
        raise UserError(f'no network {name!r}.{near} It must be {_KNOWN}') from error
    clipping: Clipping = 'ours' if network.arch.method == 'nf' else None
    cfg = dict(network.cfg, **{'out_indices': (4,), **arguments})
    return Implementation(text, setting(network).train_size, clipping, builder(cfg), {}, network.name, cfg)


def _backbone(text: str, cfg: dict[str, Any], scope: str | None = None) -> Implementation:
    """Any backbone of mmengine's registries."""
    if 'type' not in cfg:
        raise UserError(f"{text!r} has no type, such as type='nfnet_mm.NFNet'")
    own = str(cfg['type']).startswith('nfnet_mm.')
    if own:
        cfg.setdefault('out_indices', (4,))
    # told by building it, of which nothing is kept
    with torch.device('meta'):
        normalizer_free = own and isinstance(_built(cfg, scope), NFBackbone)
    return Implementation(text, 224, 'ours' if normalizer_free else None, builder(cfg, scope), {})


def _of_config(text: str, name: str, arguments: dict[str, Any]) -> Implementation:
    cfg = read_config(find_config(name).path)
    model = cfg.get('model') or {}
    backbone = model.get('backbone') or cfg.get('backbone')
    if not backbone:
        raise UserError(f'config {name!r} has no model.backbone, which is what would be measured')
    plain = backbone.to_dict() if hasattr(backbone, 'to_dict') else dict(backbone)
    for key in ('init_cfg', 'pretrained', 'frozen_stages', 'norm_eval'):  # a whole network is trained, from nothing
        plain.pop(key, None)
    return _backbone(text, dict(plain, **arguments), cfg.get('default_scope'))


def _built(cfg: dict[str, Any], scope: str | None) -> nn.Module:
    try:
        with DefaultScope.overwrite_default_scope(scope):
            return revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg)))
    except UserError:
        raise
    except (KeyError, ImportError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f'{type_name(cfg)} was not built: {type(error).__name__}: {short(error)}') from error


def builder(cfg: dict[str, Any], scope: str | None = None) -> Callable[[int], nn.Module]:
    """Number of classes -> classifier on the backbone of a config."""

    def build(classes: int) -> nn.Module:
        backbone = _built(cfg, scope)
        if isinstance(backbone, Backbone):
            channels = backbone.out_channels[-1]
        else:
            backbone.eval()  # which of some backbones returns None
            with torch.no_grad():
                channels = _pooled(backbone(torch.zeros(1, 3, 64, 64))).shape[1]
            backbone.train()
        return Classifier(backbone, channels, classes)

    return build


def _timm(text: str, name: str, arguments: dict[str, Any]) -> Implementation:
    timm = _package('timm', text)
    if name not in timm.list_models():
        near = did_you_mean(name, timm.list_models(), count=3)
        raise UserError(f'timm {timm.__version__} has no model {name!r}.{near}')

    def build(classes: int) -> nn.Module:
        try:
            return timm.create_model(name, num_classes=classes, **arguments)
        except TypeError as error:
            raise UserError(f'{text!r} was not built: {short(error)}') from error

    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    normalizer_free = name in timm.list_models(module='nfnet')
    size = cfg.input_size[-1] if cfg is not None else 224
    return Implementation(text, size, 'timm' if normalizer_free else None, build, {})


def _torchvision(text: str, name: str, arguments: dict[str, Any]) -> Implementation:
    models = _package('torchvision', text).models
    if name not in models.list_models(module=models):
        near = did_you_mean(name, models.list_models(module=models), count=3)
        raise UserError(f'torchvision has no classifier {name!r}.{near}')

    def build(classes: int) -> nn.Module:
        try:
            return models.get_model(name, weights=None, num_classes=classes, **arguments)
        except TypeError as error:
            raise UserError(f'{text!r} was not built: {short(error)}') from error

    return Implementation(text, 224, None, build, {})


def _package(name: str, text: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise UserError(f'{text!r} needs {name}: pip install {name} ({short(error)})') from None
