"""Fine-tuning on one's own data: short configs that a user inherits, with three settings in their first lines."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nfnet_mm.models.backbones.arch import find_network

_F0 = find_network('nfnet_f0')
_SMALL = (
    'A choice: {total} {what} an update and {epochs} epochs, for data sets of hundreds to some ten thousand images; '
    'the learning rate is scaled linearly from {source}.'
)


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """A config of ``configs/`` for data of one's own.

    Attributes:
        name: of its config.
        base: the config that it inherits, below ``configs``.
        summary, said: the first line and the paragraph of its docstring.
        layout: what ``data_root`` holds.
        num_classes: what stands there until the user says; None for a task without classes.
        settings: what it changes; a text such as '$weights' is the name of what stands above it.
    """

    name: str
    base: str
    summary: str
    said: str
    layout: str
    num_classes: int | None
    settings: Mapping[str, Any] = field(hash=False)

    @property
    def config(self) -> str:
        """The config's path from the root of a working tree."""
        return f'configs/{self.name}.py'


def _loop(total: int, lr_batch: int, epochs: int) -> dict[str, Any]:
    return dict(
        _delete_=True,
        type='nfnet_mm.TotalBatchTrainLoop',
        total_batch=total,
        lr_batch=lr_batch,
        max_epochs=epochs,
        val_interval=1,
    )


def _schedule(end: float) -> list[dict[str, Any]]:
    return [dict(type='LinearLR', start_factor=1e-3, end=end), dict(type='CosineAnnealingLR', begin=end)]


_START = dict(type='nfnet_mm.NFPretrained', checkpoint='$weights')
_HOOKS = dict(logger=dict(interval=10), checkpoint=dict(interval=500, save_best='auto'))
_CLASSIFIER = FineTuning(
    name='finetune_nfnet_f0',
    base='imagenet/nfnet_f0.py',
    summary='Fine-tune an image classifier, NFNet-F0, on class folders of your own (docs/own_data_classification.md).',
    said='As the paper fine-tunes NFNets (Appendix A.4: learning rate 0.1 at batch 2048, weight decay 1e-5, no MixUp, '
    'CutMix or RandAugment), without SAM. ' + _SMALL.format(total=64, what='images', epochs=30, source='there'),
    layout='train/CLASS/*.jpg and val/CLASS/*.jpg',
    num_classes=10,
    settings=dict(
        model=dict(backbone=dict(drop_path_rate=0.1, init_cfg=_START), head=dict(dropout=0.25)),
        train_dataloader=dict(batch_size=32, collate_fn=dict(_delete_=True, type='default_collate')),
        train_cfg=_loop(64, 2048, 30),
        optim_wrapper=dict(optimizer=dict(lr=0.1, weight_decay=1e-5)),
        param_scheduler=_schedule(3),
        default_hooks=_HOOKS,
        custom_hooks=[dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', momentum=1e-4)],
    ),
)


def _coco(split: str) -> dict[str, Any]:
    data = dict(ann_file=f'annotations/{split}.json', data_prefix=dict(img=f'{split}/'))
    return dict(dataset=dict(data_root='$data_root', **data))


_DETECTOR = FineTuning(
    name='finetune_mask_rcnn_nfnet_f0',
    base='mask_rcnn_nfnet_f0_fpn.py',
    summary='Fine-tune Mask R-CNN + FPN on NFNet-F0 on a COCO file of your own (docs/own_data_detection.md).',
    said=_SMALL.format(total=16, what='images', epochs=36, source="the paper's 0.32 at batch 256"),
    layout='annotations/{train,val}.json, train/ and val/',
    num_classes=10,
    settings=dict(
        model=dict(backbone=dict(init_cfg=_START)),
        train_dataloader=_coco('train'),
        val_dataloader=_coco('val'),
        test_dataloader='$val_dataloader',
        val_evaluator=dict(ann_file='data/own/annotations/val.json'),
        test_evaluator='$val_evaluator',
        train_cfg=_loop(16, 256, 36),
        param_scheduler=_schedule(1),
        default_hooks=_HOOKS,
    ),
)


def _maps(split: str, transforms: list[dict[str, Any]], **others: Any) -> dict[str, Any]:
    prefix = dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}')
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    return dict(
        dataset=dict(
            _delete_=True,
            type='BaseSegDataset',
            data_root='$data_root',
            img_suffix='.jpg',
            data_prefix=prefix,
            pipeline=[*load, *transforms, dict(type='PackSegInputs')],
            **others,
        )
    )


_SEGMENTOR = FineTuning(
    name='finetune_fcn_nfnet_f0',
    base='_base_/recipe/fcn_voc.py',
    summary='Fine-tune FCN on NFNet-F0 on label maps of your own (docs/own_data_segmentation.md).',
    said='Trained on crops, tested on whole images. '
    + _SMALL.format(total=16, what='crops', epochs=60, source="the NF-ResNets' 0.003 at batch 16")
    + ' AGC, and its 0.01, are a choice too.',
    layout='images/{train,val}/*.jpg and annotations/{train,val}/*.png of the same names, whose pixels are labels '
    'from 0, and 255 where there is none',
    num_classes=2,
    settings=dict(
        model=dict(
            backbone=dict(**_F0.cfg, out_indices=(3,), drop_path_rate=0.1, init_cfg=_START),
            decode_head=dict(in_channels=_F0.arch.widths[3]),
        ),
        train_dataloader=_maps(
            'train',
            [
                dict(type='nfnet_mm.RandomScale', scales=(0.5, 2.0)),
                dict(type='RandomCrop', crop_size=(513, 513)),
                dict(type='RandomFlip', prob=0.5),
            ],
        ),
        val_dataloader=_maps('val', [], test_mode=True),
        test_dataloader='$val_dataloader',
        optim_wrapper=dict(
            type='nfnet_mm.AGCOptimWrapper',
            agc=dict(clipping=0.01, eps=1e-3),
            paramwise_cfg=dict(agc_exclude=['decode_head.conv_seg.weight']),
        ),
        train_cfg=_loop(16, 16, 60),
        param_scheduler=_schedule(1),
        default_hooks=dict(_HOOKS, checkpoint=dict(interval=500, save_best='mIoU')),
    ),
)
FINE_TUNINGS: Mapping[str, FineTuning] = {row.name: row for row in (_CLASSIFIER, _DETECTOR, _SEGMENTOR)}
