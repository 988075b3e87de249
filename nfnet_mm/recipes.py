"""Every experiment of the papers as a row: the configs and the model zoo are written from these tables.

NFNets = Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without Normalization"; NF-ResNets = Brock
et al. 2021, "Characterizing signal propagation to close the performance gap in unnormalized ResNets".

To add an experiment, add a row (mostly by ``add``, which names what changes) and run
``python tools/write_configs.py``. What belongs to a network (image sizes, dropout, RandAugment's magnitude, channels)
is read from the table of variants; what no experiment of a kind changes is in ``configs/_base_``.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nfnet_mm.errors import UserError, check_number, did_you_mean
from nfnet_mm.models.backbones.arch import Network, find_network, network_names

IMAGENET_IMAGES = 1_281_167  # ImageNet-1k's for training
# Of the labelled set that stands for JFT-300M, which is not public: ImageNet-21k's.
PRETRAINING_IMAGES, PRETRAINING_CLASSES = 14_197_122, 21_841
WARMUP_EPOCHS = 5  # in both papers, where they do not count steps
TITLES = {'NFNet': 'NFNet', 'NFResNet': 'NF-ResNet', 'NFRegNet': 'NF-RegNet'}


@dataclass(frozen=True)
class Accuracy:
    """On ImageNet's validation images, in percent."""

    top1: float
    top5: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What every row has."""

    name: str  # of its config
    network: str  # by its full name
    batch_norm: bool = False  # train the BatchNorm baseline of the same depth in its place

    @property
    def found(self) -> Network:
        """The network, or the one whose baseline is trained."""
        return find_network(self.network)

    @property
    def title(self) -> str:
        """The network in words, such as ``NF-ResNet-50`` or ``BN-ResNet-50``."""
        return f'{"BN-ResNet" if self.batch_norm else TITLES[self.found.family]}-{self.found.key}'


@dataclass(frozen=True, kw_only=True)
class ImageNetRecipe(Experiment):
    """A training on ImageNet-1k, or a pre-training for one: SGD, warm-up from zero, then a cosine to zero."""

    like: str | None = None  # the recipe whose config this one's inherits
    total_batch: int
    batch: int  # on a device
    devices: int = 8  # in the arithmetic that the config tells
    epochs: int
    steps: int | None = None  # in place of epochs
    warmup_steps: int | None = None  # in place of five epochs
    val_epochs: int  # between validations, which training by steps has every 1000 steps
    lr: float  # at total_batch
    scale_lr: bool = True  # by a user's other total batch
    weight_decay: float
    agc: float | None = None  # the clipping factor
    bfloat16: bool = False  # activations; parameters and loss stay float32
    with_cp: bool = False  # activation checkpointing
    drop_path: float = 0.0  # stochastic depth; of a BatchNorm baseline none
    mixing: bool = False  # half of each batch MixUp, half CutMix, then RandAugment
    ema: float | None = None  # 1 - decay of the average of the weights
    sam: bool = False
    start: str | None = None  # the recipe whose last checkpoint is fine-tuned
    pretraining: bool = False  # on a labelled set of the user's, without validation
    # The network's own (None) or others: pixels, rate before the classifier, magnitude.
    train_size: int | None = None
    test_size: int | None = None
    dropout: float | None = None
    randaugment: int | None = None
    # What a paper reports of it in percent, where, and what else is to be said.
    top1: float | None = None
    top5: float | None = None
    source: str = ''
    note: str = ''  # whole sentences

    def __post_init__(self) -> None:
        for field, interval in (('lr', '(0, inf)'), ('weight_decay', '[0, inf)'), ('drop_path', '[0, 1)')):
            check_number(f'recipe {self.name}: {field}', getattr(self, field), interval)
        at_once = self.batch * self.devices
        if self.total_batch % at_once:
            raise UserError(
                f'recipe {self.name}: total_batch={self.total_batch} is no multiple of {self.batch} images x '
                f'{self.devices} devices = {at_once}: change batch, devices or total_batch'
            )

    @property
    def resolved(self) -> 'ImageNetRecipe':
        """The same with the network's own values in place of None."""
        names = ('train_size', 'test_size', 'dropout', 'randaugment')
        own = {name: getattr(self.found.arch, name) for name in names if getattr(self, name) is None}
        return dataclasses.replace(self, **own)

    @property
    def accuracy(self) -> Accuracy | None:
        """What a paper reports."""
        return None if self.top1 is None else Accuracy(self.top1, self.top5, self.source)

    @property
    def view(self) -> str:
        """The type of the transform that makes a picture's test view (the authors' code)."""
        return f'nfnet_mm.{"ResizeCrop32" if self.found.family == "NFNet" else "CropResize"}'

    @property
    def config(self) -> str:
        """The config's path from the root of a working tree."""
        return f'configs/imagenet/{self.name}.py'

    @property
    def images(self) -> int:
        """Of an epoch."""
        return PRETRAINING_IMAGES if self.pretraining else IMAGENET_IMAGES

    @property
    def max_iters(self) -> int:
        """Steps in all."""
        return self.steps or self.epochs * self.images // self.total_batch

    @property
    def warmup(self) -> int:
        """Steps of warm-up."""
        return self.warmup_steps or WARMUP_EPOCHS * self.images // self.total_batch

    @property
    def val_interval(self) -> int:
        """Steps between validations."""
        return 1000 if self.steps else self.val_epochs * IMAGENET_IMAGES // self.total_batch


_UNREGULARISED = 'Top-1 {} without dropout and stochastic depth (NF-ResNets, Table 1).'
# Of both kinds of networks (NFNets, Appendix A.5): crops and flips only; in fine-tuning the learning rate is not scaled
# by the batch, and the average decays by 0.9999. Choices, where the paper is silent: no dropout or stochastic depth in
# pre-training, and for NFNets the 5,000 steps of warm-up that are given for ResNets.
_NOTE = 'Results are those of the fine-tuning.'
_CROPS = dict(mixing=False, train_size=224, test_size=224)
_PRETRAINING = dict(pretraining=True, **_CROPS, warmup_steps=5000, dropout=0.0, drop_path=0.0, ema=None, note=_NOTE)
_FINETUNING = dict(total_batch=2048, steps=15_000, warmup_steps=5000, lr=0.1, scale_lr=False, mixing=False, ema=1e-4)
_JFT = 'NFNets, Table {}, pre-trained on JFT-300M'


def _network_of(name: str, like: str, rows: Mapping[str, ImageNetRecipe], changes: Mapping[str, Any]) -> str:
    """The network of a new row: the stated one, the one that it is named as, or that of the row that it is like.

    Raises:
        UserError: the row's name is taken, it refers to a row or a field that there is not, or it is named after
            another network than the one it would train.
    """
    if name in rows:
        raise UserError(f'recipe {name!r} is there already')
    fields = [field.name for field in dataclasses.fields(ImageNetRecipe)]
    for field in changes:
        if field not in fields:
            hint = did_you_mean(field, fields)
            raise UserError(f'recipe {name!r}: field {field!r} is unknown.{hint} Known: {", ".join(fields)}')
    for field, other in (('like', like), ('start', changes.get('start'))):
        if other is not None and other not in rows:
            raise UserError(f'recipe {name!r}: {field}={other!r} is no row above it.{did_you_mean(other, rows)}')
    if network := changes.get('network'):
        return find_network(network).name
    if name in network_names():
        return name
    network = rows[like].network
    if network not in name.replace('bn_', 'nf_'):
        hint = did_you_mean(name, network_names())
        raise UserError(f'recipe {name!r} would train {network}, and is not named after it: state network=...{hint}')
    return network


def _imagenet() -> dict[str, ImageNetRecipe]:
    """The rows by name: first each family's plain recipe, then what is like another but for some fields."""
    changes: dict[str, Any]
    rows: dict[str, ImageNetRecipe] = {}

    def plain(name: str, **fields: Any) -> None:
        """Add the row that others of the family are like, named as the network that it trains."""
        rows[name] = ImageNetRecipe(name=name, network=name, **fields)

    def add(name: str, like: str, **changes: Any) -> None:
        """Add a row that is like another but for ``changes``; what a paper reports is never taken over."""
        own = dict(name=name, like=like, network=_network_of(name, like, rows, changes))
        rows[name] = dataclasses.replace(rows[like], **{**own, 'top1': None, 'top5': None, 'note': '', **changes})

    long = dict(epochs=360, val_epochs=10, mixing=True, ema=1e-5)
    # NFNets, section 5 and Appendix A: 0.1 of learning rate for every 256 images
    sgd = dict(total_batch=4096, batch=32, lr=1.6, weight_decay=2e-5, agc=0.01, bfloat16=True)
    plain('nfnet_f0', **long, **sgd, drop_path=0.25, top1=83.6, top5=96.8, source='NFNets, Table 3')
    # NF-ResNets, section 5.1: crops and flips only; without AGC, which came with the second paper
    sgd = dict(total_batch=1024, batch=128, lr=0.4, weight_decay=5e-5, drop_path=0.1)
    note = _UNREGULARISED.format(75.8)
    plain('nf_resnet50', **sgd, epochs=90, val_epochs=5, source='NF-ResNets, Table 1', note=note)
    # NF-ResNets, section 5.2 and Appendix C: no AGC, and mixing without RandAugment, which destabilised these networks
    plain('nf_regnet_b0', **long, **sgd, top1=77.0, source='NF-ResNets, Table 3, with MixUp and CutMix')

    add('nfnet_f1', like='nfnet_f0', top1=84.7, top5=97.1)
    add('nfnet_f2', like='nfnet_f0', top1=85.1, top5=97.3)
    add('nfnet_f3', like='nfnet_f0', top1=85.7, top5=97.5)
    add('nfnet_f4', like='nfnet_f0', batch=16, with_cp=True, top1=85.9, top5=97.6)
    add('nfnet_f5', like='nfnet_f0', batch=8, with_cp=True, top1=86.0, top5=97.6)
    add('nfnet_f6', like='nfnet_f0', batch=8, with_cp=True, note='With SAM only.')
    for n in range(5):
        add(f'nfnet_f{n}_sam', like=f'nfnet_f{n}', sam=True, note='The paper has SAM for F5 and F6 only.')
    add('nfnet_f5_sam', like='nfnet_f5', sam=True, top1=86.3, top5=97.9)
    add('nfnet_f6_sam', like='nfnet_f6', sam=True, top1=86.5, top5=97.9)
    # timm's light shapes, with its image sizes and the regularisation of the NFNet of the same depth (dropout) or of
    # the nearest training size (RandAugment)
    for name, dropout, magnitude in (
        ('nfnet_l0', 0.2, 10),
        ('eca_nfnet_l0', 0.2, 10),
        ('eca_nfnet_l1', 0.3, 10),
        ('eca_nfnet_l2', 0.4, 15),
        ('eca_nfnet_l3', 0.4, 15),
    ):
        note = 'In neither paper; timm trains it by another recipe.'
        add(name, like='nfnet_f0', dropout=dropout, randaugment=magnitude, note=note)
    large = dict(network='nfnet_f4', with_cp=True)
    add('pretrain_nfnet_f4', like='nfnet_f0', **large, **_PRETRAINING, epochs=40, weight_decay=1e-6)
    add('pretrain_nfnet_f4plus', like='pretrain_nfnet_f4', network='nfnet_f4+', epochs=20, note=_NOTE)
    changes = dict(batch=16, weight_decay=1e-5, dropout=0.25, drop_path=0.1, sam=True, top1=89.2, source=_JFT.format(5))
    add('finetune_nfnet_f4', like='nfnet_f0', **large, **_FINETUNING, **changes, start='pretrain_nfnet_f4')
    changes = dict(network='nfnet_f4+', start='pretrain_nfnet_f4plus', top1=89.2)
    add('finetune_nfnet_f4plus', like='finetune_nfnet_f4', **changes)

    add('nf_resnet101', like='nf_resnet50', note=_UNREGULARISED.format(77.1))
    add('nf_resnet152', like='nf_resnet50', note=_UNREGULARISED.format(77.6))
    add('nf_resnet200', like='nf_resnet50', batch=64, note=_UNREGULARISED.format(77.9))
    add('nf_resnet288', like='nf_resnet50', batch=32, top1=79.5, note=_UNREGULARISED.format(78.1))
    note = 'NFNets, Figure 2, has curves for 50 and 200: level with BatchNorm.'
    for depth in (50, 101, 152, 200, 288):
        add(f'nf_resnet{depth}_agc', like=f'nf_resnet{depth}', total_batch=4096, lr=1.6, agc=0.01, note=note)
    note = 'NF-ResNets, Table 1. The BatchNorm baseline needs no dropout or stochastic depth.'
    for depth in (50, 101, 152, 200):
        add(f'bn_resnet{depth}', like=f'nf_resnet{depth}', batch_norm=True, dropout=0.0, note=note)
    # Small batches (section 5.1), without dropout and stochastic depth
    short = dict(epochs=15, val_epochs=1, dropout=0.0, drop_path=0.0, source='NF-ResNets, Table 2, 15 epochs')
    for total, batch, devices, lr, nf, bn in (
        (1024, 128, 8, 0.4, 69.9, 70.9),
        (8, 8, 1, 0.025, 69.6, 65.7),
        (4, 4, 1, 0.01, 69.9, 55.7),
    ):
        name = f'resnet50_15e_batch{total}'
        changes = dict(total_batch=total, batch=batch, devices=devices, lr=lr)
        add(f'nf_{name}', like='nf_resnet50', **short, **changes, top1=nf, note=f'BatchNorm: {bn}.')
        add(f'bn_{name}', like=f'nf_{name}', batch_norm=True, top1=bn, note=f'NF-ResNet-50: {nf}.')
    # NFNets, Appendix A.5 and Table 4: images on a device, and top-1 of both kinds, at 224, 320 and 384 px
    for depth, batches, nf_top1, bn_top1 in (
        (50, (128, 64, 32), (79.5, 80.9, 81.1), (78.1, 79.6, 79.9)),
        (101, (128, 64, 32), (81.4, 82.7, 83.2), (80.8, 82.2, 82.5)),
        (152, (128, 64, 32), (82.7, 83.6, 84.0), (81.8, 83.1, 83.4)),
        (200, (64, 32, 32), (82.9, 84.1, 84.3), (81.8, 83.1, 83.5)),
    ):
        for kind, clipping, top1s in (('nf', 0.01, nf_top1), ('bn', None, bn_top1)):
            network = dict(network=f'nf_resnet{depth}', batch_norm=kind == 'bn', agc=clipping, drop_path=0.0)
            start, like = f'pretrain_{kind}_resnet{depth}', 'pretrain_nf_resnet50'
            changes = {**_PRETRAINING, **network, 'batch': batches[0], 'epochs': 10, 'weight_decay': 1e-5}
            add(start, like=like if like in rows else 'nf_resnet50', **changes)
            for size, batch, top1 in zip((224, 320, 384), batches, top1s):
                name, like = f'finetune_{kind}_resnet{depth}_{size}px', f'finetune_{kind}_resnet50_224px'
                changes = dict(**_FINETUNING, weight_decay=0.0, dropout=0.0, train_size=size, test_size=size)
                changes |= dict(**network, batch=batch, start=start, top1=top1, source=_JFT.format(4))
                add(name, like=like if like in rows else 'nf_resnet50', **changes)

    # Weight decay grows by 1e-5 a level (the authors' code; the paper has 5e-5 for all).
    add('nf_regnet_b1', like='nf_regnet_b0', weight_decay=6e-5, top1=78.7)
    add('nf_regnet_b2', like='nf_regnet_b0', weight_decay=7e-5, top1=80.0)
    add('nf_regnet_b3', like='nf_regnet_b0', weight_decay=8e-5, top1=81.2)
    add('nf_regnet_b4', like='nf_regnet_b0', weight_decay=9e-5, batch=64, top1=82.5)
    add('nf_regnet_b5', like='nf_regnet_b0', weight_decay=1e-4, batch=64, top1=83.0)
    return rows


IMAGENET: Mapping[str, ImageNetRecipe] = _imagenet()


@dataclass(frozen=True)
class Task:
    """A task that networks are transferred to."""

    config: str  # the configs' names, around the network's
    recipe: str  # in configs/_base_/recipe; with _agc there is the same with AGC
    title: str
    figures: str  # what the paper's figures are of
    source: str
    data: str  # what is expected where
    total_batch: int
    batch: int  # on a device


COCO = Task(
    config='mask_rcnn_{}_fpn',
    recipe='mask_rcnn_coco',
    title='Mask R-CNN + FPN on {}, COCO',
    figures='box AP {:.1f}, mask AP {:.1f}',
    source='NFNets, ICML version, Table 5',
    data='COCO 2017 in data/coco ({train,val}2017/, annotations/instances_{train,val}2017.json)',
    total_batch=256,
    batch=2,
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
)
NYU = Task(
    config='depth_{}_nyu',
    recipe='depth_nyu',
    title='{} + up-projections, NYU Depth v2',
    figures='delta1/2/3 {:.1f}/{:.1f}/{:.1f}, rms {:.3f}, rel {:.3f}',
    source='NF-ResNets, Table 7',
    data='data/nyu as tools/prepare_nyu.py makes it',
    total_batch=256,
    batch=32,
)


@dataclass(frozen=True, kw_only=True)
class TransferRecipe(Experiment):
    """A network transferred to another task by that task's recipe."""

    task: Task
    drop_path: float = 0.0  # stochastic depth
    figures: tuple[float, ...] = ()  # the paper's, as the task lists them; none where it has not trained this

    @property
    def config(self) -> str:
        """The config's path from the root of a working tree."""
        return f'configs/{self.name}.py'


def _transfer(task: Task, network: str, *figures: float) -> TransferRecipe:
    """What is trained, and the paper's figures; a network named bn_* is the BatchNorm baseline of nf_*."""
    name, normed, found = task.config.format(network), network.startswith('bn_'), network.replace('bn_', 'nf_')
    drop_path = 0.1 if network.startswith('nfnet') else 0.0  # as the papers fine-tune NFNets and ResNets
    return TransferRecipe(name=name, network=found, batch_norm=normed, task=task, drop_path=drop_path, figures=figures)


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
