import re

import pytest
import torch

from nfnet_mm.converters import ConversionError, describe, from_deepmind, from_timm, to_timm
from nfnet_mm.converters.load import check_arch, find_arch
from nfnet_mm.models.backbones.arch import FAMILIES, Network, find_network
from nfnet_mm.registry import MODELS
from tests.converters.networks import ROOTS, deepmind_tree

# Millions of parameters, with 1000 classes.
PARAMETERS = {
    # NFNets, Table 3
    'nfnet_f0': 71.5,
    'nfnet_f1': 132.6,
    # NF-ResNets, Table 3
    'nf_regnet_b0': 8.6,
    'nf_regnet_b1': 10.0,
}


def classifier_state(family, arch, classes=3):
    """Of the shapes of a variant of the table, with no memory behind it."""
    with torch.device('meta'):
        backbone = MODELS.build(dict(Network(family, arch).cfg, out_indices=(4,)))
        head = torch.nn.Linear(backbone.out_channels[0], classes)
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    return state | {f'head.fc.{k}': v for k, v in head.state_dict().items()}


def test_sizes_of_no_variant():
    """Groups differ by stage, a hidden width by block, and no ratio of channels gives it."""
    arch = dict(widths=(24, 32, 48, 48), depths=(1, 3, 1, 2), group_width=(6, 4, 3, 8), stem_channels=(5, 6, 7, 8))
    with torch.device('meta'):
        backbone = MODELS.build(dict(type='NFNet', arch=arch, out_indices=(4,), in_channels=4))
    state = {f'backbone.{k}': v for k, v in backbone.state_dict().items()}
    for block, hidden in (('1.1', 7), ('3.1', 29)):
        channels = len(state[f'backbone.stages.{block}.attention.fc2.bias'])
        for name, shape in {
            'fc1.weight': (hidden, channels),
            'fc1.bias': (hidden,),
            'fc2.weight': (channels, hidden),
        }.items():
            state[f'backbone.stages.{block}.attention.{name}'] = torch.empty(shape, device='meta')
    layout = describe(state, head=False)
    assert (layout.widths, layout.depths, layout.group_widths) == (arch['widths'], arch['depths'], arch['group_width'])
    assert (layout.mid_widths, layout.se_hidden, layout.stem_channels) == ((12, 16, 24, 24), 29, 8)
    assert (layout.in_channels, layout.num_classes, find_arch(layout, 'authors')) == (4, None, None)
    assert layout.parameters == sum(v.numel() for v in state.values())


@pytest.mark.parametrize('family', ROOTS)
def test_any_weight_that_is_missing_is_named(family):
    ours = from_deepmind(deepmind_tree(family))
    for key in ours:
        with pytest.raises(ConversionError, match=f': 1 missing: {re.escape(key)}$'):
            describe({k: v for k, v in ours.items() if k != key})


def variants():
    """All of the table; the deep ones, which take seconds to build, for the slow run."""
    for family in ROOTS:
        rows = FAMILIES[family][1]
        for arch, row in rows.items():
            yield pytest.param(family, arch, marks=[pytest.mark.slow] if sum(row.depths) > 16 else [])


@pytest.mark.parametrize('family, arch', variants())
def test_every_variant_is_found(family, arch):
    state = classifier_state(family, arch)
    layout = describe(state)
    assert layout.family == family and list(layout.shapes) == list(state)
    assert find_arch(layout, FAMILIES[family][1][arch].dialect) == check_arch(layout, arch) == arch


@pytest.mark.parametrize('name, millions', PARAMETERS.items())
def test_weights_keep_their_network_under_timms_names(name, millions):
    network = find_network(name)
    state = classifier_state(network.family, network.key, classes=1000)
    layout = describe(from_timm(to_timm(state)))
    assert find_arch(layout, network.arch.dialect) == network.key
    assert layout.parameters / 1e6 == pytest.approx(millions, abs=0.06)


def test_dialects_tell_variants_of_one_shape_apart():
    layout = describe(classifier_state('NFNet', 'F0'))
    assert find_arch(layout, 'authors') == 'F0' and find_arch(layout, 'timm') == 'timm/dm_nfnet_f0'


@pytest.mark.slow
def test_timms_models_are_found():
    timm = pytest.importorskip('timm')
    names = [n for pattern in ('nf_*', '*nfnet*') for n in timm.list_models(pattern)]
    assert len(names) == 36  # of timm 1.0.31
    missing = []
    for name in names:
        with torch.device('meta'):
            state = timm.create_model(name).state_dict()
        arch = find_arch(describe(from_timm(state)), 'timm')
        if arch != find_network(f'timm/{name}').key:
            missing.append((name, arch))
    assert not missing


def test_stated_variant():
    layout = describe(classifier_state('NFNet', 'nano'))
    with pytest.raises(ConversionError, match=r"not F1's: they have depths \(1, 1, 1, 1\), not \(2, 4, 12, 6\); .*"):
        check_arch(layout, 'F1')
    with pytest.raises(ConversionError, match="NFNet arch 'B0' is unknown.* Known: F0, "):
        check_arch(layout, 'B0')
    # What the layout sums up fits; a block inside a stage does not.
    state = classifier_state('NFNet', 'F1')
    for name, shape in {
        'conv0.weight': (128, 512, 1, 1),
        'conv0.gain': (128,),
        'conv0.bias': (128,),
        'conv1.weight': (128, 128, 3, 3),
        'conv1.gain': (128,),
        'conv1.bias': (128,),
        'conv1b.weight': (128, 128, 3, 3),
        'conv1b.gain': (128,),
        'conv1b.bias': (128,),
        'conv2.weight': (512, 128, 1, 1),
    }.items():
        state[f'backbone.stages.1.1.{name}'] = torch.empty(shape, device='meta')
    with pytest.raises(ConversionError, match=r"not F1's: .*1\.1\.conv0\.bias has shape \(128,\), not \(256,\)"):
        check_arch(describe(state), 'F1')
