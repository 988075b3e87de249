import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfnet_mm.converters import ConversionError, describe, from_deepmind, from_timm, to_timm
from tests.converters.networks import deepmind_tree

timm = pytest.importorskip('timm')
# Of every kind, the smallest.
KINDS = ('test_nfnet', 'dm_nfnet_f0', 'eca_nfnet_l0', 'nf_resnet26', 'nf_seresnet26', 'nf_ecaresnet26', 'nf_regnet_b0')


def random_state(name, **kwargs):
    with torch.device('meta'):
        model = timm.create_model(name, **kwargs)
    generator = torch.Generator().manual_seed(0)
    return {k: torch.rand(v.shape, generator=generator) for k, v in model.state_dict().items()}


@pytest.mark.parametrize('name', KINDS)
def test_there_and_back(name):
    state = random_state(name, num_classes=7)
    ours = from_timm(state)
    assert describe(ours).parameters == sum(v.numel() for v in state.values())
    back = to_timm(ours)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], v) for k, v in state.items())


def test_every_value_has_its_place():
    state = random_state('test_nfnet', num_classes=7)
    ours = from_timm(state)
    pairs = {
        'stem.conv1.weight': 'backbone.stem.conv0.weight',
        'stem.conv4.gain': 'backbone.stem.conv3.gain',
        'stages.2.0.conv1.bias': 'backbone.stages.2.0.conv0.bias',
        'stages.2.0.conv2.gain': 'backbone.stages.2.0.conv1.gain',
        'stages.2.0.conv2b.weight': 'backbone.stages.2.0.conv1b.weight',
        'stages.2.0.conv3.weight': 'backbone.stages.2.0.conv2.weight',
        'stages.2.0.downsample.conv.weight': 'backbone.stages.2.0.conv_shortcut.weight',
        'stages.2.0.attn_last.fc1.weight': 'backbone.stages.2.0.attention.fc1.weight',
        'stages.2.0.attn_last.fc2.bias': 'backbone.stages.2.0.attention.fc2.bias',
        'final_conv.gain': 'backbone.final_conv.gain',
        'head.fc.weight': 'head.fc.weight',
    }
    for theirs, key in pairs.items():
        assert torch.equal(ours[key].flatten(), state[theirs].flatten()), key
    assert ours['backbone.stem.conv3.gain'].shape == (128,)
    assert ours['backbone.stages.2.0.attention.fc1.weight'].shape == (24, 96)
    dm = random_state('dm_nfnet_f0')
    assert from_timm(dm)['backbone.stages.3.2.skip_gain'] == dm['stages.3.2.skipinit_gain']


@pytest.mark.parametrize(
    'name, family, depths, widths, middles, group, attention, hidden, final',
    [
        ('nfnet_l0', 'NFNet', (1, 2, 6, 3), (256, 512, 1536, 1536), (64, 128, 384, 384), 64, 'se', 384, 2304),
        ('nf_regnet_b1', 'NFRegNet', (2, 4, 7, 7), (40, 80, 160, 328), (88, 184, 360, 736), 8, 'se', 368, 960),
        (
            'nf_ecaresnet26',
            'NFResNet',
            (2, 2, 2, 2),
            (256, 512, 1024, 2048),
            (64, 128, 256, 512),
            None,
            'eca',
            None,
            None,
        ),
    ],
)
def test_layout(name, family, depths, widths, middles, group, attention, hidden, final):
    layout = describe(from_timm(random_state(name)))
    assert (layout.family, layout.depths, layout.widths, layout.mid_widths) == (family, depths, widths, middles)
    assert layout.group_widths == ((group,) * 4 if group else middles)
    assert (layout.attention, layout.se_hidden, layout.final_channels) == (attention, hidden, final)
    assert not layout.skip_gain


def test_model_without_a_head():
    state = random_state('test_nfnet', num_classes=0)
    with pytest.raises(ConversionError, match='2 missing: head.fc.bias, head.fc.weight'):
        from_timm(state)
    assert to_timm(from_timm(state, head=False)).keys() == state.keys()


@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(['NFNet', 'NFResNet', 'NFRegNet']),
    depths=st.tuples(*[st.integers(1, 3)] * 4),
    widths=st.tuples(*[st.integers(1, 4).map(lambda w: 8 * w)] * 4),
    skip=st.booleans(),
    attention=st.booleans(),
    seed=st.integers(0, 9),
)
def test_inverse_of_each_other(family, depths, widths, skip, attention, seed):
    ours = from_deepmind(deepmind_tree(family, depths, widths, seed=seed))
    ours = {
        k: v for k, v in ours.items() if (skip or not k.endswith('skip_gain')) and (attention or '.attention.' not in k)
    }
    theirs = to_timm(ours)
    again = from_timm(theirs)
    assert list(again) == list(ours) and all(torch.equal(again[k], v) for k, v in ours.items())
    twice = to_timm(again)
    assert twice.keys() == theirs.keys() and all(torch.equal(twice[k], v) for k, v in theirs.items())


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda s: s.pop('stages.1.0.conv2b.gain'), r'1 missing: backbone\.stages\.1\.0\.conv1b\.gain'),
        (lambda s: s.update({'stages.1.0.conv9.gain': torch.ones(8)}), r'stages\.1\.0\.conv9\.gain'),
        (lambda s: s.update({'stem.conv9.gain': torch.ones(8)}), r'stem\.'),
        (lambda s: s.update({'stages.1.0.skipinit_gain': torch.ones(())}), r'1 left over: .*stages\.1\.0\.skip_gain'),
        (lambda s: s.update({'stem.conv1.gain': torch.ones(16)}), r'stem\.conv1\.gain has shape \(16,\)'),
        (lambda s: s.update({'final_conv.bias': torch.full((192,), torch.nan)}), r'final_conv\.bias holds NaN'),
        (
            lambda s: s.update({'head.fc.weight': torch.ones(7, 12)}),
            r'head\.fc\.weight has shape \(7, 12\).*\(7, 192\)',
        ),
        (lambda s: s.update({'head.fc.bias': torch.ones(7, dtype=torch.int64)}), r'head\.fc\.bias is torch\.int64'),
        (lambda s: s.update({'head.fc.bias': 'text'}), r'head\.fc\.bias is a str'),
        (
            lambda s: [s.update({k.replace('attn_last', 'attn'): s.pop(k)}) for k in list(s) if 'attn' in k],
            r'attn_last',
        ),
        (lambda s: s.update({'stages.1.0.attn.fc1.bias': torch.ones(16)}), r'are both'),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith('stages.3')], r'stages \[0, 1, 2\]'),
        (lambda s: s.update({'stages.2.999999.skipinit_gain': torch.ones(())}), r'go up to \(1, 1, 1000000, 1\)'),
        (lambda s: s.update({f'stages.2.{"9" * 5000}.skipinit_gain': torch.ones(())}), r'1 left over: .*stages\.2\.9'),
    ],
)
def test_refused(change, words):
    state = random_state('test_nfnet', num_classes=7)
    change(state)
    with pytest.raises(ConversionError) as error:
        from_timm(state)
    assert re.search(words, str(error.value)) and '\n' not in str(error.value)


def test_only_whole_classifiers_go_back():
    ours = from_timm(random_state('test_nfnet'))
    del ours['backbone.stem.conv2.gain']
    with pytest.raises(ConversionError, match='1 missing: backbone.stem.conv2.gain'):
        to_timm(ours)
