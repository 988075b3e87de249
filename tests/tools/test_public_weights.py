"""tools/test.py on public files: scored as they are by the network that they are of, refused in one line otherwise."""

import argparse
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from nfnet_mm.converters import convert_file, from_deepmind, to_timm
from nfnet_mm.registry import MODELS
from tests.converters.networks import deepmind_tree

pytest.importorskip('mmpretrain')
timm = pytest.importorskip('timm')

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CLASSES = 5
CONFIG = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(out_indices=(4,), {backbone}),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='nfnet_mm.NFClsHead', num_classes={classes}, in_channels={features}))
data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
test_dataloader = dict(
    batch_size=3, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset', data_root={root!r},
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
test_evaluator = dict(type='Accuracy', topk=1)
test_cfg = dict()
{more}
"""
TIMMS = dict(backbone="type='nfnet_mm.NFNet', arch='timm/test_nfnet'", features=192)
NANO = dict(backbone="type='nfnet_mm.NFNet', arch='nano'", features=256)
# the shapes of tests.converters.networks.deepmind_tree
TREE = dict(
    backbone="type='nfnet_mm.NFNet', arch=dict(widths=(8, 16, 16, 24), depths=(1, 2, 1, 1), stem_channels=4, "
    'group_width=4, final_channels=48)',
    features=48,
)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """A folder of classes, a 64 px picture of noise in each, and the pictures as a network reads them."""
    root, random, images = tmp_path_factory.mktemp('pictures'), np.random.default_rng(0), []
    for label in range(CLASSES):
        (root / f'class{label}').mkdir()
        images.append(random.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        Image.fromarray(images[-1]).save(root / f'class{label}' / 'a.png')
    images = (np.stack(images) - np.array(MEAN)) / np.array(STD)
    return root, torch.from_numpy(images).float().permute(0, 3, 1, 2)


@pytest.fixture
def score(run_tool, tmp_path, pictures):
    """score(file, **what the config has) -> each picture's scores, or the line of the error."""

    def score(file, *args, classes=CLASSES, more='', **network):
        number = len(list(tmp_path.glob('*.py')))
        config, out = tmp_path / f'config{number}.py', tmp_path / f'{number}.pkl'
        config.write_text(CONFIG.format(root=str(pictures[0]), classes=classes, more=more, **network))
        options = ['--work-dir', tmp_path / f'run{number}', '--out', out, *args]
        code, errors = run_tool('test', config, file, *options, '--cfg-options', f'experiment_name=public{number}')
        if code:
            assert code == 2 and errors.count('\n') == 1, errors
            return errors
        return torch.stack([sample['pred_score'] for sample in pickle.loads(out.read_bytes())])

    return score


def random_weights(arch, seed=0):
    """A classifier's state dict under our names, every weight random."""
    torch.manual_seed(seed)
    net = MODELS.build(dict(type='nfnet_mm.NFNet', arch=arch, out_indices=(4,)))
    state = {f'backbone.{key}': torch.randn_like(value) / 4 for key, value in net.state_dict().items()}
    return state | {'head.fc.weight': torch.randn(CLASSES, net.out_channels[0]), 'head.fc.bias': torch.randn(CLASSES)}


def test_timms_files_score_what_timm_computes(score, tmp_path, pictures):
    torch.manual_seed(0)
    net = timm.create_model('test_nfnet', num_classes=CLASSES).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.25)
    with torch.no_grad():
        want = net(pictures[1]).softmax(1)
    torch.save(net.state_dict(), tmp_path / 'timm.pth')
    convert_file(tmp_path / 'timm.pth', tmp_path / 'ours.pth')
    convert_file(tmp_path / 'timm.pth', tmp_path / 'timm.safetensors', to='timm')
    for name in ('timm.pth', 'ours.pth', 'timm.safetensors'):
        torch.testing.assert_close(score(tmp_path / name, **TIMMS), want, rtol=1e-4, atol=1e-5, msg=name)


def test_deepminds_file_is_scored(score, tmp_path, pictures):
    tree = deepmind_tree(classes=CLASSES)
    (tmp_path / 'F0_haiku.npz').write_bytes(pickle.dumps(tree))
    scope = {}
    exec(f'cfg = dict({TREE["backbone"]}, out_indices=(4,))', scope)
    net, state = MODELS.build(scope['cfg']), from_deepmind(tree)
    net.load_state_dict({k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')})
    with torch.no_grad():
        features = net.eval()(pictures[1])[0].mean((2, 3))
        want = (features @ state['head.fc.weight'].T + state['head.fc.bias']).softmax(1)
    torch.testing.assert_close(score(tmp_path / 'F0_haiku.npz', **TREE), want, rtol=1e-4, atol=1e-5)


def test_the_log_says_what_was_recognised(score, tmp_path):
    torch.save(to_timm(random_weights('nano')), tmp_path / 'dm_nano.pth')
    score(tmp_path / 'dm_nano.pth', **NANO)
    (log,) = (tmp_path / 'run0').rglob('*.log')
    told = f"'{tmp_path}/dm_nano.pth' holds timm's weights of nfnet_nano (dialect authors): converted in memory"
    assert told in log.read_text()


def test_a_bare_state_dict_of_ours_works_beside_a_moving_average(score, tmp_path):
    """mmengine's EMAHook reads checkpoint['state_dict'] of whatever is loaded."""
    torch.save(random_weights('nano'), tmp_path / 'bare.pth')
    want = score(tmp_path / 'bare.pth', **NANO)
    ema = "custom_hooks = [dict(type='EMAHook')]"
    torch.testing.assert_close(score(tmp_path / 'bare.pth', more=ema, **NANO), want)
    torch.save(to_timm(random_weights('nano')), tmp_path / 'dm_nano.pth')
    torch.testing.assert_close(score(tmp_path / 'dm_nano.pth', more=ema, **NANO), want)


def arch(name, features):
    return dict(backbone=f"type='nfnet_mm.NFNet', arch={name!r}", features=features)


@pytest.mark.parametrize(
    'weights, config, message',
    [
        (
            'nano',
            dict(TIMMS),
            "holds timm's weights of nfnet_nano (dialect authors), and model.backbone of the config is "
            "timm/test_nfnet; they are scored by model.backbone=dict(type='nfnet_mm.NFNet', arch='nano', ...)",
        ),
        (
            'timm/test_nfnet',
            dict(NANO),
            "is nfnet_nano; they are scored by model.backbone=dict(type='nfnet_mm.NFNet', arch='timm/test_nfnet', ...)",
        ),
        ('nano', dict(NANO, classes=7), 'of nfnet_nano (dialect authors) for 5 classes, and model.head.num_classes=7'),
        (
            'nano',
            dict(NANO, backbone=f'{NANO["backbone"]}, in_channels=1'),
            'for images of 3 channels, and model.backbone.in_channels=1',
        ),
        (
            'nano',
            dict(backbone="type='ResNet', depth=18", features=512),
            "model.backbone of the config is 'ResNet', none of this package's networks",
        ),
        (
            'nano',
            dict(arch(dict(widths=(8, 8, 8, 8), group_width=4), 16)),
            'is NFNet in a design that has no name (dialect authors), with another shape of backbone.',
        ),
        # of the same shapes, in the other dialect
        (
            'nano',
            dict(
                arch(
                    dict(
                        widths=(32, 64, 96, 128),
                        depths=(1, 1, 1, 1),
                        stem_channels=(8, 16, 16, 32),
                        group_width=16,
                        dialect='timm',
                    ),
                    256,
                )
            ),
            'or converted with --dialect timm, for what timm computes with them',
        ),
    ],
)
def test_weights_of_another_network_are_refused(score, tmp_path, weights, config, message):
    torch.save(to_timm(random_weights(weights)), tmp_path / 'public.pth')
    errors = score(tmp_path / 'public.pth', **config)
    assert isinstance(errors, str) and message in errors
    assert not list(tmp_path.glob('run*'))  # before anything is built


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_files_that_are_no_weights(score, tmp_path):
    state = to_timm(random_weights('nano'))
    torch.save(state, tmp_path / 'whole.pth')
    whole = (tmp_path / 'whole.pth').read_bytes()
    harm = str(tmp_path / 'harm')
    files = {
        'cut.pth': (whole[:9999], 'is cut off or broken'),
        'cut.npz': (pickle.dumps(deepmind_tree())[:999], 'the pickle is cut off'),
        'page.safetensors': (b'<html>Not found</html>', 'it is text'),
        'harm.npz': (pickle.dumps(dict(a=Harmful(harm))), 'the pickle asks for posix.mkdir'),
        'text.pth': (b'\0\1\2\3 no weights', 'as no pickle, .pth or .safetensors file does'),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        errors = score(tmp_path / name, **NANO)
        assert isinstance(errors, str) and message in errors, name
    for name, content, message in [
        ('harm.pth', dict(state, more=Harmful(harm)), 'it asks for posix.mkdir, which is no weight'),
        ('train.pth', dict(state_dict=state, args=argparse.Namespace()), 'it asks for argparse.Namespace'),
    ]:
        torch.save(content, tmp_path / name)
        errors = score(tmp_path / name, **NANO)
        assert isinstance(errors, str) and message in errors, name
    assert not os.path.exists(harm)


def test_a_run_s_own_checkpoint_is_mmengine_s(score, tmp_path):
    """With what mmengine stores in it, and held against the model as before."""
    state = random_weights('nano')
    torch.save(dict(state_dict=state, meta=dict(time=np.float64(1))), tmp_path / 'run.pth')
    torch.save(to_timm(state), tmp_path / 'timm.pth')
    want = score(tmp_path / 'timm.pth', **NANO)
    torch.testing.assert_close(score(tmp_path / 'run.pth', **NANO), want, rtol=0, atol=0)
    torch.save(dict(state_dict=dict(state, extra=torch.zeros(1))), tmp_path / 'more.pth')
    assert 'the checkpoint is not of this model (ImageClassifier): 1 left over: extra' in score(
        tmp_path / 'more.pth', **NANO
    )


def test_a_detector_is_not_scored_by_its_backbones_weights(run_tool, tmp_path):
    torch.save(to_timm(random_weights('nano')), tmp_path / 'dm_nano.pth')
    config = tmp_path / 'detector.py'
    config.write_text(
        "model = dict(type='Detector', backbone=dict(type='nfnet_mm.NFNet', arch='nano'), neck=dict(type='FPN'))\n"
    )
    code, errors = run_tool('test', config, tmp_path / 'dm_nano.pth')
    assert code == 2 and errors.count('\n') == 1
    assert 'the model of the config is a Detector, which has more parts than that: train it from them' in errors
