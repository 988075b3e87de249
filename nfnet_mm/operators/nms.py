"""Non-maximum suppression and overlaps of boxes (x1, y1, x2, y2).

The comparisons, and the order of the arithmetic between them, are those of mmcv's ``nms.cpp``, in float32 as there, so
that a box at the threshold falls on the same side.
"""

import numpy as np
import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import single, widen


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that overlap no better one by more than the threshold, the best first.

    Args:
        boxes: (N, 4).
        scores: (N,).
        iou_threshold: boxes that overlap more are dropped.
        offset: 1 if a box from 3 to 5 is 3 wide, 0 if it is 2 wide.
    """
    if not len(boxes):
        return torch.empty(0, dtype=torch.long, device=boxes.device)
    threshold = single(iou_threshold)
    order = _best_first(scores.float())
    boxes = boxes.float()[order]
    if not offset:
        falling = -torch.arange(len(boxes), device=boxes.device).float()  # keeps this order
        return order[torch.ops.torchvision.nms(boxes, falling, threshold)]
    rest = boxes.cpu().numpy()
    kept = np.ones(len(rest), bool)
    for i in range(len(rest) - 1):
        if kept[i]:
            kept[i + 1 :] &= ~(_overlap(rest[i], rest[i + 1 :], offset) > np.float32(threshold))
    return order[torch.from_numpy(kept).to(order.device)]


def _best_first(scores: Tensor) -> Tensor:
    """The order of scores. Among equal ones it is what the same sort of mmcv's gives, which keeps no order."""
    return scores.sort(0, descending=True)[1]


def _overlap(box: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    """The intersection over union of a (4,) box with (N, 4) others, in float32; nan of two boxes without area."""
    one = np.float32(offset)
    x1, y1 = np.maximum(box[0], others[:, 0]), np.maximum(box[1], others[:, 1])
    x2, y2 = np.minimum(box[2], others[:, 2]), np.minimum(box[3], others[:, 3])
    shared = np.maximum(x2 - x1 + one, np.float32(0)) * np.maximum(y2 - y1 + one, np.float32(0))
    area = (box[2] - box[0] + one) * (box[3] - box[1] + one)
    areas = (others[:, 2] - others[:, 0] + one) * (others[:, 3] - others[:, 1] + one)
    with np.errstate(divide='ignore', invalid='ignore'):
        return shared / (area + areas - shared)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that overlap a better one (Bodla et al., 2017), and drop those below ``min_score``.

    Args:
        boxes: (N, 4), on the CPU.
        scores: (N,).
        dets: (N, 5), receives in its first rows the boxes that stay and their scores, the best first.
        iou_threshold: of the methods 0 and 1: overlaps below it change nothing.
        sigma: of method 2.
        min_score: a box with a lower score is dropped.
        method: what a score is multiplied by: 0, nothing or zero; 1, one minus the overlap; 2, a Gaussian of it.
        offset: as in :func:`nms`.

    Returns: the indices of the boxes that stay.
    """
    box, score = boxes.float().numpy().copy(), scores.float().numpy().copy()
    index, count = np.arange(len(box)), len(box)
    threshold, width, least = np.float32(iou_threshold), np.float32(sigma), np.float32(min_score)
    i = 0
    while i < count:
        # the first of the best; comparisons with nan are false
        rest = np.where(np.isnan(score[i:count]), -np.inf, score[i:count])
        best = i if np.isnan(score[i]) else i + int(rest.argmax())
        for array in (box, score, index):
            array[[i, best]] = array[[best, i]]
        i += 1
        overlap = _overlap(box[i - 1], box[i:count], offset)
        if method == 2:
            factor = np.exp(-(overlap * overlap) / width)
        else:
            factor = np.where(overlap >= threshold, 1 - overlap if method == 1 else np.float32(0), np.float32(1))
        score[i:count] *= factor
        stays = ~(score[i:count] < least)
        # a dropped box's place is taken by the last one, so that places, which decide between equal scores, are mmcv's
        end = i + int(stays.sum())
        empty = i + np.flatnonzero(~stays[: end - i])
        movers = end + np.flatnonzero(stays[end - i :])[::-1]
        for array in (box, score, index):
            array[empty] = array[movers]
        count = end
    dets[:count] = torch.from_numpy(np.concatenate([box[:count], score[:count, None]], axis=1))
    return torch.from_numpy(index[:count])


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of boxes: each kept one, the best first, and the worse ones that it overlaps by the threshold or more.

    Args:
        dets: (N, 5) boxes and scores, on the CPU.
        iou_threshold: the overlap at which a box joins a better one's group.
    """
    order = _best_first(dets[:, 4].float().contiguous()).numpy()
    boxes, free, groups = dets[:, :4].float().numpy()[order], np.ones(len(order), bool), []
    for i in range(len(order)):
        if free[i]:
            later = i + 1 + np.flatnonzero(_overlap(boxes[i], boxes[i + 1 :], 0) >= np.float32(iou_threshold))
            later = later[free[later]]
            free[later] = False
            groups.append(order[[i, *later]].tolist())
    return groups


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Intersection over union (mode 0) or over the first box's area (mode 1).

    Args:
        bboxes1: (M, 4).
        bboxes2: (N, 4).
        ious: (M, N), or (M,) if ``aligned``; receives the overlaps.
        mode: 0 or 1.
        aligned: pair the boxes one to one.
        offset: as in :func:`nms`.
    """
    first, second = widen(bboxes1), widen(bboxes2)
    if not aligned:
        first = first[:, None]
    size = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2]) + offset
    width, height = size.clamp(min=0).unbind(-1)
    shared = width * height
    area, areas = ((b[..., 2] - b[..., 0] + offset) * (b[..., 3] - b[..., 1] + offset) for b in (first, second))
    union = area + areas - shared if mode == 0 else area.expand_as(shared)
    if ious.is_cuda:  # as mmcv's kernel does, and its CPU code does not
        union = union.clamp(min=offset)
    ious.copy_(shared / union)
