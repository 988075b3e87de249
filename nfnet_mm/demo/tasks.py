"""The embedded demos: for each task its data, its config, its pictures and its figures."""
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Sequence, Tuple

import torch

from . import digits
from .pictures import draw_prediction
from .report import predictions

__all__ = ['TASKS', 'Demo']


@dataclass(frozen=True)
class Demo:
    """What the demo of one task is made of.

    Attributes:
        config: File name below ``configs/demo``.
        data: Folder of the generated data, if the user names none.
        generate: ``generate(root, train, val)`` writes that many training and validation pictures, once.
        draw: ``draw(runner, folder, count)`` writes PNGs of what the trained model says of the first ``count``
            validation pictures.
        curves: By title of a plot, the names of the logged scalars in it.
        metrics: By name of a logged scalar, the format the result prints it in, and a factor before that.
        train, val, pictures: How many to train on, to validate on and to draw, if the user does not say.
    """
    config: str
    data: str
    generate: Callable[[Path, int, int], Path]
    draw: Callable[..., None]
    curves: Mapping[str, Sequence[str]]
    metrics: Mapping[str, Tuple[str, float]]
    train: int = 2000
    val: int = 200
    pictures: int = 16


def _digits(**spec):
    return lambda root, train, val: digits.generate(root, digits.DigitsSpec(train=train, val=val, **spec))


def _instances(found):
    masks = found.masks
    masks = masks.cpu().numpy() if isinstance(masks, torch.Tensor) else masks.to_ndarray()
    boxes = found.bboxes
    boxes = getattr(boxes, 'tensor', boxes)  # the truth comes as a box type of mmdet's
    return dict(boxes=boxes.cpu().numpy(), labels=found.labels.cpu().numpy(), masks=masks.astype(bool))


def draw_instances(runner, folder, count, min_score=0.3):
    """One PNG per picture: boxes and masks of the truth, and of the predictions that score at least ``min_score``."""
    for rgb, sample, names in predictions(runner, count):
        kept = sample.pred_instances[sample.pred_instances.scores >= min_score]
        found = dict(_instances(kept), scores=kept.scores.cpu().numpy())
        panels = {'truth': _instances(sample.gt_instances), f'predictions (score >= {min_score})': found}
        draw_prediction(folder / f'{Path(sample.img_path).stem}.png', rgb, panels, names)


AGC = ('agc/clipped_fraction', )
TASKS = {
    'detection': Demo(
        config='mask_rcnn_nfnet_nano_digits.py', data='data/digits', generate=_digits(), draw=draw_instances,
        curves={'losses': ('loss', 'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'),
                'validation': ('coco/bbox_mAP', 'coco/segm_mAP'), 'AGC': AGC},
        metrics={'coco/bbox_mAP': ('box AP {:.1f}', 100), 'coco/segm_mAP': ('mask AP {:.1f}', 100)}),
}
