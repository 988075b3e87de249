"""Detectors under bfloat16 autocast: what must stay in float32 does; against torchvision and float32 runs."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from nfnet_mm.engine.bfloat16 import _suspensions, keep_boxes_in_float32


@pytest.fixture
def detector():
    pytest.importorskip('mmdet')
    from mmengine import Config

    init_default_scope('mmdet')
    cfg = Config.fromfile(str(Path(__file__).parents[2] / 'demo/configs/mask_rcnn_nfnet_nano_digits.py'))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.train()


def pictures():
    from mmdet.testing import demo_mm_inputs

    batch = demo_mm_inputs(2, [(3, 96, 96)] * 2, num_items=[3, 3], num_classes=2, with_mask=True)
    for sample in batch['data_samples']:
        sample.gt_instances.bboxes = torch.tensor(
            [[8.0, 8.0, 56.0, 52.0], [30.0, 20.0, 90.0, 85.0], [50.0, 5.0, 92.0, 40.0]]
        )
    return batch


def wrapper_of(model, dtype='bfloat16', constructor='nfnet_mm.NFOptimWrapperConstructor'):
    kind = dict(type='nfnet_mm.AmpAGCOptimWrapper', dtype=dtype) if dtype else dict(type='nfnet_mm.AGCOptimWrapper')
    return build_optim_wrapper(model, dict(kind, optimizer=dict(type='SGD', lr=0.01), constructor=constructor))


@pytest.mark.parametrize('constructor', ['nfnet_mm.NFOptimWrapperConstructor', 'DefaultOptimWrapperConstructor'])
def test_mask_rcnn_trains_in_bfloat16_as_in_float32(detector, constructor):
    other, batch = copy.deepcopy(detector), pictures()
    losses = []
    for model, wrapper in ((detector, wrapper_of(detector, None)), (other, wrapper_of(other, constructor=constructor))):
        torch.manual_seed(1)
        losses.append(float(model.train_step(copy.deepcopy(batch), wrapper)['loss']))
        assert wrapper.skipped_steps == 0
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_boxes_and_roi_features_keep_float32(detector):
    from torchvision.ops import roi_align

    for _ in range(2):  # the second time everything is in place
        keep_boxes_in_float32(detector)
    features = [torch.randn(1, 64, s, s).bfloat16() for s in (256, 128, 64, 32)]
    rois = torch.tensor([[0, 1000.3, 900.7, 1013.9, 1021.1]])  # finer than bfloat16 can say at 1000 px
    with torch.autocast('cpu', torch.bfloat16):
        ours = detector.roi_head.bbox_roi_extractor(features, rois)
        scores, boxes = detector.rpn_head(features)
        assert detector.neck.lateral_convs[0](torch.zeros(1, 32, 4, 4)).dtype == torch.bfloat16
    reference = roi_align(features[0].float(), rois, 7, spatial_scale=1 / 4, sampling_ratio=2, aligned=True)
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)
    assert {t.dtype for t in (*scores, *boxes)} == {torch.float32}
    assert sum(len(m._forward_pre_hooks) for m in detector.modules()) == 2 + 8  # extractors, their RoIAligns


def test_an_operator_that_fails_leaves_autocast_as_it_was(detector):
    keep_boxes_in_float32(detector)
    with torch.autocast('cpu', torch.bfloat16):
        with pytest.raises(AttributeError):
            detector.roi_head.bbox_roi_extractor([torch.zeros(1, 3, 4, 4)], None)
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == torch.bfloat16
    assert not _suspensions


def test_other_models_are_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 2))
    wrapper_of(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize('config', ['tood/tood_r50_fpn_1x_coco', 'ddod/ddod_r50_fpn_1x_coco'])
def test_detectors_with_deformable_convs_train_in_bfloat16(config, tmp_path):
    """One that calls the operator as a function, and one by modules; tools/sweep_swaps.py does so for all."""
    pytest.importorskip('mmdet')
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        root / 'tools/sweep_swaps.py',
        '--frameworks',
        'mmdet',
        '--only',
        config,
        '--bfloat16',
        '--backbones',
        'nf_resnet50',
        '--out',
        tmp_path / 'sweep.jsonl',
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert '1 built, 1 trained a step; 0 refused' in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
