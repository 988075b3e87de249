"""Exportable detectors against mmdet's own predictions, and the exported files against both."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

from nfnet_mm.deploy import ExportableDetector, deployed, export_model, fold, half
from nfnet_mm.deploy.detector import paste_masks
from nfnet_mm.deploy.export.detections import pair_objects
from nfnet_mm.deploy.export.formats import run_onnx
from nfnet_mm.errors import UserError
from nfnet_mm.registry import MODELS

pytest.importorskip('mmdet')
pytest.importorskip('mmcv.ops')
DEMO = Path(__file__).parents[2] / 'demo/configs/mask_rcnn_nfnet_nano_digits.py'
SIZES = ((128, 128), (96, 160), (101, 77), (64, 33), (150, 131))
CLASSES = 10


def two_stage(**options):
    cfg = Config.fromfile(DEMO)
    cfg.merge_from_dict({f'model.{key.replace("__", ".")}': value for key, value in options.items()})
    return cfg.model


def by_class():
    return two_stage(roi_head__bbox_head__reg_class_agnostic=False, roi_head__mask_head__class_agnostic=False)


def without_masks():
    model = two_stage(type='FasterRCNN')
    del model.roi_head.mask_head, model.roi_head.mask_roi_extractor
    return model


def dense(**head):
    shared = dict(num_classes=CLASSES, in_channels=16, feat_channels=16, stacked_convs=1)
    return ConfigDict(
        type='SingleStageDetector',
        data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
        backbone=dict(type='nfnet_mm.NFNet', arch='nano', out_indices=(1, 2, 3)),
        neck=dict(type='FPN', in_channels=[64, 96, 128], out_channels=16, num_outs=4, add_extra_convs='on_input'),
        bbox_head=dict(**shared, **head),
        test_cfg=dict(
            nms_pre=50, min_bbox_size=0, score_thr=0.005, nms=dict(type='nms', iou_threshold=0.5), max_per_img=20
        ),
    )


def retina():
    anchors = dict(
        type='AnchorGenerator', octave_base_scale=4, scales_per_octave=2, ratios=[1.0], strides=[8, 16, 32, 64]
    )
    return dense(type='RetinaHead', anchor_generator=anchors)


def fcos():
    return dense(type='FCOSHead', norm_cfg=None, strides=[8, 16, 32, 64])


DETECTORS = {
    'Mask R-CNN': two_stage,
    'of each class': by_class,
    'Faster R-CNN': without_masks,
    'RetinaNet': retina,
    'FCOS': fcos,
}


def build(config, seed=0):
    """A detector with weights that make scores, and boxes, of the classes differ from place to place."""
    init_default_scope('mmdet')
    torch.manual_seed(seed)
    model = MODELS.build(config).eval()
    for name, p in model.named_parameters():
        if name.endswith('skip_gain'):
            nn.init.constant_(p, 0.5)
        elif '_head.' in name and p.dim() > 1:
            nn.init.normal_(p, 0, 1.0 / p[0].numel() ** 0.5)
    return model


def predicted(model, images):
    """What the detector itself finds, its masks before they are thresholded."""
    from mmdet.structures import DetDataSample

    height, width = images.shape[-2:]
    shape = dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0))
    padded = nn.functional.pad(images, (0, -width % 32, 0, -height % 32))
    found = model.predict(padded, [DetDataSample(metainfo=shape)])[0].pred_instances
    return (found.bboxes, found.scores, found.labels), found.get('masks')


@pytest.mark.parametrize('name', DETECTORS)
def test_the_same_objects(name):
    """Boxes, scores and labels to the last digit, and every pixel of the masks, of pictures that are padded or not."""
    model = fold(build(DETECTORS[name]()))
    net = ExportableDetector(model, paste=True)
    for size in SIZES:
        images = torch.randn(1, 3, *size)
        with torch.no_grad():
            expected, masks = predicted(model, images)
            ours = net(images)
        assert len(expected[1]) >= 10 and len(set(expected[2].tolist())) > 1
        for one, other in zip(ours, expected):
            # torch rounds a value otherwise at the end of a tensor than within it
            torch.testing.assert_close(one, other, rtol=2e-7 * one.is_floating_point(), atol=0)
        if masks is not None:
            sharp = (ours[3] - 0.5).abs() > 1e-5
            area = ((ours[0][:, 2:] - ours[0][:, :2]) > 1e-3).all(1)  # of others mmdet draws a line
            assert torch.equal((ours[3] >= 0.5)[area] & sharp[area], masks[area] & sharp[area])


@pytest.mark.slow
@pytest.mark.parametrize('name', DETECTORS)
def test_the_exported_file(name, tmp_path):
    """In onnxruntime at five sizes, odd ones included, as in torch."""
    pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    model = build(DETECTORS[name]())
    written = export_model(deployed(model, paste_masks=name == 'of each class'), tmp_path / 'a.onnx', opset=17)
    assert written.worst <= 1e-3 and len(written.differences) == 5
    net, exported = ExportableDetector(fold(model)), run_onnx(str(tmp_path / 'a.onnx'))
    images = torch.randn(1, 3, 101, 77)
    with torch.no_grad():
        expected = [one.numpy() for one in net(images)]
    (boxes, scores, *_), (others, near, *_), unpaired = pair_objects(exported(images.numpy()), expected)
    assert len(scores) >= 10 and unpaired <= 2
    np.testing.assert_allclose(boxes, others, rtol=0, atol=1e-2)
    np.testing.assert_allclose(scores, near, rtol=0, atol=1e-5)


def test_the_graph_has_standard_operators_alone_and_may_find_nothing(tmp_path):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    model = build(two_stage(test_cfg__rcnn__score_thr=0.999))
    export_model(deployed(model, paste_masks=True), tmp_path / 'a.onnx', opset=17)
    graph = onnx.load(tmp_path / 'a.onnx')
    assert [(one.domain, one.version) for one in graph.opset_import] == [('', 17)]
    kinds = {node.op_type for node in graph.graph.node}
    assert {'RoiAlign', 'NonMaxSuppression'} <= kinds and 'BatchNormalization' not in kinds
    images = torch.zeros(1, 3, 70, 96)
    with torch.no_grad():
        shapes = [tuple(one.shape) for one in ExportableDetector(model, paste=True)(images)]
    assert shapes == [(0, 4), (0,), (0,), (0, 70, 96)]
    assert [one.shape for one in run_onnx(str(tmp_path / 'a.onnx'))(images.numpy())] == shapes


def test_pasting_against_a_grid_sample():
    """torch's own bilinear sampling of the masks, at the pixels' centres."""
    torch.manual_seed(0)
    masks, low = torch.rand(3, 7, 7), torch.tensor([[2.0, 3.5], [-1.0, 0.0], [9.25, 4.0]])
    boxes = torch.cat([low, low + torch.tensor([[5.0, 9.0], [11.0, 3.3], [2.0, 2.0]])], 1)
    x, y = torch.arange(14) + 0.5, torch.arange(11) + 0.5
    (x1, y1, x2, y2) = (end[:, None] for end in boxes.unbind(1))
    gx, gy = (x - x1) / (x2 - x1) * 2 - 1, (y - y1) / (y2 - y1) * 2 - 1
    grid = torch.stack([gx[:, None].expand(-1, 11, -1), gy[:, :, None].expand(-1, -1, 14)], -1)
    expected = nn.functional.grid_sample(masks[:, None], grid, align_corners=False)[:, 0]
    torch.testing.assert_close(paste_masks(masks, boxes, 11, 14), expected, rtol=0, atol=1e-5)


def test_half_precision_leaves_the_boxes_in_float32():
    net = ExportableDetector(build(two_stage()))
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        found, expected = half(net, 'bf16')(images), net(images)
    assert {one.dtype for one in found} == {torch.float32, torch.int64}
    assert net.dtype is torch.float32
    # bf16 has 8 bits, and what is a near tie is another order: the best object is the same
    assert float((found[0][0] - expected[0][0]).abs().max()) < 3


def test_what_computes_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match='Conv2d is no detector of mmdet: it has no extract_feat'):
        ExportableDetector(nn.Conv2d(3, 3, 1))
    model = build(two_stage())

    class Other(type(model.roi_head)):
        def predict_bbox(self, *args, **kwargs):
            """Something else."""

    model.roi_head.__class__ = Other
    with pytest.raises(UserError, match='roi_head of type Other, its .*Other.predict_bbox is not StandardRoIHead.pred'):
        ExportableDetector(model)
    soft = two_stage(test_cfg__rcnn__nms__type='soft_nms')
    with pytest.raises(UserError, match="its suppression .*soft_nms.* is not mmcv's 'nms'"), torch.no_grad():
        ExportableDetector(build(soft))(torch.randn(1, 3, 64, 64))
    with pytest.raises(UserError, match='format torch is not for detectors'):
        export_model(deployed(build(two_stage())), tmp_path / 'a.pt2')
    assert not list(tmp_path.iterdir())


def test_comparison_counts_what_is_in_one_only():
    one = np.float32([[0, 0, 4, 4], [10, 10, 14, 14]]), np.float32([0.9, 0.5]), np.array([0, 1])
    other = [part[:1] for part in one]
    ours, theirs, unpaired = pair_objects([one[0] + 0.5, *one[1:]], other)
    assert unpaired == 1 and np.array_equal(ours[0] - theirs[0], np.full((1, 4), 0.5))
    assert pair_objects([part[:0] for part in one], one)[2] == 2
    assert pair_objects(one, [*other[:2], other[2] + 5])[2] == 3
