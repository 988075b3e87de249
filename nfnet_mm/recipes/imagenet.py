"""The trainings on ImageNet, and the large-scale pre-training for it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from nfnet_mm.errors import UserError, did_you_mean
from nfnet_mm.models.backbones.arch import find_network, network_names

from .rows import ImageNetRecipe

_TABLE1 = 'NF-ResNets, Table 1'
_UNREGULARISED = dict(dropout=0.0, drop_path=0.0)
# Of both kinds of networks (NFNets, Appendix A.5): crops and flips only; in fine-tuning the learning rate is not scaled
# by the batch, and the average decays by 0.9999.
_NOTE = 'Results are those of the fine-tuning.'
_PLAIN_READING = 'The paper does not say whether pre-training has dropout and stochastic depth: here it has neither.'
_WARMUP_READING = 'The 5,000 steps of warm-up are given for ResNets, and taken over for NFNets.'
_CROPS = dict(mixup=False, cutmix=False, train_size=224, test_size=224)
_PRETRAINING = dict(pretraining=True, **_CROPS, warmup_steps=5000, **_UNREGULARISED, ema=None, note=_NOTE)
_FINETUNING = dict(total_batch=2048, steps=15_000, warmup_steps=5000, lr=0.1, scale_lr=False, ema=1e-4)
_FINETUNING |= dict(mixup=False, cutmix=False)
_JFT = 'NFNets, {}Table {}, pre-trained on JFT-300M'
_OWN = ('top1', 'top5', 'source', 'note', 'reading', 'memory')  # never taken over from the row that another is like
# NFNets, Tables 2 and 6: what each row adds to the one before, from the plain SE-ResNeXt-D shape on, and what F0 to F3
# reach. The last step, CutMix, is the full recipe.
_ABLATION: tuple[tuple[str, dict[str, Any], bool, int | None, tuple[float, ...]], ...] = (
    ('baseline', dict(widths=(256, 512, 1024, 2048), extra_conv=False), False, 0, (80.4, 81.7, 82.0, 82.3)),
    ('modified_width', dict(extra_conv=False), False, 0, (80.9, 81.8, 82.0, 82.3)),
    ('second_conv', {}, False, 0, (81.3, 82.2, 82.4, 82.7)),
    ('mixup', {}, True, 0, (82.2, 82.9, 83.1, 83.5)),
    ('randaugment', {}, True, None, (83.2, 84.6, 84.8, 85.0)),
)


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
    if network not in name:
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
        fields: dict[str, Any] = dict(name=name, like=like, network=_network_of(name, like, rows, changes))
        own = {field: ImageNetRecipe.__dataclass_fields__[field].default for field in _OWN}
        rows[name] = dataclasses.replace(rows[like], **{**fields, **own, **changes})

    long = dict(epochs=360, val_epochs=10, mixup=True, cutmix=True, ema=1e-5)
    # NFNets, section 5.1 and Appendix A: 0.1 of learning rate for every 256 images
    sgd = dict(total_batch=4096, batch=512, lr=1.6, weight_decay=2e-5, agc=0.01, bfloat16=True)
    plain('nfnet_f0', **long, **sgd, memory=21, drop_path=0.25, top1=83.6, top5=96.8, source='NFNets, Table 3')
    # NF-ResNets, section 5.1: crops and flips only; without AGC, which came with the second paper
    sgd = dict(total_batch=1024, batch=128, lr=0.4, weight_decay=5e-5, drop_path=0.1)
    plain('nf_resnet50', **sgd, epochs=90, val_epochs=5, source=_TABLE1)
    # NF-ResNets, section 5.2 and Appendix C: no AGC, and mixing without RandAugment, which destabilised these networks
    regnet = dict(source='NF-ResNets, Table 3', note='With MixUp and CutMix.')
    regnet['reading'] = (
        'Weight decay grows by 1e-5 a level and the cosine ends at 0.001, as in the released code; the paper has 5e-5 '
        'for all (2e-5 to 5e-5 in its listing) and a cosine to zero.'
    )
    plain('nf_regnet_b0', **long, **sgd, floor=0.0025, top1=77.0, **regnet)

    # The batches are for 40 GB, which leaves room for the variants below; memory as torch's allocator counts it.
    table3: dict[str, Any] = dict(source='NFNets, Table 3')
    add('nfnet_f1', like='nfnet_f0', batch=256, memory=26, top1=84.7, top5=97.1, **table3)
    add('nfnet_f2', like='nfnet_f0', batch=128, memory=26, top1=85.1, top5=97.3, **table3)
    add('nfnet_f3', like='nfnet_f0', batch=64, memory=28, top1=85.7, top5=97.5, **table3)
    add('nfnet_f4', like='nfnet_f0', batch=32, memory=26, top1=85.9, top5=97.6, **table3)
    add('nfnet_f5', like='nfnet_f0', batch=32, memory=36, top1=86.0, top5=97.6, **table3)
    add('nfnet_f6', like='nfnet_f0', batch=16, memory=27, note='The paper has F6 with SAM only.')
    for n in range(5):
        add(f'nfnet_f{n}_sam', like=f'nfnet_f{n}', sam=True, note='The paper has SAM for F5 and F6 only.')
    add('nfnet_f5_sam', like='nfnet_f5', sam=True, top1=86.3, top5=97.9, **table3)
    add('nfnet_f6_sam', like='nfnet_f6', sam=True, top1=86.5, top5=97.9, **table3)
    for name in ('nfnet_l0', 'eca_nfnet_l0', 'eca_nfnet_l1', 'eca_nfnet_l2', 'eca_nfnet_l3'):
        add(name, like='nfnet_f0', batch=64, note='In neither paper; timm trains it by another recipe.')
    mixed: dict[str, Any] = dict(mixup=True, cutmix=True, randaugment=None)
    for n in range(4):
        table2: dict[str, Any] = dict(like=f'nfnet_f{n}', source='NFNets, Table 2')
        for step, arch, mixup, magnitude, top1s in _ABLATION:
            changes = dict(arch=arch, mixup=mixup, cutmix=False, randaugment=magnitude, top1=top1s[n], **table2)
            reading = "The baseline has the depths of the variants, as the table's rows differ in width and convs."
            add(f'nfnet_f{n}_{step}', **changes, reading=reading if step == 'baseline' else '')
        changes = dict(arch=dict(widths=(256, 512, 1024, 2048)), top1=(83.1, 84.5, 85.0, 85.5)[n])
        add(f'nfnet_f{n}_default_width', **table2, **mixed, **changes)
        reading = (
            'Where BatchNorm stands is not said: before every activation here, in place of standardised weights, '
            'variance planning and SkipInit. Nor is whether AGC is kept: it is here, as the rest of the recipe.'
        )
        changes = dict(top1=(83.4, 84.4, 85.1, 85.5)[n], reading=reading)
        add(f'bn_nfnet_f{n}', like=f'nfnet_f{n}', source='NFNets, Table 6', **changes)
    large: dict[str, Any] = dict(network='nfnet_f4')
    changes = dict(**_PRETRAINING, epochs=40, weight_decay=1e-6, reading=f'{_PLAIN_READING} {_WARMUP_READING}')
    add('pretrain_nfnet_f4', like='nfnet_f0', batch=128, **large, **changes)
    changes = dict(network='nfnet_f4+', epochs=20, note=_NOTE, reading=changes['reading'])
    add('pretrain_nfnet_f4plus', like='pretrain_nfnet_f4', **changes)
    changes = dict(batch=32, weight_decay=1e-5, dropout=0.25, drop_path=0.1, sam=True, top1=89.2)
    changes |= dict(source=_JFT.format('Appendix A.5, ', 5), reading=_WARMUP_READING)
    add('finetune_nfnet_f4', like='nfnet_f0', **large, **_FINETUNING, **changes, start='pretrain_nfnet_f4')
    changes = {key: changes[key] for key in ('top1', 'source', 'reading')}
    changes |= dict(network='nfnet_f4+', start='pretrain_nfnet_f4plus')
    add('finetune_nfnet_f4plus', like='finetune_nfnet_f4', **changes)

    # NF-ResNets, Table 1: the median of five seeds, without and with dropout and stochastic depth. Of 50 to 200 only
    # the unregularised NF-ResNets' figures are at hand.
    for depth, batch in ((101, 128), (152, 128), (200, 64), (288, 32)):
        top1 = 79.5 if depth == 288 else None
        add(f'nf_resnet{depth}', like='nf_resnet50', batch=batch, top1=top1, source=_TABLE1)
    kinds: tuple[tuple[str, dict[str, Any], tuple[float | None, ...], float | None], ...] = (
        ('nf', {}, (75.8, 77.1, 77.6, 77.9, 78.1), None),
        ('bn', {}, (None, None, None, None, 78.8), 79.5),
        ('fixup', dict(lr=0.2), (None, None, None, None, 76.2), 78.4),
        ('skipinit', dict(lr=0.2), (None, None, None, None, 76.3), 78.7),
    )
    for kind, sgd, unregularised, regularised in kinds:
        for depth, top1 in zip((50, 101, 152, 200, 288), unregularised):
            # An NF-ResNet's plain name is the regularised one's, as in the papers; a BatchNorm ResNet's the other's.
            name, bare = f'{kind}_resnet{depth}', f'{kind}_resnet{depth}_unregularised'
            changes = dict(**sgd, top1=regularised if depth == 288 else None, source=_TABLE1)
            if kind == 'bn':
                name, bare = f'{name}_regularised', name
            if kind != 'nf':
                add(name, like=f'nf_resnet{depth}', network=f'{kind}_resnet{depth}', **changes)
            add(bare, like=name, network=f'{kind}_resnet{depth}', **_UNREGULARISED, top1=top1, source=_TABLE1)
    # NFNets, section 4.1 and Figure 2, and what section 4 compares AGC with
    for depth in (50, 101, 152, 200, 288):
        source = 'NFNets, Figure 2' if depth in (50, 200) else ''
        add(f'nf_resnet{depth}_agc', like=f'nf_resnet{depth}', total_batch=4096, lr=1.6, agc=0.01, source=source)
    large = dict(agc=None, source='NFNets, section 4')
    reading = 'The paper gives no threshold, and says that it must be tuned: 1 is a choice.'
    add('nf_resnet50_clip_norm', like='nf_resnet50_agc', clip_norm=1.0, **large, reading=reading)
    reading = 'The paper gives no setting of LARS: its learning rate of 10 is a choice, to be tuned.'
    add('nf_resnet50_lars', like='nf_resnet50_agc', optimizer='LARS', lr=10.0, **large, reading=reading)
    # Small batches (NF-ResNets, section 5.1), without dropout and stochastic depth
    short = dict(epochs=15, val_epochs=1, **_UNREGULARISED, source='NF-ResNets, Table 2')
    for total, batch, devices, lr, nf, bn in (
        (1024, 128, 8, 0.4, 69.9, 70.9),
        (8, 8, 1, 0.025, 69.6, 65.7),
        (4, 4, 1, 0.01, 69.9, 55.7),
    ):
        name = f'resnet50_15e_batch{total}'
        changes = dict(total_batch=total, batch=batch, devices=devices, lr=lr)
        add(f'nf_{name}', like='nf_resnet50', **short, **changes, top1=nf)
        add(f'bn_{name}', like=f'nf_{name}', network='bn_resnet50', source=short['source'], top1=bn)
    # NFNets, Appendix A.5 and Table 4: images on a device, and top-1 of both kinds, at 224, 320 and 384 px
    for depth, batches, nf_top1, bn_top1 in (
        (50, (128, 64, 32), (79.5, 80.9, 81.1), (78.1, 79.6, 79.9)),
        (101, (128, 64, 32), (81.4, 82.7, 83.2), (80.8, 82.2, 82.5)),
        (152, (128, 64, 32), (82.7, 83.6, 84.0), (81.8, 83.1, 83.4)),
        (200, (64, 32, 32), (82.9, 84.1, 84.3), (81.8, 83.1, 83.5)),
    ):
        for kind, clipping, top1s in (('nf', 0.01, nf_top1), ('bn', None, bn_top1)):
            network = dict(network=f'{kind}_resnet{depth}', agc=clipping, drop_path=0.0)
            start, like = f'pretrain_{kind}_resnet{depth}', 'pretrain_nf_resnet50'
            changes = {**_PRETRAINING, **network, 'batch': batches[0], 'epochs': 10, 'weight_decay': 1e-5}
            add(start, like=like if like in rows else 'nf_resnet50', **changes, reading=_PLAIN_READING)
            for size, batch, top1 in zip((224, 320, 384), batches, top1s):
                name, like = f'finetune_{kind}_resnet{depth}_{size}px', f'finetune_{kind}_resnet50_224px'
                changes = dict(**_FINETUNING, weight_decay=0.0, dropout=0.0, train_size=size, test_size=size)
                changes |= dict(**network, batch=batch, start=start, top1=top1, source=_JFT.format('', 4))
                add(name, like=like if like in rows else 'nf_resnet50', **changes)

    # NF-ResNets, Table 3
    for n, decay, batch, mixed_top1, top1 in (
        (0, 5e-5, 128, 77.0, 76.8),
        (1, 6e-5, 128, 78.7, 78.6),
        (2, 7e-5, 128, 80.0, 79.6),
        (3, 8e-5, 128, 81.2, 80.6),
        (4, 9e-5, 64, 82.5, 81.7),
        (5, 1e-4, 64, 83.0, 82.0),
    ):
        if n:
            add(f'nf_regnet_b{n}', like='nf_regnet_b0', weight_decay=decay, batch=batch, top1=mixed_top1, **regnet)
        changes = dict(mixup=False, cutmix=False, top1=top1, source=regnet['source'], reading=regnet['reading'])
        add(f'nf_regnet_b{n}_crops', like=f'nf_regnet_b{n}', **changes, note='Crops and flips only.')
    return rows


IMAGENET: Mapping[str, ImageNetRecipe] = _imagenet()
