"""timm's state dicts to our classifier's and back (names as in timm 1.0, ``timm/models/nfnet.py``).

The tensors stay what they are, up to their shape: timm stores gains as (C,1,1,1), which are (C,) here, and the linear
layers of Squeeze-Excite as 1x1 convolutions. Which function a network computes is not in its weights: see ``dialect``
in :mod:`nfnet_mm.converters.load`.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from nfnet_mm.errors import some

from ..errors import ConversionError
from ..layout import Layout, describe
from . import renamed

_STEM = {'conv': 'conv0', **{f'conv{s + 1}': f'conv{s}' for s in range(4)}}
_BLOCK = {
    **{name: f'conv{n}' for name, n in (('conv1', '0'), ('conv2', '1'), ('conv2b', '1b'), ('conv3', '2'))},
    'downsample.conv': 'conv_shortcut',
    '': '',
    **{f'{attn}.{layer}': f'attention.{layer}' for attn in ('attn', 'attn_last') for layer in ('fc1', 'fc2', 'conv')},
}
_LEAF = {'weight': 'weight', 'gain': 'gain', 'bias': 'bias', 'skipinit_gain': 'skip_gain'}
_KEY = re.compile(r'(?:(stem)\.(conv\d?)|(stages\.\d+\.\d+)((?:\.[a-z]\w+)*?)|(final_conv)|(head\.fc))\.(\w+)')


def from_timm(state_dict: Mapping[str, Tensor], head: bool = True) -> dict[str, Tensor]:
    """Rename timm's weights of any NFNet, NF-ResNet or NF-RegNet into the state dict of our classifier.

    Args:
        state_dict: timm's, e.g. ``'stages.0.0.conv2b.gain'`` of shape (128, 1, 1, 1).
        head: whether ``head.fc`` has to be there; a model made with ``num_classes=0`` has none.

    Returns:
        The weights under the names of :mod:`nfnet_mm.converters.layout`, in the order of the classifier's modules.
        They share their memory with the ones given.

    Raises:
        ConversionError: a key is unknown, something is missing, or a shape, type or value is wrong.

    Example:
        >>> import torch
        >>> from_timm({'conv1.weight': torch.ones(64, 3, 7, 7)})
        Traceback (most recent call last):
        ...
        nfnet_mm.converters.errors.ConversionError: not weights of timm's NFNet, NF-ResNet or NF-RegNet: conv1.weight
    """
    return read_timm(state_dict, head)[0]


def to_timm(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`from_timm`: our classifier's weights under timm's names, in timm's shapes.

    Raises:
        ConversionError: the weights are not a whole classifier of ours.
    """
    return write_timm(state_dict, describe(state_dict, head='head.fc.weight' in state_dict))


def read_timm(state_dict: Mapping[str, Tensor], head: bool) -> tuple[dict[str, Tensor], Layout]:
    """The state dict of :func:`from_timm`, and the layout of its network."""
    weights = ((source, _rename(source), value) for source, value in state_dict.items())
    state = renamed(weights, _squeeze, "not weights of timm's NFNet, NF-ResNet or NF-RegNet")
    layout = describe(state, head)
    place = _attention(layout)
    misplaced = [source for source in state_dict if '.attn' in source and f'.{place}.' not in source]
    if misplaced:
        raise ConversionError(f'{layout.family} has its attention at {place}, not at {some(misplaced)}')
    return {key: state[key] for key in layout.shapes}, layout


def write_timm(state_dict: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """:func:`to_timm` for weights that are known to have a layout."""
    if layout.family not in ('NFNet', 'NFResNet', 'NFRegNet'):
        raise ConversionError(f'timm has no {layout.family}: only normalizer-free networks have names there')
    names = {ours: name for name, ours in _BLOCK.items() if not name.startswith('attn')}
    names |= {f'attention.{layer}': f'{_attention(layout)}.{layer}' for layer in ('fc1', 'fc2', 'conv')}
    leaves = {ours: name for name, ours in _LEAF.items()}
    state = {}
    for key, value in state_dict.items():
        path, _, leaf = key.removeprefix('backbone.').rpartition('.')
        if path.startswith('stem.'):
            path = f'stem.conv{int(path[-1]) + 1}' if layout.family == 'NFNet' else 'stem.conv'
        elif path.startswith('stages.'):
            _, stage, block, *inside = path.split('.')
            path = '.'.join(filter(None, ('stages', stage, block, names['.'.join(inside)])))
        if leaf == 'gain' or (path.endswith(('.fc1', '.fc2')) and leaf == 'weight'):
            value = value[(...,) + (None,) * (4 - value.ndim)]
        state[f'{path}.{leaves[leaf]}'] = value
    return state


def _attention(layout: Layout) -> str:
    return 'attn' if layout.family == 'NFRegNet' else 'attn_last'


def _rename(source: str) -> str | None:
    match = _KEY.fullmatch(source)
    if not match:
        return None
    stem, conv, block, inside, final, head, leaf = match.groups()
    path = head or 'backbone.' + (final or (f'stem.{_STEM.get(conv)}' if stem else block))
    if block:
        name = _BLOCK.get(inside[1:])
        if name is None or (name == '') != (leaf == 'skipinit_gain'):
            return None
        path += f'.{name}' if name else ''
    return f'{path}.{_LEAF[leaf]}' if leaf in _LEAF else None


def _squeeze(source: str, key: str, value: Tensor) -> Tensor:
    rank = 1 if key.endswith('.gain') else 2 if re.search(r'attention\.fc\d\.weight', key) else None
    if rank is None or not isinstance(value, Tensor):
        return value
    if value.ndim != 4 or any(d != 1 for d in value.shape[rank:]):
        want = f'{rank} dimension(s) and then {4 - rank} of 1'
        raise ConversionError(f'{source} has shape {tuple(value.shape)}, it needs {want}')
    return value.reshape(value.shape[:rank])
