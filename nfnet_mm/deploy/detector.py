"""A whole detector of mmdet as one function of tensors, of standard operators alone, so that it can be exported.

The detector's own networks, anchors and box coders are called. What mmdet does between them, with lists of objects and
mmcv's operators, is written here for one picture with torchvision's RoIAlign and non-maximum suppression, which are
operators of ONNX.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nfnet_mm.errors import UserError

# The methods of mmdet that are written again below: what overrides them computes something else.
_STAGES = ('BaseDenseHead.predict_by_feat', 'BaseDenseHead._predict_by_feat_single', 'BaseDenseHead._bbox_post_process')
_PROPOSALS = ('BaseDenseHead.predict_by_feat', 'RPNHead._predict_by_feat_single', 'RPNHead._bbox_post_process')
_ROI_HEAD = ('BaseRoIHead.predict', 'StandardRoIHead.predict_bbox', 'StandardRoIHead._bbox_forward')
_BOX_HEAD = ('BBoxHead.predict_by_feat', 'BBoxHead._predict_by_feat_single')
_MASKS = ('StandardRoIHead.predict_mask', 'StandardRoIHead._mask_forward')
_MASK_HEAD = ('FCNMaskHead.predict_by_feat', 'FCNMaskHead._predict_by_feat_single')
_EXTRACTOR = ('SingleRoIExtractor.forward',)


class ExportableDetector(nn.Module):
    """A detector of mmdet, for one picture: what its ``predict`` finds, in the picture's own pixels.

    Args:
        detector: a two-stage detector with mmdet's standard heads (Faster and Mask R-CNN), or a single-stage one whose
            head selects boxes as ``BaseDenseHead`` does (RetinaNet, ATSS, FCOS and the like); built, with its weights.
        paste: masks as large as the picture instead of the mask head's own, which lie in the boxes.

    Shape: (1, 3, H, W), normalised and not padded -> boxes (K, 4) x1, y1, x2, y2; scores (K,), the best first; labels
    (K,) int64; and, of a detector with masks, their probabilities (K, h, w), or (K, H, W) if ``paste``.

    Raises:
        UserError: the detector, or a part of it, computes something else than what is known here.
    """

    def __init__(self, detector: nn.Module, paste: bool = False):
        super().__init__()
        parts: Any = detector
        if not callable(getattr(parts, 'extract_feat', None)):
            raise UserError(f'{type(detector).__name__} is no detector of mmdet: it has no extract_feat')
        self.detector, self.paste = parts, paste
        self.two_stage = getattr(parts, 'roi_head', None) is not None
        if self.two_stage:
            _check(parts, 'rpn_head', _PROPOSALS)
            _check(parts, 'roi_head', _ROI_HEAD)
            _check(parts.roi_head, 'bbox_head', _BOX_HEAD)
            _check(parts.roi_head, 'bbox_roi_extractor', _EXTRACTOR)
        else:
            _check(parts, 'bbox_head', _STAGES)
        self.with_mask = self.two_stage and parts.roi_head.with_mask
        if self.with_mask:
            _check(parts.roi_head, 'roi_head', _MASKS, parts.roi_head)
            _check(parts.roi_head, 'mask_head', _MASK_HEAD)
            _check(parts.roi_head, 'mask_roi_extractor', _EXTRACTOR)
        preprocessor = getattr(parts, 'data_preprocessor', None)
        self.divisor = getattr(preprocessor, 'pad_size_divisor', 1)
        self.pad_value = float(getattr(preprocessor, 'pad_value', 0))
        self.dtype = torch.float32
        self.eval()

    def compute_in(self, dtype: torch.dtype) -> None:
        """Convert the backbone and the neck, which have most of the work; all else stays in float32."""
        self.dtype = dtype
        self.detector.backbone.to(dtype)
        if getattr(self.detector, 'neck', None) is not None:
            self.detector.neck.to(dtype)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what :meth:`forward` returns."""
        return ('boxes', 'scores', 'labels') + self.with_mask * ('masks',)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """What is found in a picture."""
        height, width = images.shape[-2:]
        one = images.new_ones(())
        size = torch.stack([one * width, one * height]).repeat(2)  # of the picture, at the boxes' four ends
        right, bottom = (-width) % self.divisor, (-height) % self.divisor
        padded = F.pad(images, (0, right, 0, bottom), value=self.pad_value).to(self.dtype)
        features = [feature.float() for feature in self.detector.extract_feat(padded)]
        if not self.two_stage:
            return single_stage(self.detector.bbox_head, features, size)
        boxes = proposals(self.detector.rpn_head, features, size)
        head = self.detector.roi_head
        boxes, scores, labels = refined(head, features, boxes, size)
        if not self.with_mask:
            return boxes, scores, labels
        masks = box_masks(head, features, boxes, labels)
        return boxes, scores, labels, paste_masks(masks, boxes, height, width) if self.paste else masks


def _check(parent: Any, name: str, methods: Sequence[str], part: Any = None) -> None:
    """Refuse a part that overrides a method which is written again here."""
    part = getattr(parent, name, None) if part is None else part
    for method in methods:
        found = getattr(type(part), method.partition('.')[2], None)
        qualified = getattr(found, '__qualname__', None)
        if qualified != method:
            what = f'{name} of type {type(part).__name__}'
            why = f'its {qualified} is not {method}' if qualified else f'it has no {method}'
            raise UserError(f'the whole of this detector cannot be exported: {what}, {why}; its backbone and neck can')


def _decode(coder: Any, priors: Tensor, deltas: Tensor, size: Tensor) -> Tensor:
    """Boxes (n, 4) of priors (n, 2 or 4) and what the network says of them (n, 4)."""
    boxes = coder.decode(priors, deltas)
    boxes = getattr(boxes, 'tensor', boxes)
    return boxes.clamp(min=0).minimum(size) if getattr(coder, 'clip_border', True) else boxes


def _suppress(boxes: Tensor, scores: Tensor, groups: Tensor, cfg: Any, count: int) -> Tensor:
    """Indices, the best first, of at most ``count`` boxes that overlap no better one of their group too much.

    Args:
        boxes: (n, 4).
        scores: (n,).
        groups: (n,) int64.
        cfg: mmcv's, of its ``batched_nms``.
        count: how many to keep; all if it is not positive.
    """
    stated, cfg = cfg, dict(cfg or {})
    threshold = cfg.pop('iou_threshold', None)
    together = cfg.pop('class_agnostic', False)
    cfg.pop('split_thr', None)  # when to do it group by group, with the same result
    if cfg.pop('type', 'nms') != 'nms' or threshold is None or cfg:
        raise UserError(f"the whole of this detector cannot be exported: its suppression {stated} is not mmcv's 'nms'")
    if not together:  # as mmcv does: groups are moved so far apart that their boxes do not overlap
        farthest = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max()
        boxes = boxes + (groups.to(boxes.dtype) * (farthest + 1))[:, None]
    from torchvision.ops import nms

    kept = nms(boxes, scores, float(torch.tensor(threshold, dtype=torch.float32)))
    return kept[:count] if count > 0 else kept


def _large(boxes: Tensor, cfg: Any) -> Tensor:
    """Indices of the boxes that are not too small."""
    least = cfg.get('min_bbox_size', -1)
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return ((width > least) & (height > least)).nonzero()[:, 0] if least >= 0 else torch.arange(boxes.shape[0])


def _levels(head: Any, features: Sequence[Tensor]) -> tuple[list[list[Tensor]], list[Tensor]]:
    """A dense head's outputs, of each kind and level (positions * priors, values); and the priors of each level."""
    kinds = head(features)
    widths = (head.cls_out_channels, head.bbox_coder.encode_size, 1)
    sizes = [tuple(level.shape[-2:]) for level in kinds[0]]
    priors = head.prior_generator.grid_priors(sizes, dtype=kinds[0][0].dtype, device=kinds[0][0].device)
    rows = [[level[0].permute(1, 2, 0).reshape(-1, width) for level in levels] for levels, width in zip(kinds, widths)]
    return rows, priors


def _foreground(head: Any, logits: Tensor) -> Tensor:
    """Scores (n, classes) of a dense head's logits."""
    return logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[:, :-1]


def proposals(head: Any, features: Sequence[Tensor], size: Tensor) -> Tensor:
    """The boxes (n, 4) that a region proposal network thinks worth a look, as mmdet's ``RPNHead`` selects them.

    Args:
        head: of mmdet.
        features: (1, C, h, w) of each level.
        size: (4,) width, height, width, height of the picture.
    """
    cfg = head.test_cfg
    (logits, deltas), priors = _levels(head, features)
    found = []
    for level, prior in enumerate(priors):
        scores, order = _foreground(head, logits[level])[:, 0].sort(descending=True)
        if cfg.get('nms_pre', -1) > 0:
            scores, order = scores[: cfg.nms_pre], order[: cfg.nms_pre]
        found.append((scores, deltas[level][order], prior[order], torch.full_like(order, level)))
    scores, chosen, anchors, groups = (torch.cat(parts) for parts in zip(*found))
    boxes = _decode(head.bbox_coder, anchors, chosen, size)
    large = _large(boxes, cfg)
    kept = large[_suppress(boxes[large], scores[large], groups[large], cfg.nms, cfg.max_per_img)]
    return boxes[kept]


def single_stage(head: Any, features: Sequence[Tensor], size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels of a dense head, as mmdet's ``BaseDenseHead`` selects them; arguments as above."""
    cfg = head.test_cfg
    kinds, priors = _levels(head, features)
    found = []
    for level, prior in enumerate(priors):
        scores = _foreground(head, kinds[0][level])
        above = (scores > cfg.get('score_thr', 0)).nonzero()
        best, order = scores[above[:, 0], above[:, 1]].sort(descending=True)
        if cfg.get('nms_pre', -1) > 0:
            best, order = best[: cfg.nms_pre], order[: cfg.nms_pre]
        place, label = above[order].unbind(1)
        boxes = _decode(head.bbox_coder, prior[place], kinds[1][level][place], size)
        factor = kinds[2][level][place, 0].sigmoid() if len(kinds) > 2 else 1.0
        found.append((boxes, best * factor, label))
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*found))
    large = _large(boxes, cfg)
    kept = large[_suppress(boxes[large], scores[large], labels[large], cfg.nms, cfg.max_per_img)]
    return boxes[kept], scores[kept], labels[kept]


def roi_features(extractor: Any, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Features (n, C, h, w) of boxes (n, 4), each read from the level for its size, as ``SingleRoIExtractor`` does."""
    from torchvision.ops import roi_align

    rois = torch.cat([boxes.new_zeros(boxes.shape[0], 1), boxes], 1)  # of picture 0
    parts, places = [], []
    levels = extractor.map_roi_levels(rois, extractor.num_inputs)
    for level, (layer, feature) in enumerate(zip(extractor.roi_layers, features)):
        if getattr(layer, 'pool_mode', None) != 'avg':
            what = f'{type(layer).__name__} with pool_mode={getattr(layer, "pool_mode", None)!r}'
            raise UserError(f"the whole of this detector cannot be exported: {what} is not RoIAlign's average")
        place = (levels == level).nonzero()[:, 0]
        size, sampling = layer.output_size, layer.sampling_ratio
        parts.append(roi_align(feature, rois[place], size, layer.spatial_scale, sampling, layer.aligned))
        places.append(place)
    return torch.cat(parts)[torch.cat(places).argsort()]


def refined(head: Any, features: Sequence[Tensor], boxes: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels of the second stage, as mmdet's ``BBoxHead`` selects them.

    Args:
        head: the RoI head.
        features: (1, C, h, w) of each level.
        boxes: (n, 4) proposals.
        size: (4,) width, height, width, height of the picture.
    """
    cfg, box_head = head.test_cfg, head.bbox_head
    if box_head.custom_activation:
        what = f'loss_cls of type {type(box_head.loss_cls).__name__} has scores of its own'
        raise UserError(f'the whole of this detector cannot be exported: {what}')
    pooled = roi_features(head.bbox_roi_extractor, features, boxes)
    logits, deltas = box_head(head.shared_head(pooled) if head.with_shared_head else pooled)
    scores = logits.softmax(-1)[:, :-1]
    above = (scores > cfg.score_thr).nonzero()
    place, labels = above.unbind(1)
    scores, priors = scores[place, labels], boxes[place]
    if not box_head.reg_class_agnostic:
        deltas = deltas.reshape(-1, box_head.num_classes, box_head.bbox_coder.encode_size)[place, labels]
    else:
        deltas = deltas[place]
    found = _decode(box_head.bbox_coder, priors, deltas, size)
    kept = _suppress(found, scores, labels, cfg.nms, cfg.max_per_img)
    return found[kept], scores[kept], labels[kept]


def box_masks(head: Any, features: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
    """Probabilities (K, h, w) that the pixels of boxes (K, 4) belong to their objects, of mmdet's ``FCNMaskHead``."""
    pooled = roi_features(head.mask_roi_extractor, features, boxes)
    logits = head.mask_head(head.shared_head(pooled) if head.with_shared_head else pooled)
    if head.mask_head.class_agnostic:
        return logits[:, 0].sigmoid()
    return logits[torch.arange(labels.shape[0]), labels].sigmoid()


def paste_masks(masks: Tensor, boxes: Tensor, height: Any, width: Any) -> Tensor:
    """Masks in the places of their boxes: bilinear, and zero outside, as mmdet's but for boxes without area.

    Args:
        masks: (K, h, w) probabilities in the boxes.
        boxes: (K, 4).
        height: of the picture, in pixels.
        width: of the picture, in pixels.

    Returns: (K, height, width).

    Example:
        >>> mask, box = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[1.0, 0.0, 3.0, 1.0]])
        >>> paste_masks(mask, box, 1, 4).tolist()
        [[[0.0, 1.0, 0.0, 0.0]]]
    """

    def weights(low: Tensor, high: Tensor, count: int, length: Any) -> Tensor:  # (K, length, count) of linear sampling
        pixels = torch.arange(length, device=boxes.device).to(boxes.dtype) + 0.5
        at = (pixels - low[:, None]) / (high - low).clamp(min=1e-6)[:, None] * count - 0.5
        cells = torch.arange(count, device=boxes.device).to(boxes.dtype)
        return (1 - (at[..., None] - cells).abs()).clamp(min=0)

    x1, y1, x2, y2 = boxes.unbind(1)
    rows, columns = weights(y1, y2, masks.shape[1], height), weights(x1, x2, masks.shape[2], width)
    return rows @ masks @ columns.transpose(1, 2)
