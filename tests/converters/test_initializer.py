import io
import logging
import pickle
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.registry import MODELS

from nfnet_mm.converters import ConversionError, NFPretrained, from_deepmind, to_timm
from tests.converters.networks import deepmind_tree, golden_tree
from tests.golden import Golden, relative

ARCH = dict(widths=(8, 16, 16, 24), depths=(1, 2, 1, 1), group_width=4)
STAGES = (0, 1, 2, 3)


def backbone(checkpoint, out_indices=STAGES, in_channels=3, arch=ARCH, prefix=None, adapt=None):
    return MODELS.build(
        dict(
            type='nfnet_mm.NFNet',
            arch=arch,
            out_indices=out_indices,
            in_channels=in_channels,
            init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=str(checkpoint), prefix=prefix, in_channels=adapt),
        )
    )


@pytest.fixture
def tree():
    return deepmind_tree()


@pytest.fixture
def ours(tree):
    return from_deepmind(tree)


@pytest.fixture(params=['deepmind', 'timm', 'classifier', 'detector', 'backbone', 'wrapped'])
def checkpoint(request, tree, ours, tmp_path):
    """The same weights in every form they come in; the suffix says nothing."""
    path = tmp_path / 'weights.bin'
    bare = {k.removeprefix('backbone.'): v for k, v in ours.items() if k.startswith('backbone.')}
    neck = {'neck.conv.weight': torch.zeros(1), 'rpn_head.rpn_cls.weight': torch.zeros(1)}
    detector = {k: v for k, v in ours.items() if not k.startswith(('backbone.final_conv', 'head.'))} | neck
    content = dict(
        deepmind=lambda: path.write_bytes(pickle.dumps(tree)),
        timm=lambda: torch.save(to_timm(ours), path),
        classifier=lambda: torch.save({'state_dict': ours, 'meta': {}, 'optimizer': {}}, path),
        detector=lambda: torch.save({'state_dict': detector}, path),
        backbone=lambda: torch.save(bare, path),
        wrapped=lambda: torch.save({f'module.{k}': v for k, v in ours.items()}, path),
    )
    content[request.param]()
    return path


@contextmanager
def log_of():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = MMLogger.get_instance('nfnet_mm_test')
    logger.addHandler(handler)
    try:
        yield stream
    finally:
        logger.removeHandler(handler)


def holds(model, ours):
    """All of the backbone's weights are those of ``ours``."""
    return all(torch.equal(v, ours[f'backbone.{k}']) for k, v in model.state_dict().items())


def test_takes_every_form(checkpoint, ours):
    model = backbone(checkpoint)
    assert not holds(model, ours)
    with log_of() as log:
        model.init_weights()
    # 4 convs in the stem, 4 in each of 5 blocks, 4 on shortcuts, 3 weights each; 5 gates of 4 and 5 skip gains
    assert holds(model, ours) and len(model.state_dict()) == 109
    said = [line for line in log.getvalue().splitlines() if 'NFNet: took 109 weights of ' in line]
    assert len(said) == 1 and repr(str(checkpoint)) in said[0] and 'dialect authors' in said[0]


def test_without_weights_yet_the_random_ones_stay_and_that_is_said_loudly(log_lines):
    """As in a recipe that starts from weights, before they are named."""
    net = MODELS.build(
        dict(type='nfnet_mm.NFNet', arch=ARCH, init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=None))
    )
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert 'NFNet starts from RANDOM weights' in log_lines() and '--cfg-options weights=FILE' in log_lines()


def test_says_what_it_left(tree, ours, tmp_path):
    path = tmp_path / 'F0_haiku.npz'
    path.write_bytes(pickle.dumps(tree))
    with log_of() as log:
        backbone(path).init_weights()
    assert 'left 5 in the file: backbone.final_conv.bias, ' in log.getvalue() and 'head.fc.weight' in log.getvalue()
    model = backbone(path, out_indices=(4,))
    with log_of() as log:
        model.init_weights()
    assert 'left 2 in the file: head.fc.bias, head.fc.weight' in log.getvalue()
    assert torch.equal(model.final_conv.weight, ours['backbone.final_conv.weight'])
    model = backbone(path, out_indices=(1,))
    model.init_weights()  # two stages of four were built
    assert holds(model, ours) and len(model.stages) == 2


def test_inside_a_larger_model(checkpoint, ours):
    class Detector(BaseModule):
        def __init__(self):
            super().__init__(init_cfg=dict(type='Constant', layer='Conv2d', val=3.0))
            self.backbone = backbone(checkpoint)
            self.neck = torch.nn.Conv2d(24, 8, 1)

    model = Detector()
    model.init_weights()
    assert holds(model.backbone, ours) and torch.all(model.neck.weight == 3)


def test_does_not_load_by_halves(ours, tmp_path):
    path = tmp_path / 'weights.pth'

    def refused(state, words, **kwargs):
        torch.save(state, path)
        model = backbone(path, **kwargs)
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(ConversionError, match=words) as error:
            model.init_weights()
        assert '\n' not in str(error.value) and repr(str(path)) in str(error.value)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    key = 'backbone.stages.1.1.conv1.gain'
    refused({k: v for k, v in ours.items() if k != key}, r'1 missing in the file: stages\.1\.1\.conv1\.gain$')
    refused({**ours, 'backbone.stages.1.2.skip_gain': torch.zeros(())}, r'1 left over: stages\.1\.2\.skip_gain$')
    refused(
        {**ours, key: torch.ones(9)}, r'stages\.1\.1\.conv1\.gain has shape \(9,\) in the file, \(8,\) in the model$'
    )
    refused({**ours, key: torch.full((8,), torch.inf)}, 'conv1.gain holds NaN or Inf')
    refused(ours, r'17 missing in the file: stages\.0\.1\.', arch=dict(ARCH, depths=(2, 2, 1, 1)))
    refused(
        {k: v for k, v in ours.items() if 'final_conv' not in k},
        '3 missing in the file: final_conv.bias',
        out_indices=(4,),
    )
    refused({'encoder.weight': torch.ones(3)}, 'no weights of a normalizer-free network.* encoder.weight')


def test_a_backbone_under_another_name(ours, tmp_path):
    path = tmp_path / 'weights.pth'
    state = {
        k.replace('backbone.', f'{who}.backbone.'): v * factor
        for who, factor in (('teacher', 1), ('student', 2))
        for k, v in ours.items()
        if k.startswith('backbone.')
    }
    torch.save({'state_dict': state}, path)
    with pytest.raises(ConversionError, match=r"no backbone under 'backbone\.', but under student\.backbone\., "):
        backbone(path).init_weights()
    model = backbone(path, prefix='teacher.backbone.')
    model.init_weights()
    assert holds(model, ours)
    torch.save(to_timm(ours), path)
    with pytest.raises(ConversionError, match="prefix='teacher.backbone.' is for checkpoints of ours"):
        backbone(path, prefix='teacher.backbone.').init_weights()


@pytest.mark.parametrize('order', ['student first', 'teacher first'])
@pytest.mark.parametrize('prefix, factor', [(None, 2), ('backbone.', 2), ('teacher.backbone.', 1), ('ema.', 3)])
def test_the_network_asked_for_beside_others(ours, tmp_path, order, prefix, factor):
    """A student under plain names and two teachers in one file, in either order."""
    bare = {k.removeprefix('backbone.'): v for k, v in ours.items() if k.startswith('backbone.')}
    state = {}
    for name, k in sorted([('backbone.', 2), ('teacher.backbone.', 1), ('ema.', 3)], reverse='teacher' in order):
        state.update({name + key: value * k for key, value in bare.items()})
    torch.save({'state_dict': state}, tmp_path / 'both.pth')
    model = backbone(tmp_path / 'both.pth', prefix=prefix)
    with log_of() as log:
        model.init_weights()
    for key, value in model.state_dict().items():
        assert torch.equal(value, bare[key] * factor), key
    if prefix not in (None, 'backbone.'):
        others = len(state) - (len(state) // 3)
        assert f'passed over {others} that are not of {prefix!r}: backbone.' in log.getvalue()


def test_a_whole_classifier_under_a_prefix_takes_its_own_head(ours, tmp_path):
    pytest.importorskip('mmpretrain')
    state = {f'teacher.{k}': v for k, v in ours.items()} | {k: v * 2 for k, v in ours.items()}
    torch.save({'state_dict': state}, tmp_path / 'both.pth')
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='nfnet_mm.NFNet', arch=ARCH, out_indices=(4,)),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='nfnet_mm.NFClsHead', num_classes=len(ours['head.fc.bias']), in_channels=48),
            init_cfg=dict(
                type='nfnet_mm.NFPretrained', checkpoint=str(tmp_path / 'both.pth'), prefix='teacher.backbone.'
            ),
        )
    )
    model.init_weights()
    for key, value in model.state_dict().items():
        assert torch.equal(value, ours[key]), key


@pytest.mark.parametrize('prefix', ['backbone.', 'backbone.timm_model.'])
def test_timm_s_names_under_a_prefix(ours, tmp_path, prefix):
    """As a checkpoint of a detector on mmpretrain's TIMMBackbone has them."""
    state = {prefix + key: value for key, value in to_timm(ours).items()}
    torch.save(dict(state_dict={**state, 'neck.weight': torch.zeros(2)}), tmp_path / 'weights.pth')
    with pytest.raises(ConversionError, match=f'but under {re.escape(prefix)}: say which with prefix'):
        backbone(tmp_path / 'weights.pth').init_weights()
    model = backbone(tmp_path / 'weights.pth', prefix=prefix)
    model.init_weights()
    assert holds(model, ours)


def test_what_would_overwrite_the_weights_is_refused(ours, tmp_path):
    torch.save(ours, tmp_path / 'weights.pth')
    loaded = dict(type='nfnet_mm.NFPretrained', checkpoint=str(tmp_path / 'weights.pth'))
    random = dict(type='Kaiming', layer='Conv2d')
    for cfgs in ([random, loaded], [loaded]):
        model = MODELS.build(dict(type='nfnet_mm.NFNet', arch=ARCH, init_cfg=cfgs))
        model.init_weights()
        assert holds(model, ours)
    model = MODELS.build(dict(type='nfnet_mm.NFNet', arch=ARCH, init_cfg=[loaded, random]))
    with pytest.raises(ConversionError, match='init_cfg of NFNet lists NFPretrained, Kaiming: .* put it last'):
        model.init_weights()


def test_other_input_channels(checkpoint, ours):
    first = ours['backbone.stem.conv0.weight']
    with pytest.raises(
        ConversionError,
        match=r'stem\.conv0\.weight has shape \(16, 3, 3, 3\) in the file, '
        r"\(16, 1, 3, 3\) in the model \(in_channels='mean' or 'cycle'",
    ):
        backbone(checkpoint, in_channels=1).init_weights()
    for channels in (1, 5):
        model = backbone(checkpoint, in_channels=channels, adapt='mean')
        model.init_weights()
        mean = (first[:, 0] + first[:, 1] + first[:, 2]) / 3
        for c in range(channels):
            torch.testing.assert_close(model.stem.conv0.weight[:, c], mean)
    model = backbone(checkpoint, in_channels=5, adapt='cycle')
    model.init_weights()
    for c in range(5):
        assert torch.equal(model.stem.conv0.weight[:, c], first[:, (0, 1, 2, 0, 1)[c]])


def test_weights_of_another_network_are_named(tmp_path):
    other = MODELS.build(dict(type='nfnet_mm.NFNet', arch='timm/test_nfnet'))
    torch.save(other.state_dict(), tmp_path / 'other.pth')
    with pytest.raises(ConversionError, match=r'does not fit the model: .*; it is of timm/test_nfnet$'):
        backbone(tmp_path / 'other.pth', arch='nano').init_weights()


def test_arguments():
    with pytest.raises(ValueError, match="in_channels='sum' must be"):
        NFPretrained('x', in_channels='sum')


def test_only_our_backbones(ours, tmp_path):
    torch.save(ours, tmp_path / 'a.pth')
    with pytest.raises(ConversionError, match='Conv2d is neither a backbone of nfnet_mm'):
        NFPretrained(tmp_path / 'a.pth')(torch.nn.Conv2d(3, 3, 1))


def test_dialects_that_differ_are_reported(ours, tmp_path):
    torch.save({'state_dict': ours, 'meta': {'dialect': 'timm'}}, tmp_path / 'a.pth')
    with log_of() as log:
        backbone(tmp_path / 'a.pth').init_weights()
    assert 'dialect timm' in log.getvalue() and 'the backbone computes in the dialect authors' in log.getvalue()


def classifier(checkpoint, classes=5, **init):
    pytest.importorskip('mmpretrain')
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='nfnet_mm.NFNet', arch=ARCH, out_indices=(4,)),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='nfnet_mm.NFClsHead', num_classes=classes, in_channels=48),
            init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=str(checkpoint), **init),
        )
    )


def test_whole_classifier(tree, ours, tmp_path):
    path = tmp_path / 'F0_haiku.npz'
    path.write_bytes(pickle.dumps(tree))
    model = classifier(path)
    model.init_weights()
    assert all(torch.equal(v, ours[k]) for k, v in model.state_dict().items())
    with pytest.raises(
        ConversionError,
        match=r'head\.fc\.weight has shape \(5, 48\) in the file, \(7, 48\) in the '
        r'model \(new_head=True keeps the new head\)',
    ):
        classifier(path, classes=7).init_weights()
    model = classifier(path, classes=7, new_head=True)
    model.init_weights()
    assert holds(model.backbone, ours)
    assert model.head.fc.weight.shape == (7, 48) and 0.005 < model.head.fc.weight.std() < 0.015  # as NFClsHead starts


def test_reference_network_from_a_pickle(tmp_path):
    """The authors' logits, from a pickle of their parameters by a line of a config."""
    pytest.importorskip('mmpretrain')
    arrays = np.load(Path(__file__).parents[1] / 'data' / 'nfnet_tiny.npz')
    (tmp_path / 'a.npz').write_bytes(pickle.dumps(golden_tree(arrays)))
    golden = Golden('nfnet')
    model = golden.classifier(init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=str(tmp_path / 'a.npz')))
    torch.nn.init.zeros_(model.backbone.stem.conv0.weight)
    model.backbone.init_weights()
    with torch.no_grad():
        assert relative(model.eval()(golden.input), golden['logits']) < 2e-6
