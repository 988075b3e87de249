"""DeepMind's parameter trees (Haiku) to our classifier's state dict.

The names and layouts are those of https://github.com/deepmind/deepmind-research/tree/master/nfnets:
convolutions HWIO, linear layers IO, blocks numbered through the stages.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nfnet_mm.errors import some

from ..errors import ConversionError
from ..layout import Layout, describe
from . import renamed

# Root, number of the block (none for the first) and path in it, or path outside of the blocks.
_MODULE = re.compile(r'(NFNet|NF_ResNet|NF_RegNet)/~/(?:(nf_(?:res_)?block)(?:_([1-9]\d{0,5}))?(?:/~/(.+))?|(.+))')
_CONV = {'w': 'weight', 'gain': 'gain', 'bias': 'bias'}
_LINEAR = {'w': 'weight', 'b': 'bias'}
_OUTSIDE = {
    'linear': ('head.fc.', _LINEAR),
    'final_conv': ('backbone.final_conv.', _CONV),
    'initial_conv': ('backbone.stem.conv0.', _CONV),
    **{f'stem_conv{s}': (f'backbone.stem.conv{s}.', _CONV) for s in range(4)},
}
_INSIDE: dict[str | None, tuple[str, dict[str, str]]] = {
    None: ('', {'skip_gain': 'skip_gain'}),
    **{c: (f'{c}.', _CONV) for c in ('conv0', 'conv1', 'conv1b', 'conv2', 'conv_shortcut')},
    'squeeze_excite/~/linear': ('attention.fc1.', _LINEAR),
    'squeeze_excite/~/linear_1': ('attention.fc2.', _LINEAR),
}
_NOWHERE: tuple[str, dict[str, str]] = ('', {})
_CONV_AXES, _LINEAR_AXES = (3, 2, 0, 1), (1, 0)  # HWIO -> OIHW, IO -> OI


def from_deepmind(tree: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Rename and transpose a two-level tree of arrays into the state dict of our classifier.

    A stage begins at each block that has a shortcut convolution, so any depths and widths will do.

    Args:
        tree: {module: {name: array}}, e.g. ``tree['NFNet/~/nf_block_3/~/conv1']['w']`` of shape (3, 3, 128, 768).
            Arrays are anything NumPy can read; they are copied.

    Returns:
        The weights under the names of :mod:`nfnet_mm.converters.layout`, in the order of the classifier's modules.

    Raises:
        ConversionError: a module or name is unknown, something is missing, or a shape, type or value is wrong.

    Example:
        >>> from_deepmind({'NFNet/~/stem_conv0': {'kernel': 0.}})
        Traceback (most recent call last):
        ...
        nfnet_mm.converters.errors.ConversionError: not NFNet, NF_ResNet or NF_RegNet weights: NFNet/~/stem_conv0|kernel
    """
    return read_deepmind(tree)[0]


def read_deepmind(tree: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Tensor], Layout]:
    """The state dict of :func:`from_deepmind`, and the layout of its network."""
    if not isinstance(tree, Mapping) or not all(isinstance(m, Mapping) for m in tree.values()):
        raise ConversionError('a DeepMind tree is a mapping {module: {name: array}}')
    modules = {module: _MODULE.fullmatch(str(module)) for module in tree}
    prefixes = _number_stages(modules.values())

    def key(module: str, name: str) -> str | None:
        match = modules[module]
        if match is None:
            return None
        prefix = prefixes[int(match[3] or 0)] if match[2] else ''
        path, leaves = _INSIDE.get(match[4], _NOWHERE) if match[2] else _OUTSIDE.get(match[5], _NOWHERE)
        return f'{prefix}{path}{leaves[name]}' if name in leaves else None

    weights = ((f'{m}|{n}', key(m, n), array) for m, leaves in tree.items() for n, array in leaves.items())
    state = renamed(weights, _tensor, 'not NFNet, NF_ResNet or NF_RegNet weights')
    roots = {match[1] for match in modules.values() if match}
    if len(roots) > 1:
        raise ConversionError(f'weights of more than one network: {some(roots)}')
    layout = describe(state)
    return {key: state[key] for key in layout.shapes}, layout


def _number_stages(modules: Iterable[re.Match[str] | None]) -> dict[int, str]:
    """Number of a block -> our name of it: a block with a shortcut convolution begins the next stage."""
    blocks = [(int(match[3] or 0), match[4]) for match in modules if match and match[2]]
    starts = {number for number, inside in blocks if inside == 'conv_shortcut'}
    prefixes, stage, index = {}, -1, 0
    for expected, number in enumerate(sorted({number for number, _ in blocks})):
        if number != expected:
            raise ConversionError(f'block {expected} is missing: the next one is block {number}')
        stage, index = (stage + 1, 0) if number in starts else (stage, index + 1)
        if stage < 0:
            raise ConversionError('block 0 has no shortcut convolution, which every first block of a stage has')
        prefixes[number] = f'backbone.stages.{stage}.{index}.'
    return prefixes


def _tensor(source: str, key: str, value: Any) -> Tensor:
    array = np.asarray(value)
    if array.dtype.kind != 'f':
        raise ConversionError(f'{source} is of type {array.dtype}, a weight has to be floating-point')
    if key.endswith('.weight'):
        axes = _LINEAR_AXES if '.fc' in key else _CONV_AXES
        if array.ndim != len(axes):
            raise ConversionError(f'{source} has shape {array.shape}, it needs {len(axes)} dimensions')
        array = array.transpose(axes)
    # A copy in C order and native bytes: the source may be read-only, transposed or big-endian.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder('='), order='C'))
