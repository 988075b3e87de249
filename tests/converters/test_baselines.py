"""The papers' baselines: DeepMind's trees with BatchNorm's averages, and checkpoints of ours."""

import re

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from nfnet_mm.converters import ConversionError, describe, from_deepmind
from nfnet_mm.converters.convert import convert_file
from nfnet_mm.errors import UserError
from tests.converters.networks import deepmind_tree
from tests.golden import BACKBONES, BASELINES, FEATURES, Golden

BN = [family for family in BASELINES if family.startswith('bn_')]


@pytest.fixture(params=BASELINES)
def golden(request):
    return Golden(request.param)


def classifier(family, num_classes=10, checkpoint=None, of='backbone', **init):
    """A fresh one, with ``NFPretrained`` in the backbone or, with ``of='classifier'``, in the whole."""
    init_cfg = checkpoint and dict(type='nfnet_mm.NFPretrained', checkpoint=str(checkpoint), **init)
    inner, outer = (dict(init_cfg=init_cfg), {}) if of == 'backbone' else ({}, dict(init_cfg=init_cfg))
    backbone = dict((BACKBONES | BASELINES)[family], out_indices=(4,), **inner)
    neck = dict(type='mmpretrain.GlobalAveragePooling')
    head = dict(type='nfnet_mm.NFClsHead', num_classes=num_classes, in_channels=FEATURES.get(family, 128))
    return MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck, head=head, **outer))


def saved(state, path):
    torch.save({'state_dict': state, 'meta': {}}, path)
    return path


def one_line(error, *parts):
    assert '\n' not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_the_classifier_of_a_tree_gives_the_authors_logits(golden):
    model = golden.classifier()  # loads strictly
    with torch.no_grad():
        ours = model(golden.input)
    assert (ours - golden['logits']).abs().max() <= 2e-6 * golden['logits'].abs().max()


@pytest.mark.parametrize('family', BN)
def test_averages_after_a_step_are_the_authors(family):
    """From their constructed state, whose ``hidden`` does not follow from average and counter."""
    golden = Golden(family)
    params, old, new = (golden.modules(kind) for kind in ('param', 'state', 'newstate'))
    model = golden.classifier().train()
    model.load_state_dict(from_deepmind(params, old))
    model(golden.input)
    ours, want = model.state_dict(), from_deepmind(params, new)
    averages = [key for key in want if '.running_' in key]
    assert len(averages) == len(new)
    for key in averages:
        assert (ours[key] - want[key]).abs().max() <= 2e-6 * want[key].abs().max(), key
        assert ours[f'{key.rpartition(".")[0]}.num_batches_tracked'] == 1


@pytest.mark.parametrize('counter', [0, 5])
@pytest.mark.parametrize('family', BN)
def test_averages_go_on_from_the_converted_state_as_the_authors_do(family, counter):
    """In a state of training: hidden = d hidden + (1 - d) statistic, average = hidden / (1 - d^counter), d = 0.9."""
    golden = Golden(family)
    old, new = golden.modules('state'), golden.modules('newstate')
    state, want, scale = {}, {}, {}
    for path, leaves in old.items():
        hidden = leaves['average'] * (1 - 0.9**counter)
        state[path] = dict(counter=np.int32(counter), average=leaves['average'], hidden=hidden.astype(np.float32))
        statistic = new[path]['average'].astype(np.float64) - 9 * leaves['hidden']
        hidden = 0.9 * hidden + 0.1 * statistic
        want[path] = dict(counter=np.int32(counter + 1), average=hidden / (1 - 0.9 ** (counter + 1)))
        scale[path] = dict(counter=np.int32(0), average=np.abs(new[path]['average']) + 9 * np.abs(leaves['hidden']))
    params = golden.modules('param')
    model = golden.classifier().train()
    given = from_deepmind(params, state)
    assert not any('.hidden_' in key for key in given)
    model.load_state_dict(given)
    model(golden.input)
    ours, want, scale = model.state_dict(), from_deepmind(params, want), from_deepmind(params, scale)
    averages = [key for key in want if '.running_' in key]
    assert len(averages) == len(old)
    for key in averages:
        assert (ours[key] - want[key]).abs().max() <= 2e-6 * scale[key].max(), key
        assert ours[f'{key.rpartition(".")[0]}.num_batches_tracked'] == counter + 1


def test_hidden_follows_from_average_and_counter():
    """Why it need not be kept: hidden = average * (1 - decay^counter), decay 0.9."""
    for leaves in Golden('bn_resnet').modules('newstate').values():
        hidden = leaves['average'] * (1 - 0.9 ** float(leaves['counter']))
        np.testing.assert_allclose(leaves['hidden'], hidden, rtol=2e-5, atol=1e-7)


def test_a_batchnorm_tree_needs_its_whole_state():
    golden = Golden('bn_resnet')
    tree, state = golden.modules('param'), golden.modules('state')
    path = 'ResNet/~/final_bn/~/mean_ema'
    without = {key: value for key, value in state.items() if key != path}
    for given in (None, {}):
        with pytest.raises(UserError, match='state is missing: the averages of') as error:
            from_deepmind(tree, given)
        one_line(error)
    wrong = {
        'running_mean': without,
        'of no BatchNorm of the tree': {**state, 'ResNet/~/other_bn/~/mean_ema': state[path]},
        'has no average': {**state, path: {'counter': state[path]['counter']}},
        'batches, its fellow': {**state, path: {**state[path], 'counter': np.int32(7)}},
        'needs (1, 1, 1, C)': {**state, path: {**state[path], 'average': state[path]['average'].ravel()}},
        'is a mapping': [1],
    }
    for told, given in wrong.items():
        with pytest.raises(ConversionError) as error:
            from_deepmind(tree, given)
        one_line(error, told)
    with pytest.raises(ConversionError, match='of no BatchNorm of the tree'):
        from_deepmind(Golden('fixup_resnet').modules('param'), state)


def test_a_checkpoint_of_ours_goes_into_a_backbone_with_other_classes(golden, tmp_path):
    """Such as a classifier of 21,841 classes into the backbone of a 1000-class one; the averages come along."""
    tree = {key: value for key, value in golden.tree('param').items() if '.hidden_' not in key}
    path = saved({**tree, 'head.fc.weight': torch.zeros(21, 128), 'head.fc.bias': torch.zeros(21)}, tmp_path / 'a.pth')
    model = classifier(golden.family, 5, path)
    model.init_weights()
    state = model.state_dict()
    assert {key for key in tree if key.startswith('backbone.')} == {k for k in state if k.startswith('backbone.')}
    assert all(torch.equal(state[key], value) for key, value in tree.items() if key.startswith('backbone.'))
    assert state['head.fc.weight'].shape == (5, 128)


def test_a_checkpoint_of_ours_goes_into_a_whole_classifier(golden, tmp_path):
    tree = golden.tree('param')
    path = saved(tree, tmp_path / 'a.pth')
    model = classifier(golden.family, 10, path, of='classifier')
    model.init_weights()
    assert all(torch.equal(value, tree[key]) for key, value in model.state_dict().items())
    with pytest.raises(ConversionError, match='new_head=True keeps the new head'):
        classifier(golden.family, 5, path, of='classifier').init_weights()
    model = classifier(golden.family, 5, path, of='classifier', new_head=True)
    model.init_weights()
    assert all(torch.equal(v, tree[k]) for k, v in model.state_dict().items() if k.startswith('backbone.'))


def test_only_parts_a_backbone_was_built_without_stay_unused(golden, tmp_path):
    tree = golden.tree('param')
    cfg = BASELINES[golden.family]
    init = dict(type='nfnet_mm.NFPretrained', checkpoint=str(saved(tree, tmp_path / 'a.pth')))
    net = MODELS.build(dict(cfg, out_indices=(1, 2), init_cfg=init))
    net.init_weights()
    state = net.state_dict()
    assert not any(key.startswith(('stages.3.', 'final_bn.', 'bias2')) for key in state)
    assert all(torch.equal(value, tree[f'backbone.{key}']) for key, value in state.items())
    key = next(k for k in tree if k.startswith('backbone.stages.1.') and not k.endswith('conv0.weight'))
    broken = {k: v for k, v in tree.items() if k != key}
    init['checkpoint'] = str(saved(broken, tmp_path / 'b.pth'))
    with pytest.raises(ConversionError, match='1 missing in the file') as error:
        MODELS.build(dict(cfg, out_indices=(1, 2), init_cfg=init)).init_weights()
    one_line(error, key.removeprefix('backbone.'))


@pytest.mark.parametrize(
    'file, into, holds',
    [
        ('nf_resnet', 'bn_resnet', 'a normalizer-free network'),
        ('bn_resnet', 'nf_resnet', 'a BatchNorm network'),
        ('fixup_resnet', 'skipinit_resnet', 'a FixupResNet'),
    ],
)
def test_a_file_of_another_network_is_refused(file, into, holds, tmp_path):
    golden = Golden(file)
    path = saved(golden.tree('param'), tmp_path / 'a.pth')
    with pytest.raises(ConversionError) as error:
        classifier(into, 10, path).init_weights()
    one_line(error, 'does not fit the model', 'a.pth', f'it holds {holds}, not')


def test_a_baselines_file_keeps_its_names_and_has_none_in_timm(golden, tmp_path):
    tree = {key: value for key, value in golden.tree('param').items() if '.hidden_' not in key}
    source = saved(tree, tmp_path / 'a.pth')
    summary = convert_file(source, tmp_path / 'b.pth')
    written = torch.load(tmp_path / 'b.pth')['state_dict']
    assert written.keys() == tree.keys() and all(torch.equal(written[key], tree[key]) for key in tree)
    assert summary.family == BASELINES[golden.family]['type'].removeprefix('nfnet_mm.')
    assert summary.parameters == sum(
        array.size for leaves in golden.modules('param').values() for array in leaves.values()
    )
    with pytest.raises(ConversionError, match=f'timm has no {summary.family}'):
        convert_file(source, tmp_path / 'c.pth', to='timm')
    assert not (tmp_path / 'c.pth').exists()


def test_a_tree_of_two_networks_is_refused():
    with pytest.raises(ConversionError, match='FixUp_ResNet'):
        from_deepmind({**Golden('fixup_resnet').modules('param'), **deepmind_tree('NFResNet')})


def test_batchnorm_of_a_detectors_neck_does_not_say_what_its_backbone_is(tmp_path):
    tree = Golden('fixup_resnet').tree('param')
    path = saved({**tree, 'neck.bn.running_mean': torch.zeros(1)}, tmp_path / 'a.pth')
    model = classifier('fixup_resnet', 5, path)
    model.init_weights()
    assert torch.equal(model.state_dict()['backbone.bias2'], tree['backbone.bias2'])


def test_any_weight_that_is_missing_is_named(golden):
    ours = golden.classifier().state_dict()
    ours = {key: value for key, value in ours.items() if '.hidden_' not in key}
    for key in ours:
        with pytest.raises(ConversionError, match=f'1 missing: {re.escape(key)}$'):
            describe({k: v for k, v in ours.items() if k != key})


@pytest.mark.parametrize('how, channels', [('mean', 1), ('cycle', 6)])
def test_other_images_keep_the_scale(how, channels, tmp_path):
    """A grey image as so many channels gives the features that it gives as three."""
    golden = Golden('bn_resnet')
    model = golden.classifier()
    path = saved({k: v for k, v in model.state_dict().items() if '.hidden_' not in k}, tmp_path / 'a.pth')
    init = dict(type='nfnet_mm.NFPretrained', checkpoint=str(path), in_channels=how)
    net = MODELS.build(dict(BASELINES['bn_resnet'], in_channels=channels, out_indices=(4,), init_cfg=init)).eval()
    net.init_weights()
    grey = golden.input[:, :1]
    with torch.no_grad():
        ours, theirs = net(grey.expand(-1, channels, -1, -1))[0], model.backbone(grey.expand(-1, 3, -1, -1))[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
