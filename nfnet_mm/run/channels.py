"""Hold the channels that a config's neck or head reads against those that its backbone gives."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmengine.model import is_model_wrapper

from nfnet_mm.errors import UserError, short
from nfnet_mm.models.backbones.base import Backbone
from nfnet_mm.registry import type_name

if TYPE_CHECKING:
    from mmengine.runner import Runner

# Necks whose `in_channels` are those of all the backbone's outputs, in their order.
_PYRAMIDS = ('FPN', 'PAFPN', 'NASFPN', 'ChannelMapper')


def check_channels(runner: 'Runner') -> None:
    """Check what reads the outputs of a backbone of this package, as after ``arch`` alone was changed.

    mmengine builds such a model, and its first convolution fails as training begins. Checked are pyramids, and the head
    of a classifier or a segmentor without a neck that changes channels; other modules are left alone.

    Args:
        runner: of the config, with its model built.

    Raises:
        UserError: the numbers are others; one line with the key and what would be right.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    backbone, cfg = getattr(model, 'backbone', None), runner.cfg.get('model') or {}
    if not isinstance(backbone, Backbone) or not isinstance(cfg.get('backbone'), Mapping):
        return
    given, neck = list(backbone.out_channels), cfg.get('neck')
    network = f'{type(backbone).__name__} {cfg["backbone"].get("arch", cfg["backbone"].get("depth"))}'
    if isinstance(neck, Mapping) and type_name(neck) in _PYRAMIDS:
        _compare('neck.in_channels', neck.get('in_channels'), given, network)
    elif not neck or (isinstance(neck, Mapping) and type_name(neck) == 'GlobalAveragePooling'):
        for name in ('head', 'decode_head'):
            head = cfg.get(name)
            if isinstance(head, Mapping) and isinstance(head.get('in_channels'), int):
                index = head.get('in_index', -1)
                if isinstance(index, int) and -len(given) <= index < len(given):
                    _compare(f'{name}.in_channels', head['in_channels'], given[index], network)


def _compare(key: str, reads: Any, given: Any, network: str) -> None:
    if (list(reads) if isinstance(reads, Sequence) else reads) != given:
        what = f'model.{key}={reads!r}, and the backbone, {short(network)}, gives {given!r} channels'
        raise UserError(f'{what}: set model.{key}={given!r}')
