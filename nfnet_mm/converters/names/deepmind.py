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
_MODULE = re.compile(
    r'(NFNet|NF_ResNet|NF_RegNet|ResNet|FixUp_ResNet|SkipInit_ResNet)'
    r'(?:/~/(?:(nf_(?:res_)?block|res_block(?:_v[12])?)(?:_([1-9]\d{0,5}))?(?:(?:/~/|/(?=shortcut_bn))(.+))?|(.+)))?'
)
_EMA = re.compile(r'(.+)/~/(mean|var)_ema')
_CONV = {'w': 'weight', 'gain': 'gain', 'bias': 'bias', 'b': 'bias'}
_NORM = {'scale': 'weight', 'offset': 'bias', 'mean': 'running_mean', 'var': 'running_var'}
_NORM['counter'] = 'num_batches_tracked'
_NORM |= {name: name for name in ('hidden_mean', 'hidden_var')}
_LINEAR = {'w': 'weight', 'b': 'bias'}
_OUTSIDE: dict[str | None, tuple[str, dict[str, str]]] = {
    None: ('backbone.', {'bias1': 'stem.bias1', 'bias2': 'bias2'}),
    'initial_bn': ('backbone.stem.bn0.', _NORM),
    'final_bn': ('backbone.final_bn.', _NORM),
    'linear': ('head.fc.', _LINEAR),
    'final_conv': ('backbone.final_conv.', _CONV),
    'initial_conv': ('backbone.stem.conv0.', _CONV),
    **{f'stem_conv{s}': (f'backbone.stem.conv{s}.', _CONV) for s in range(4)},
}
_INSIDE: dict[str | None, tuple[str, dict[str, str]]] = {
    None: ('', {n: n for n in ('skip_gain', 'scale', *(f'bias{i}{part}' for i in '123' for part in 'ab'))}),
    **{bn: (f'{bn}.', _NORM) for bn in ('bn0', 'bn1', 'bn2', 'shortcut_bn')},
    **{c: (f'{c}.', _CONV) for c in ('conv0', 'conv1', 'conv1b', 'conv2', 'conv_shortcut')},
    'squeeze_excite/~/linear': ('attention.fc1.', _LINEAR),
    'squeeze_excite/~/linear_1': ('attention.fc2.', _LINEAR),
}
_NOWHERE: tuple[str, dict[str, str]] = ('', {})
_CONV_AXES, _LINEAR_AXES = (3, 2, 0, 1), (1, 0)  # HWIO -> OIHW, IO -> OI


def from_deepmind(
    tree: Mapping[str, Mapping[str, Any]], state: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, Tensor]:
    """Rename and transpose a two-level tree of arrays into the state dict of our classifier.

    A stage begins at each block that has a shortcut convolution, so any depths and widths will do.

    Args:
        tree: {module: {name: array}}, e.g. ``tree['NFNet/~/nf_block_3/~/conv1']['w']`` of shape (3, 3, 128, 768).
            Arrays are anything NumPy can read; they are copied. Of the modules NFNet, NF_ResNet and NF_RegNet, or of
            the baselines ResNet, FixUp_ResNet and SkipInit_ResNet.
        state: with BatchNorm, the tree of its averages: ``state['ResNet/~/final_bn/~/mean_ema']`` and ``var_ema`` of
            ``counter``, ``average`` and ``hidden``, which is kept only where it does not follow from them as average *
            (1 - decay^counter), the authors' decay being 0.9.

    Returns:
        The weights under the names of :mod:`nfnet_mm.converters.layout`, in the order of the classifier's modules.

    Raises:
        ConversionError: a module or name is unknown, something is missing (with BatchNorm, ``state``), or a shape, type
            or value is wrong.

    Example:
        >>> from_deepmind({'NFNet/~/stem_conv0': {'kernel': 0.}})
        Traceback (most recent call last):
        ...
        nfnet_mm.converters.errors.ConversionError: not weights of DeepMind's networks: NFNet/~/stem_conv0|kernel
    """
    return read_deepmind(tree, state)[0]


def read_deepmind(
    tree: Mapping[str, Mapping[str, Any]], state: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[dict[str, Tensor], Layout]:
    """The state dict of :func:`from_deepmind`, and the layout of its network."""
    for given in (tree, state or {}):
        if not isinstance(given, Mapping) or not all(isinstance(m, Mapping) for m in given.values()):
            raise ConversionError('a DeepMind tree is a mapping {module: {name: array}}')
    tree = _with_averages(tree, state or {})
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
    named = renamed(weights, _tensor, "not weights of DeepMind's networks")
    roots = {match[1] for match in modules.values() if match}
    if len(roots) > 1:
        raise ConversionError(f'weights of more than one network: {some(roots)}')
    hidden = {key: named.pop(key) for key in list(named) if key.endswith(('.hidden_mean', '.hidden_var'))}
    layout = describe(named)
    return {**{key: named[key] for key in layout.shapes}, **hidden}, layout


def _with_averages(
    tree: Mapping[str, Mapping[str, Any]], state: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The tree with each BatchNorm's ``mean``, ``var`` and ``counter`` beside its scale and offset."""
    joined = {str(module): dict(leaves) for module, leaves in tree.items()}
    norms = [module for module in joined if module.endswith(('bn', 'bn0', 'bn1', 'bn2'))]
    if norms and not state:
        raise ConversionError(f'state is missing: the averages of {len(norms)} BatchNorm layers, {some(norms)}')
    for path, leaves in state.items():
        match = _EMA.fullmatch(str(path))
        if match is None or match[1] not in norms:
            raise ConversionError(f'{path} in state is of no BatchNorm of the tree')
        norm = joined[match[1]]
        for name in ('average', 'counter'):
            if name not in leaves:
                raise ConversionError(f'{path} in state has no {name}')
        norm[match[2]] = leaves['average']
        if 'hidden' in leaves and not _follows(**leaves):
            norm[f'hidden_{match[2]}'] = leaves['hidden']
        if not np.array_equal(norm.setdefault('counter', leaves['counter']), leaves['counter']):
            raise ConversionError(f'{path} in state counts {leaves["counter"]} batches, its fellow {norm["counter"]}')
    return joined


def _follows(average: Any, counter: Any, hidden: Any) -> bool:
    """Whether ``hidden`` is what training made of it: average * (1 - decay^counter), or 0 before."""
    try:
        return np.allclose(hidden, np.asarray(average) * (1 - 0.9 ** np.asarray(counter)), rtol=1e-3, atol=1e-6)
    except (TypeError, ValueError):  # of another type or shape, which is refused later
        return True


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
    if key.endswith('.num_batches_tracked'):
        if array.dtype.kind not in 'iu' or array.ndim:
            raise ConversionError(f'{source} has to be one integer, not {array.dtype} of shape {array.shape}')
        return torch.tensor(int(array))
    if array.dtype.kind != 'f':
        raise ConversionError(f'{source} is of type {array.dtype}, a weight has to be floating-point')
    if key.split('.')[-2].endswith(('bn', 'bn0', 'bn1', 'bn2')):
        if array.ndim != 4 or any(size != 1 for size in array.shape[:3]):
            raise ConversionError(f'{source} has shape {array.shape}, it needs (1, 1, 1, C)')
        array = array.reshape(-1)
    elif key.endswith('.weight'):
        axes = _LINEAR_AXES if '.fc' in key else _CONV_AXES
        if array.ndim != len(axes):
            raise ConversionError(f'{source} has shape {array.shape}, it needs {len(axes)} dimensions')
        array = array.transpose(axes)
    # A copy in C order and native bytes: the source may be read-only, transposed or big-endian.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder('='), order='C'))
