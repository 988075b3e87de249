"""The embedded demos: for each task its data, its config, its pictures and its figures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from . import digits, rooms
from .pictures import draw_contact_sheet, draw_depths, draw_label_maps, draw_prediction

if TYPE_CHECKING:
    from mmengine.runner import Runner


@dataclass(frozen=True)
class Demo:
    """What the demo of one task is made of.

    Attributes:
        config: File name below ``demo/configs``.
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
    metrics: Mapping[str, tuple[str, float]]
    train: int = 2000
    val: int = 200
    pictures: int = 16


def _digits(**spec: Any) -> Callable[[Path, int, int], Path]:
    return lambda root, train, val: digits.generate(root, digits.DigitsSpec(train=train, val=val, **spec))


def predictions(runner: 'Runner', count: int) -> Iterator[tuple[np.ndarray, Any, Sequence[str]]]:
    """Run the trained model on the first ``count`` validation pictures.

    Yields: the uint8 (H, W, 3) RGB picture, the framework's data sample with truth and prediction, the class names.
    """
    loader = runner.val_dataloader
    runner.model.eval()
    for batch in loader:
        pixels = batch['inputs']
        with torch.no_grad():
            results = runner.model.test_step(batch)
        for image, sample in zip(pixels, results[:count]):
            # every framework loads BGR
            yield image.numpy()[::-1].transpose(1, 2, 0), sample, loader.dataset.metainfo.get('classes')
        count -= len(results)
        if count <= 0:
            return


def _instances(found: Any) -> dict[str, Any]:
    masks = found.masks
    masks = masks.cpu().numpy() if isinstance(masks, torch.Tensor) else masks.to_ndarray()
    boxes = found.bboxes
    boxes = getattr(boxes, 'tensor', boxes)  # the truth comes as a box type of mmdet's
    return dict(boxes=boxes.cpu().numpy(), labels=found.labels.cpu().numpy(), masks=masks.astype(bool))


def draw_instances(runner: 'Runner', folder: Path, count: int, min_score: float = 0.3) -> None:
    """One PNG per picture: boxes and masks of the truth, and of the predictions that score at least ``min_score``."""
    for rgb, sample, names in predictions(runner, count):
        kept = sample.pred_instances[sample.pred_instances.scores >= min_score]
        found = dict(_instances(kept), scores=kept.scores.cpu().numpy())
        panels = {'truth': _instances(sample.gt_instances), f'predictions (score >= {min_score})': found}
        draw_prediction(folder / f'{Path(sample.img_path).stem}.png', rgb, panels, names)


def draw_classes(runner: 'Runner', folder: Path, count: int) -> None:
    """Two contact sheets: ``count`` pictures from all over the validation set, and the first ``count`` mistakes."""
    found = [
        (rgb, int(sample.gt_label), int(sample.pred_label), float(sample.pred_score.max()))
        for rgb, sample, _ in predictions(runner, len(runner.val_dataloader.dataset))
    ]
    names = runner.val_dataloader.dataset.metainfo['classes']
    spread = found[:: max(len(found) // max(count, 1), 1)]
    wrong = [item for item in found if item[1] != item[2]]
    for name, chosen in dict(predictions=spread, mistakes=wrong).items():
        if chosen[:count]:
            draw_contact_sheet(folder / f'{name}.png', *zip(*chosen[:count]), names)


def draw_segments(runner: 'Runner', folder: Path, count: int) -> None:
    """One PNG per picture: the picture, its true label map and the predicted one."""
    for rgb, sample, names in predictions(runner, count):
        maps = dict(truth=sample.gt_sem_seg, prediction=sample.pred_sem_seg)
        panels = {title: part.data[0].cpu().numpy() for title, part in maps.items()}
        draw_label_maps(folder / f'{Path(sample.img_path).stem}.png', rgb, panels, names)


def draw_rooms(runner: 'Runner', folder: Path, count: int) -> None:
    """One PNG per picture: the picture, its true depths and the predicted ones."""
    from nfnet_mm.tasks.depth.metric import depth_error_sums

    for rgb, sample, _ in predictions(runner, count):
        truth, found = sample.gt_depth_map.data[0].cpu(), sample.pred_depth_map.data[0].cpu()
        pixels, near, *_ = depth_error_sums(found, truth, min_depth=1e-3, max_depth=10).tolist()
        panels = {'truth': truth.numpy(), f'prediction (delta1 {100 * near / pixels:.0f}%)': found.numpy()}
        draw_depths(folder / f'{Path(sample.img_path).stem}.png', rgb, panels)


AGC = ('agc/clipped_fraction',)
TASKS = {
    'detection': Demo(
        config='mask_rcnn_nfnet_nano_digits.py',
        data='data/digits',
        generate=_digits(),
        draw=draw_instances,
        curves={
            'losses': ('loss', 'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask'),
            'validation': ('coco/bbox_mAP', 'coco/segm_mAP'),
            'AGC': AGC,
        },
        metrics={'coco/bbox_mAP': ('box AP {:.1f}', 100), 'coco/segm_mAP': ('mask AP {:.1f}', 100)},
    ),
    'classification': Demo(
        config='classify_nfnet_nano_digits.py',
        data='data/digits_classes',
        draw=draw_classes,
        generate=_digits(layout='class_folders', image_size=48, min_digit=24, max_digit=48, max_digits=1),
        curves={'loss': ('loss',), 'validation': ('accuracy/top1',), 'AGC': AGC},
        metrics={'accuracy/top1': ('top-1 {:.1f}%', 1)},
        train=4000,
        val=1000,
        pictures=100,
    ),
    'segmentation': Demo(
        config='fcn_nfnet_nano_digits.py',
        data='data/digits_labels',
        draw=draw_segments,
        generate=_digits(layout='label_maps', image_size=96, min_digit=28, max_digit=56, max_digits=3),
        curves={'loss': ('loss',), 'validation': ('mIoU',), 'AGC': AGC},
        metrics={'mIoU': ('mIoU {:.1f}', 1)},
    ),
    'depth': Demo(
        config='depth_nfnet_nano_rooms.py',
        data='data/rooms',
        draw=draw_rooms,
        generate=lambda root, train, val: rooms.generate(root, rooms.RoomsSpec(train=train, val=val)),
        curves={'loss': ('loss',), 'delta1 (%)': ('delta1',), 'rel': ('rel',), 'AGC': AGC},
        metrics={'delta1': ('delta1 {:.1f}%', 1), 'rel': ('rel {:.3f}', 1), 'rms': ('rms {:.2f} m', 1)},
        train=1500,
    ),
}
