"""What the shipped detectors, segmentors and depth estimators cost, counted without computing anything."""

from pathlib import Path
from typing import Any

import torch
from mmengine import Config
from mmengine.registry import MODELS, init_default_scope

from nfnet_mm.recipes import COCO, NYU, TRANSFERS, VOC, Task

from .cost import Cost, MacCounter
from .model_zoo import link, table, with_results

_PAGE = 'docs/training_cost.md'
# Height and width of the pictures that each task's recipe trains on: configs/_base_/data.
SIZES = {COCO.title: (1024, 1024), VOC.title: (513, 513), NYU.title: (228, 304)}
# Regions of an image that a training step of Mask R-CNN takes: those that its sampler chooses, and the quarter of
# them that may be objects.
_REGIONS, _OBJECTS = 512, 128


def transfer_cost(cfg: Config, size: tuple[int, int], regions: int = _REGIONS, objects: int = _OBJECTS) -> Cost:
    """What a model of mmdet or mmseg costs, counted on the meta device; losses and RoIAlign count nothing.

    Args:
        cfg: the config of an FPN detector with a box and a mask head, or of a segmentor or depth estimator.
        size: height and width of the image.
        regions: of the image, that the box head gets.
        objects: of the image, that the mask head gets.
    """
    init_default_scope(cfg.default_scope)
    with torch.device('meta'), torch.no_grad(), MacCounter() as counter:
        model: Any = MODELS.build(cfg.model).eval()
        counter.macs = 0
        features = model.extract_feat(torch.empty(1, 3, *size))
        if hasattr(model, 'roi_head'):
            model.rpn_head(features)
            channels = features[0].shape[1]
            model.roi_head.bbox_head(torch.empty(regions, channels, 7, 7))
            model.roi_head.mask_head(torch.empty(objects, channels, 14, 14))
        else:
            model.decode_head(features)
    return Cost(sum(p.numel() for p in model.parameters()), counter.macs)


def _rows(root: Path, task: Task) -> str:
    height, width = SIZES[task.title]
    rows = []
    for row in TRANSFERS.values():
        if row.task is task:
            spent = transfer_cost(Config.fromfile(root / row.config), (height, width))
            rows.append((link(row), f'{spent.parameters / 1e6:.2f}', f'{spent.macs / 1e9:.1f}'))
    head = f'Config | Parameters (M) | Multiply-adds at {height} x {width} (G)'
    return table(head, rows)


def cost_files(root: Path) -> dict[str, str]:
    """{path from the root of a working tree: its text} of the page with the costs of the shipped configs."""
    text = '\n'.join(_rows(root, task) for task in (COCO, VOC, NYU))
    return {_PAGE: with_results((root / _PAGE).read_text(), text)}
