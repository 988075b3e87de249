"""Options that name a ResNet's parameters: what each key decides before and after."""

from importlib import import_module

import pytest

from nfnet_mm.registry import MODELS
from nfnet_mm.swap.parameter_names import Swapped, swapped_parts, translate_keys

RESNET = dict(type='ResNet', depth=50)
F0, NF50 = dict(type='nfnet_mm.NFNet', arch='F0'), dict(type='nfnet_mm.NFResNet', depth=50)


def decided(keys, names):
    """{key: parameters that it decides}, by mmengine's own loop."""
    out = {key: [] for key in keys}
    for name in names:
        for key in sorted(sorted(keys.keys()), key=len, reverse=True):
            if key in name:
                out[key].append(name)
                break
    return out


def translated(keys, new=NF50, old=RESNET, places=('backbone',)):
    keys = {key: dict(lr_mult=i) for i, key in enumerate(keys)}
    result, notes = translate_keys(keys, [Swapped(places, old, new)])
    names = [f'{places[0]}.{name}' for name, _ in MODELS.build(dict(new)).named_parameters()]
    return {key: value['lr_mult'] for key, value in result.items()}, notes, decided(result, names)


@pytest.mark.parametrize(
    'key, new_key, starts',
    [
        ('backbone.layer4', 'backbone.stages.3', 'backbone.stages.3.'),
        ('backbone.layer3.5', 'backbone.stages.2.5.', 'backbone.stages.2.5.'),
        ('backbone.layer1.', 'backbone.stages.0.', 'backbone.stages.0.'),
        ('backbone.layer2.0.conv2', 'backbone.stages.1.0.conv1', 'backbone.stages.1.0.conv1'),
        ('backbone.layer2.0.downsample.0', 'backbone.stages.1.0.conv_shortcut', 'backbone.stages.1.0.conv_shortcut.'),
        ('backbone.conv1', 'backbone.stem', 'backbone.stem.'),
        ('backbone.layer', 'backbone.stages', 'backbone.stages.'),
    ],
)
def test_parts_of_the_backbone(key, new_key, starts):
    keys, notes, decides = translated([key])
    assert keys == {new_key: 0} and notes == [f'{key!r} -> {new_key!r}']
    names = [f'backbone.{name}' for name, _ in MODELS.build(dict(NF50)).named_parameters()]
    assert decides[new_key] == [name for name in names if name.startswith(starts)] != []


def test_a_key_that_may_match_elsewhere_stays_beside():
    keys, notes, decides = translated(['layer4', 'downsample'])
    assert keys == {'layer4': 0, 'stages.3': 0, 'downsample': 1, 'conv_shortcut': 1}
    assert notes == ["'stages.3' added beside 'layer4'", "'conv_shortcut' added beside 'downsample'"]
    # of the four shortcuts, that of the last stage is decided by the longer key, as it was
    assert {name.split('.')[2] for name in decides['conv_shortcut']} == {'0', '1', '2', '3'}
    assert not any('conv_shortcut' in name for name in decides['stages.3'])


@pytest.mark.parametrize('key', ['backbone', 'backbone.', 'back', 'weight', 'bias', 'roi_head', 'norm', 'level_embed'])
def test_keys_that_mean_the_same_stay_without_a_word(key):
    assert translated([key])[:2] == ({key: 0}, [])


@pytest.mark.parametrize(
    'key, new, note',
    [
        ('bn', F0, "'bn' named 98 parameters of norm layers in the ResNet, and the new network has none"),
        ('backbone.bn1', F0, "'backbone.bn1' named 2 parameters of norm layers"),
        ('downsample.1', F0, "'downsample.1' named 8 parameters of norm layers"),
        ('layer3.0.bn2', F0, "'layer3.0.bn2' named 2 parameters of norm layers"),
        ('backbone.layer1.2', F0, "'backbone.layer1.2' names a part of the ResNet without counterpart"),
        ('backbone.layer1.2.conv1', F0, "'backbone.layer1.2.conv1' names a part of the ResNet without counterpart"),
        (
            'conv1',
            NF50,
            "'conv1' named 17 parameters of the ResNet and names 48 of the new network, which may be others",
        ),
        (
            'attention',
            F0,
            "WARNING: 'attention' decided nothing in the ResNet, and does in the new network, for example "
            "for 'backbone.stages.0.0.attention.",
        ),
        ('backbone.stem', NF50, "WARNING: 'backbone.stem' decided nothing in the ResNet, and does"),
    ],
)
def test_keys_that_stay_with_a_note(key, new, note):
    keys, notes, _ = translated([key], new)
    assert keys == {key: 0} and len(notes) == 1 and notes[0].startswith(note)


def test_stems_of_three_convs():
    keys, notes, decides = translated(
        ['backbone.stem.0', 'backbone.stem.6', 'backbone.stem'], F0, dict(type='ResNetV1c', depth=101)
    )
    assert keys == {'backbone.stem.conv0': 0, 'backbone.stem.conv2': 1, 'backbone.stem': 2}
    assert notes == ["'backbone.stem.0' -> 'backbone.stem.conv0'", "'backbone.stem.6' -> 'backbone.stem.conv2'"]
    assert {name.split('.')[2] for name in decides['backbone.stem']} == {'conv1', 'conv3'}


def test_the_longest_key_wins_before_and_after():
    # 'backbone' always won over 'layer3.5', which therefore must not become 'stages.2.5' and win
    keys, notes, decides = translated(['backbone', 'layer3.5'])
    assert keys == {'backbone': 0, 'layer3.5': 1} and notes == [] and decides['layer3.5'] == []
    # 'layer3.0' won over 'conv1.w', being longer; and does
    keys, notes, _ = translated(['backbone.layer3', 'backbone.layer3.0.conv3.weight'])
    assert list(keys) == ['backbone.stages.2', 'backbone.stages.2.0.conv2.weight']


def test_another_winner_is_told():
    parts = [
        Swapped(('backbone',), RESNET, NF50),
        Swapped(
            ('roi_head.shared_head',),
            dict(type='ResLayer', depth=50),
            dict(type='nfnet_mm.NFStage', backbone=dict(NF50), stage=3),
        ),
    ]
    # of keys of one length the first in the alphabet won; the translation is the longer one
    keys, notes = translate_keys({'backbone': 0, 'layer4.1': 1}, parts)
    assert keys == {'backbone': 0, 'layer4.1': 1, 'stages.3.1.': 1}
    assert notes[-1] == (
        "WARNING: 'stages.3.1.' now wins over 'backbone', for example for "
        "'backbone.stages.3.1.skip_gain', where 'backbone' won over 'layer4.1': state what you want"
    )


def test_two_keys_that_become_one():
    keys, notes, _ = translated(['backbone.layer4', 'backbone.stages.3'])
    assert keys == {'backbone.stages.3': 0}
    assert notes[-1] == (
        "WARNING: 'backbone.stages.3' and 'backbone.layer4' both become 'backbone.stages.3', with the "
        'settings of the latter'
    )


def test_a_shared_head_has_its_own_names():
    part = Swapped(
        ('roi_head.shared_head',),
        dict(type='ResLayer', depth=50),
        dict(type='nfnet_mm.NFStage', backbone=dict(F0), stage=3),
    )
    assert {name.split('.')[2] for name, _ in part.old_names()} == {'layer4'}
    keys, _ = translate_keys({'roi_head.shared_head.layer4.1': 1}, [part])
    assert keys == {'roi_head.shared_head.stages.3.1.': 1}


F1 = dict(type='nfnet_mm.NFNet', arch='F1')  # 12 blocks in its third stage


@pytest.mark.parametrize('old, blocks', [(RESNET, {'1'}), (dict(RESNET, depth=101), {'1', '10', '11'})])
def test_a_block_is_no_other_block_unless_it_was(old, blocks):
    # ResNet-101's third stage has blocks 10 to 19, which the key named too
    for key in ('backbone.layer3.1', 'layer3.1'):
        _, _, decides = translated([key], F1, old)
        names = [name for key, names in decides.items() if 'stages' in key for name in names]
        assert {name.split('.')[3] for name in names} == blocks


def test_all_stages_without_the_backbones_name():
    keys, notes, decides = translated(['layer'])
    assert keys == {'layer': 0, 'stages': 0} and notes == ["'stages' added beside 'layer'"]
    assert decides['stages'] and all(name.startswith('backbone.stages.') for name in decides['stages'])


def test_norm_layers_keys_say_what_gains_get():
    _, (note,), _ = translated(['bn'])
    assert "'gain', which never decay, nor does LARS scale them: see NFOptimWrapperConstructor" in note


def test_models_in_lists():
    old = dict(type='Ensemble', detectors=[dict(type='A', backbone=RESNET), dict(type='B', backbone=(RESNET,))])
    new = dict(type='Ensemble', detectors=[dict(type='A', backbone=F0), dict(type='B', backbone=(F0,))])
    parts = list(swapped_parts(old, new))
    assert [part.places for part in parts] == [('detectors.0.backbone',), ('detectors.1.backbone.0',)]
    keys, _ = translate_keys({'detectors.0.backbone.layer4': 1}, parts)
    assert keys == {'detectors.0.backbone.stages.3': 1}


RESNETS = [
    dict(depth=18),
    dict(depth=50),
    dict(depth=50, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)),
    dict(type='ResNetV1c', depth=50),
    dict(type='ResNetV1d', depth=50),
    dict(type='ResNeXt', depth=50),
    dict(depth=50, norm_cfg=dict(type='GN', num_groups=32)),
    dict(depth=50, deep_stem=True, avg_down=True),
]


@pytest.mark.parametrize('framework', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.parametrize('cfg', RESNETS, ids=str)
def test_names_are_the_frameworks_own(framework, cfg):
    pytest.importorskip('mmcv')
    pytest.importorskip(framework)
    from mmengine.registry import MODELS as ROOT

    import_module(f'{framework}.models')
    cfg = dict(dict(type='ResNet'), **cfg)
    with ROOT.switch_scope_and_registry(framework) as registry:
        if cfg['type'] not in registry:
            pytest.skip(f'{framework} has no {cfg["type"]}')
        net = registry.build(dict(cfg))
    ours = {name for name, _ in Swapped(('b',), cfg, {}, framework).old_names()}
    theirs = {f'b.{name}' for name, _ in net.named_parameters()}
    assert theirs <= ours
    # a shallow first block has no conv on its shortcut, which is all that may be too many
    assert all('.downsample.' in name and cfg['depth'] == 18 for name in ours - theirs)
