import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfnet_mm.converters import ConversionError, describe, from_deepmind
from tests.converters.networks import deepmind_tree, golden_tree

DATA = Path(__file__).parents[1] / 'data'


def test_reference_networks():
    # What the authors' modules were built with ("variant_patch" and sizes in the files' meta).
    expected = dict(
        nfnet=('NFNet', (16, 32, 48, 48), (8, 16, 24, 24), 96),
        nf_resnet=('NFResNet', (16, 32, 64, 128), (4, 8, 16, 32), None),
        nf_regnet=('NFRegNet', (16, 24, 32, 48), (16, 48, 72, 72), 139),
    )  # 139 = 1280 * 48 // 440
    for name, (family, widths, middles, final) in expected.items():
        arrays = np.load(DATA / f'{name}_tiny.npz')
        tree = golden_tree(arrays)
        state = from_deepmind(tree)
        layout = describe(state)
        assert (layout.family, layout.depths, layout.widths) == (family, (1, 2, 2, 1), widths)
        assert (layout.mid_widths, layout.final_channels, layout.num_classes) == (middles, final, 10)
        assert layout.skip_gain and layout.in_channels == 3
        assert layout.parameters == sum(a.size for leaves in tree.values() for a in leaves.values())


def test_every_value_arrives_in_pytorchs_order():
    tree = deepmind_tree('NFNet')
    state = from_deepmind(tree)
    # Block 2 is the second of stage 1.
    w = tree['NFNet/~/nf_block_2/~/conv1']['w']
    ours = state['backbone.stages.1.1.conv1.weight']
    assert ours.shape == (8, 4, 3, 3)
    for o, i, y, x in ((0, 0, 0, 0), (7, 3, 2, 1), (5, 2, 0, 2)):
        assert ours[o, i, y, x] == w[y, x, i, o]
    assert torch.equal(state['head.fc.weight'], torch.tensor(tree['NFNet/~/linear']['w']).T)
    fc1 = tree['NFNet/~/nf_block_3/~/squeeze_excite/~/linear']['w']
    assert torch.equal(state['backbone.stages.2.0.attention.fc1.weight'], torch.tensor(fc1).T)
    assert state['backbone.stages.2.0.skip_gain'] == tree['NFNet/~/nf_block_3']['skip_gain'].item()
    assert torch.equal(state['backbone.stem.conv3.gain'], torch.tensor(tree['NFNet/~/stem_conv3']['gain']))
    assert sum(v.double().sum() for v in state.values()).item() == pytest.approx(
        sum(a.astype(np.float64).sum() for leaves in tree.values() for a in leaves.values())
    )


class JaxLike:
    """Has nothing of an array but the way to become one."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array)


def test_kinds_of_arrays():
    tree = deepmind_tree('NFResNet')
    expected = from_deepmind(tree)
    for change in (JaxLike, lambda a: np.array(a, order='F'), lambda a: np.asarray(a).astype('>f4')):
        changed = {m: {n: change(a) for n, a in leaves.items()} for m, leaves in tree.items()}
        state = from_deepmind(changed)
        assert all(torch.equal(state[k], v) and state[k].is_contiguous() for k, v in expected.items())
    first = tree['NF_ResNet/~/linear']['b']
    first[:] = 7
    assert not torch.equal(expected['head.fc.bias'], torch.tensor(first))  # a copy


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(['NFNet', 'NFResNet', 'NFRegNet']),
    depths=st.tuples(*[st.integers(1, 4)] * 4),
    widths=st.tuples(*[st.integers(1, 4).map(lambda w: 8 * w)] * 4),
    classes=st.integers(1, 4),
    channels=st.integers(1, 5),
)
def test_any_depths_and_widths(family, depths, widths, classes, channels):
    tree = deepmind_tree(family, depths, widths, classes, channels)
    layout = describe(from_deepmind(tree))
    assert (layout.family, layout.depths, layout.widths) == (family, depths, widths)
    assert (layout.num_classes, layout.in_channels) == (classes, channels)
    assert layout.parameters == sum(a.size for leaves in tree.values() for a in leaves.values())


def broken():
    """(what is done to a tree, what the error has to say)"""

    def without(module, name=None):
        def change(tree):
            if name is None:
                del tree[module]
            else:
                del tree[module][name]

        return change

    def put(module, name, value):
        def change(tree):
            tree.setdefault(module, {})[name] = value(tree[module][name]) if callable(value) else value

        return change

    def nan(array):
        array = array.copy()
        array.flat[-1] = np.nan
        return array

    conv = 'NFNet/~/nf_block_2/~/conv1'
    yield 'missing leaf', without(conv, 'gain'), r'1 missing: backbone\.stages\.1\.1\.conv1\.gain$'
    yield 'missing module', without('NFNet/~/final_conv'), 'final_conv'
    yield 'missing head', without('NFNet/~/linear'), r'2 missing: head\.fc\.bias, head\.fc\.weight'
    yield 'missing stem', without('NFNet/~/stem_conv0'), 'stem.conv0.weight'
    yield 'unknown leaf', put(conv, 'scale', np.ones(8, np.float32)), r'NFNet/~/nf_block_2/~/conv1\|scale'
    yield 'unknown module', put('NFNet/~/pool', 'w', np.ones((1, 1), np.float32)), r'NFNet/~/pool\|w'
    yield 'foreign', put('ResNet50/~/initial_conv', 'w', np.ones((7, 7, 3, 64))), r'ResNet50/~/initial_conv\|w'
    yield 'two networks', put('NF_RegNet/~/initial_conv', 'w', np.ones((3, 3, 3, 8))), 'stem.conv0|more than one'
    yield 'NaN', put(conv, 'w', nan), r'stages\.1\.1\.conv1\.weight holds NaN or Inf'
    yield 'Inf', put(conv, 'bias', np.full(8, -np.inf, np.float32)), r'conv1\.bias holds NaN or Inf'
    yield 'rank', put(conv, 'w', lambda w: w[0]), r'conv1\|w has shape \(3, 4, 8\), it needs 4 dimensions'
    yield 'rank of a gain', put(conv, 'gain', lambda g: g[:, None]), r'conv1\.gain has shape \(8, 1\)'
    yield 'kernel', put(conv, 'w', lambda w: w[:2]), r'conv1\.weight has shape \(8, 4, 2, 3\).*\(8, 4, 3, 3\)'
    yield 'width', put(conv, 'w', lambda w: w[..., :4]), r'conv1'
    yield 'groups', put(conv, 'w', lambda w: w[:, :, :3]), r'groups of 3 in 8 channels'
    yield 'hidden', put('NFNet/~/nf_block/~/squeeze_excite/~/linear_1', 'w', lambda w: w[1:]), r'fc2\.weight'
    yield 'integers', put(conv, 'w', lambda w: w.astype(int)), 'type int64'
    yield 'objects', put(conv, 'w', lambda w: w.astype(object)), 'type object'
    yield 'complex', put(conv, 'w', lambda w: w.astype(complex)), 'type complex'
    yield 'no array', put(conv, 'w', 'text'), 'a weight has to be'
    yield 'empty', put(conv, 'bias', np.ones(0, np.float32)), r'conv1\.bias is empty'
    yield 'lost block', lambda tree: [tree.pop(k) for k in list(tree) if 'nf_block_2' in k], 'block 2 is missing'
    yield 'no first shortcut', without('NFNet/~/nf_block/~/conv_shortcut'), 'block 0 has no shortcut'
    yield 'a stage more', put('NFNet/~/nf_block_2/~/conv_shortcut', 'w', np.ones((1, 1, 16, 16))), r'\[0, 1, 2, 3, 4\]'
    yield 'not two levels', lambda tree: tree.update(w=np.ones(3)), 'mapping {module: {name: array}}'


@pytest.mark.parametrize('change, words', [b[1:] for b in broken()], ids=[b[0] for b in broken()])
def test_refused(change, words):
    tree = copy.deepcopy(deepmind_tree('NFNet'))
    change(tree)
    with pytest.raises(ConversionError) as error:
        from_deepmind(tree)
    assert re.search(words, str(error.value)) and '\n' not in str(error.value)


def test_leftovers_are_counted():
    tree = deepmind_tree('NFNet')
    for i in range(20):
        tree[f'NFNet/~/other_{i:02}'] = {'w': np.ones((1, 1), np.float32)}
    with pytest.raises(ConversionError, match=r'other_00\|w, .* and 14 more$'):
        from_deepmind(tree)
