"""The trainings of other tasks, on COCO, Pascal VOC and NYU Depth v2."""

from collections.abc import Mapping
from typing import Any

from .rows import Task, TransferRecipe

COCO = Task(
    config='mask_rcnn_{}_fpn',
    recipe='mask_rcnn_coco',
    title='Mask R-CNN + FPN on {}, COCO',
    figures='box AP {:.1f}, mask AP {:.1f}',
    source='NFNets, ICML version, Table 5',
    data='COCO 2017 in data/coco ({train,val}2017/, annotations/instances_{train,val}2017.json)',
    total_batch=256,
    batch=2,
    devices=128,
    bases=('model/mask_rcnn', 'data/coco', 'runtime/mmdet'),
    summary="The NFNet paper's COCO recipe (section 6.3): 22,500 steps at batch 256, as in Ghiasi et al. 2021.",
    said=(
        'What it leaves open is taken from there (Simple Copy-Paste, section 4): learning rate 0.32 after 1,000 steps '
        'of linear warm-up from 0.0032, divided by 10 at 0.9, 0.95 and 0.975 of the training, weight decay 4e-5.'
    ),
    steps=22_500,
    val_steps=2500,
    lr=0.32,
    weight_decay=4e-5,
    schedule=(
        dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=1000),
        dict(type='MultiStepLR', by_epoch=False, milestones=[20_250, 21_375, 21_937], gamma=0.1),
    ),
    agc=0.01,
    agc_said=(
        'A choice, as the paper does not mention AGC for COCO: 0.01 is the value of all its NFNets; smaller batches '
        'than theirs (4096) bear a larger one (NFNets, Figure 2). The last layer of each head is not clipped (section '
        '4.1).'
    ),
    last_layers=(
        'rpn_head.rpn_cls.weight',
        'rpn_head.rpn_reg.weight',
        'roi_head.bbox_head.fc_cls.weight',
        'roi_head.bbox_head.fc_reg.weight',
        'roi_head.mask_head.conv_logits.weight',
    ),
)
VOC = Task(
    config='fcn_{}_voc',
    recipe='fcn_voc',
    title='{} + FCN, Pascal VOC 2012 val',
    figures='mIoU {:.1f}',
    source='NF-ResNets, Table 6',
    data='data/VOCdevkit/VOC2012 in the usual layout, with SegmentationClassAug',
    total_batch=16,
    batch=4,
    devices=4,
    bases=('model/fcn', 'data/voc', 'runtime/mmseg'),
    sizes='model = dict(data_preprocessor=dict(size=_base_.crop), decode_head=dict(num_classes=21))\n',
    summary='FCN on Pascal VOC 2012 (NF-ResNets, Appendix H.1): 30,000 steps at batch 16, with weight decay, no AGC.',
    steps=30_000,
    val_steps=3000,
    lr=0.003,
    weight_decay=5e-5,
    schedule=(dict(type='MultiStepLR', by_epoch=False, milestones=[21_000, 27_000], gamma=0.1),),
    save_best=dict(save_best='mIoU'),
)
NYU = Task(
    config='depth_{}_nyu',
    recipe='depth_nyu',
    title='{} + up-projections, NYU Depth v2',
    figures='delta1/2/3 {:.1f}/{:.1f}/{:.1f}, rms {:.3f}, rel {:.3f}',
    source='NF-ResNets, Table 7',
    data='data/nyu as docs/depth.md says',
    total_batch=256,
    batch=32,
    devices=8,
    bases=('model/up_projection', 'data/nyu', 'runtime/mmseg'),
    sizes='model = dict(data_preprocessor=dict(size=_base_.size[::-1]))\n',
    summary='Depth on NYU Depth v2 (NF-ResNets, Appendix H.2): 7,500 steps at batch 256.',
    said='What the paper leaves open: no weight decay and no warm-up, as it names none.',
    steps=7500,
    val_steps=750,
    lr=0.16,
    weight_decay=0.0,
    schedule=(dict(type='CosineAnnealingLR', by_epoch=False),),
    save_best=dict(save_best='delta1', rule='greater'),
    agc=0.04,
    agc_said=(
        'A choice, as the paper does not mention AGC here: without it, training a normalizer-free head from random '
        'weights at this learning rate diverged on generated scenes. 0.04 is larger than the 0.01 of batches of 1024 '
        'and more (NFNets, Figure 2); the last layer is not clipped (section 4.1).'
    ),
    last_layers=('decode_head.conv_seg.weight',),
)


def _transfer(task: Task, network: str, *figures: float) -> TransferRecipe:
    """A network transferred to a task, and the paper's figures."""
    fields: dict[str, Any] = dict(name=task.config.format(network), network=network, task=task, figures=figures)
    if figures:
        fields['source'] = task.source
    else:
        fields['note'] = 'By the recipe of the NFNets; in neither paper.'
    if network.startswith('nfnet'):
        drop = 'Stochastic depth, which the paper does not mention for COCO, is as in its fine-tuning on ImageNet.'
        fields |= dict(drop_path=0.1, reading=drop)
    elif task is COCO and network.startswith('bn'):
        fields['reading'] = (
            "The network is the papers' pre-activation ResNet, whose stages end in sums, and its statistics are taken "
            'over all GPUs, two pictures on each being too few; the paper says neither.'
        )
    return TransferRecipe(**fields)


_TRANSFERS = (
    _transfer(COCO, 'bn_resnet50', 39.0, 34.8),
    _transfer(COCO, 'bn_resnet101', 42.9, 37.7),
    _transfer(COCO, 'nf_resnet50'),
    _transfer(COCO, 'nf_resnet101'),
    _transfer(COCO, 'nfnet_f0', 46.7, 40.9),
    _transfer(COCO, 'nfnet_f1', 48.1, 41.7),
    _transfer(VOC, 'nf_resnet50', 74.4),
    _transfer(VOC, 'nf_resnet101', 76.7),
    _transfer(VOC, 'nf_resnet152', 77.6),
    _transfer(VOC, 'nf_resnet200', 78.4),
    _transfer(VOC, 'bn_resnet50', 75.4),
    _transfer(VOC, 'bn_resnet101', 77.0),
    _transfer(VOC, 'bn_resnet152', 77.9),
    _transfer(VOC, 'bn_resnet200', 78.0),
    _transfer(NYU, 'nf_resnet50', 81.9, 95.9, 98.9, 0.572, 0.141),
    _transfer(NYU, 'nf_resnet101', 82.7, 96.4, 99.0, 0.564, 0.136),
    _transfer(NYU, 'nf_resnet152', 83.2, 96.4, 99.1, 0.558, 0.135),
    _transfer(NYU, 'nf_resnet200', 84.0, 96.7, 99.2, 0.552, 0.130),
    _transfer(NYU, 'bn_resnet50', 81.7, 95.7, 98.8, 0.579, 0.141),
    _transfer(NYU, 'bn_resnet101', 83.4, 96.2, 98.9, 0.563, 0.132),
    _transfer(NYU, 'bn_resnet152', 81.6, 96.0, 98.9, 0.579, 0.140),
    _transfer(NYU, 'bn_resnet200', 84.6, 96.6, 99.1, 0.548, 0.125),
)
TRANSFERS: Mapping[str, TransferRecipe] = {row.name: row for row in _TRANSFERS}
