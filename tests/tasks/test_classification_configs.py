"""configs/imagenet: what the built runner will do against the papers' recipes, and two steps on real folders."""

import copy
import dataclasses
import functools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.hooks import EMAHook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

from nfnet_mm import run
from nfnet_mm.engine import AGCOptimWrapper, AmpAGCOptimWrapper
from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones.arch import find_network, resolve_arch
from nfnet_mm.recipes import IMAGENET, setting
from nfnet_mm.registry import HOOKS
from nfnet_mm.tasks.classification import CropResize, RandomResizedCrop, ResizeCrop32, mixing_collate

CONFIGS = Path(__file__).parents[2] / 'configs' / 'imagenet'
IMAGES = 1281167
SAM = HOOKS.get('SAMHook')
# train px, test px, dropout, RandAugment's magnitude (NFNets, Table 1 and Appendix A.3)
NFNETS = dict(
    F0=(192, 256, 0.2, 5),
    F1=(224, 320, 0.3, 10),
    F2=(256, 352, 0.4, 10),
    F3=(320, 416, 0.4, 15),
    F4=(384, 512, 0.5, 15),
    F5=(416, 544, 0.5, 15),
    F6=(448, 576, 0.5, 15),
)
LIGHT = {
    'L0': (224, 288, 0.2, 10),
    'ECA-L0': (224, 288, 0.2, 10),
    'ECA-L1': (256, 320, 0.3, 10),
    'ECA-L2': (320, 384, 0.4, 15),
    'ECA-L3': (352, 448, 0.4, 15),
}
# NFNets, Table 2: what each row has of the second conv, MixUp, RandAugment and CutMix, and its last two widths
DEFAULT_WIDTH = (1024, 2048)
ABLATION = dict(
    baseline=(DEFAULT_WIDTH, False, {}, False),
    modified_width=((1536, 1536), False, {}, False),
    second_conv=((1536, 1536), True, {}, False),
    mixup=((1536, 1536), True, dict(cutmix=False), False),
    randaugment=((1536, 1536), True, dict(cutmix=False), True),
    default_width=(DEFAULT_WIDTH, True, dict(), True),
)
# train px, test px, dropout, weight decay (NF-ResNets, Appendix D; the authors' code)
REGNETS = (
    (192, 224, 0.2, 5e-5),
    (224, 256, 0.2, 6e-5),
    (240, 272, 0.3, 7e-5),
    (288, 320, 0.3, 8e-5),
    (320, 384, 0.4, 9e-5),
    (384, 456, 0.4, 1e-4),
)


def recipe(
    batch,
    lr,
    epochs,
    decay,
    dropout=0.0,
    drop_path=0.0,
    train=224,
    test=224,
    agc=None,
    ema=None,
    sam=False,
    mixing=None,
    images=IMAGES,
    warmup=None,
    steps=None,
    floor=0.0,
    clip_norm=None,
    optimizer='SGD',
):
    return dict(
        batch=batch,
        lr=lr,
        steps=steps or epochs * images // batch,
        decay=decay,
        dropout=dropout,
        warmup=warmup or 5 * images // batch,
        drop_path=drop_path,
        train=train,
        test=test,
        agc=agc,
        ema=ema,
        sam=sam,
        mixing=mixing,
        images=None if steps else images,
        floor=floor,
        clip_norm=clip_norm,
        optimizer=optimizer,
    )


def recipes():
    """Config name -> (network, or a dict of its shape, recipe), from the papers."""
    table = {}
    for models, prefix in ((NFNETS, 'nfnet_'), (LIGHT, '')):
        for name, (train, test, dropout, magnitude) in models.items():
            config = prefix + {'L0': 'nfnet_l0'}.get(name, name.lower().replace('eca-', 'eca_nfnet_'))
            kwargs = dict(
                dropout=dropout,
                drop_path=0.25,
                train=train,
                test=test,
                agc=0.01,
                ema=1e-5,
                mixing=dict(randaugment=dict(magnitude=magnitude)),
            )
            table[config] = name, recipe(4096, 1.6, 360, 2e-5, **kwargs)
            if prefix:
                table[f'{config}_sam'] = name, recipe(4096, 1.6, 360, 2e-5, sam=True, **kwargs)
            if name in ('F0', 'F1', 'F2', 'F3'):
                for step, (widths, second, mixing, augmented) in ABLATION.items():
                    shape = dict(
                        widths=(256, 512, *widths), extra_conv=second, depths=resolve_arch('NFNet', name).depths
                    )
                    mixed = dict(mixing, **(dict(randaugment=dict(magnitude=magnitude)) if augmented else {}))
                    changed = dict(kwargs, mixing=mixed if augmented or mixing else None)
                    table[f'{config}_{step}'] = shape, recipe(4096, 1.6, 360, 2e-5, **changed)
                table[f'bn_{config}'] = f'bn_{config}', recipe(4096, 1.6, 360, 2e-5, **kwargs)
    for depth in (50, 101, 152, 200, 288):
        table[f'nf_resnet{depth}'] = str(depth), recipe(1024, 0.4, 90, 5e-5, 0.25, 0.1)
        table[f'nf_resnet{depth}_agc'] = str(depth), recipe(4096, 1.6, 90, 5e-5, 0.25, 0.1, agc=0.01)
        table[f'nf_resnet{depth}_unregularised'] = str(depth), recipe(1024, 0.4, 90, 5e-5)
        table[f'bn_resnet{depth}'] = f'bn_resnet{depth}', recipe(1024, 0.4, 90, 5e-5)
        table[f'bn_resnet{depth}_regularised'] = f'bn_resnet{depth}', recipe(1024, 0.4, 90, 5e-5, 0.25, 0.1)
        for kind in ('fixup', 'skipinit'):
            table[f'{kind}_resnet{depth}'] = f'{kind}_resnet{depth}', recipe(1024, 0.2, 90, 5e-5, 0.25, 0.1)
            table[f'{kind}_resnet{depth}_unregularised'] = f'{kind}_resnet{depth}', recipe(1024, 0.2, 90, 5e-5)
        if depth == 288:
            continue
        for kind, arch, agc in (('nf', str(depth), 0.01), ('bn', f'bn_resnet{depth}', None)):
            table[f'pretrain_{kind}_resnet{depth}'] = (
                arch,
                recipe(1024, 0.4, 10, 1e-5, test=None, agc=agc, images=14197122, warmup=5000),
            )
            for px in (224, 320, 384):
                table[f'finetune_{kind}_resnet{depth}_{px}px'] = (
                    arch,
                    recipe(2048, 0.1, None, 0.0, train=px, test=px, agc=agc, ema=1e-4, steps=15000, warmup=5000),
                )
    large = dict(dropout=0.25, drop_path=0.1)
    table['nf_resnet50_clip_norm'] = '50', recipe(4096, 1.6, 90, 5e-5, clip_norm=1.0, **large)
    table['nf_resnet50_lars'] = '50', recipe(4096, 10.0, 90, 5e-5, optimizer='LARS', **large)
    for batch, lr in ((1024, 0.4), (8, 0.025), (4, 0.01)):
        table[f'nf_resnet50_15e_batch{batch}'] = '50', recipe(batch, lr, 15, 5e-5)
        table[f'bn_resnet50_15e_batch{batch}'] = 'bn_resnet50', recipe(batch, lr, 15, 5e-5)
    for level, (train, test, dropout, decay) in enumerate(REGNETS):
        for ending, mixing in (('', {}), ('_crops', None)):
            table[f'nf_regnet_b{level}{ending}'] = (
                f'B{level}',
                recipe(1024, 0.4, 360, decay, dropout, 0.1, train, test, ema=1e-5, mixing=mixing, floor=0.0025),
            )
    for name, config, epochs in (('F4', 'nfnet_f4', 40), ('F4+', 'nfnet_f4plus', 20)):
        table[f'pretrain_{config}'] = (
            name,
            recipe(4096, 1.6, epochs, 1e-6, test=None, agc=0.01, images=14197122, warmup=5000),
        )
        table[f'finetune_{config}'] = (
            name,
            recipe(2048, 0.1, None, 1e-5, 0.25, 0.1, 384, 512, agc=0.01, ema=1e-4, sam=True, steps=15000, warmup=5000),
        )
    return table


RECIPES = recipes()
# One of each kind in every test run, all of them in `make test-all`.
QUICK = (
    'nfnet_f1',
    'nfnet_f5_sam',
    'eca_nfnet_l0',
    'nf_resnet50',
    'nf_resnet101_agc',
    'nf_resnet50_15e_batch8',
    'nf_regnet_b2',
    'bn_resnet200',
    'fixup_resnet50',
    'skipinit_resnet101_unregularised',
    'bn_nfnet_f0',
    'nfnet_f0_baseline',
    'nfnet_f1_mixup',
    'nf_resnet50_lars',
    'nf_resnet50_clip_norm',
    'nf_regnet_b0_crops',
    'finetune_bn_resnet101_320px',
    'finetune_nf_resnet50_320px',
    'finetune_nfnet_f4plus',
    'pretrain_bn_resnet101',
    'pretrain_nfnet_f4',
)


@functools.lru_cache(None)
def load(name):
    """The config; read only."""
    return Config.fromfile(CONFIGS / f'{name}.py')


PREFIXES = dict(NFNet='', NFResNet='nf_resnet', NFRegNet='nf_regnet_')


def every_config(quick):
    return pytest.mark.parametrize(
        'name', [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in sorted(RECIPES)]
    )


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """ImageNet's layout with three classes of four noisy pictures: <root>/{train,val}/<class>/*.jpg."""
    root, rng = tmp_path_factory.mktemp('imagenet'), np.random.default_rng(0)
    for split in ('train', 'val'):
        for i, name in enumerate(('n01440764', 'n01443537', 'n01484850')):
            folder = root / split / name
            folder.mkdir(parents=True)
            for j in range(4):
                picture = rng.integers(60 * i, 60 * i + 100, (48 + 8 * j, 56, 3), np.uint8)
                Image.fromarray(picture).save(folder / f'{name}_{j}.JPEG')
    return root


def small(name, folders, work_dir):
    """The config with the folders, a network of its family's kind that takes no time, and all else as it is."""
    cfg = copy.deepcopy(load(name))
    cfg.work_dir = str(work_dir)
    backbone = cfg.model.backbone
    backbone.pop('init_cfg', None)
    depths = dict(depths=(1, 1, 1, 1))
    if backbone.type in ('nfnet_mm.NFNet', 'nfnet_mm.BNNFNet'):
        backbone.arch = dict(widths=(16, 16, 32, 32), stem_channels=8, group_width=8, final_channels=32, **depths)
    elif backbone.type == 'nfnet_mm.NFRegNet':
        backbone.arch = dict(widths=(8, 8, 16, 16), final_channels=32, **depths)
    else:
        del backbone['depth']
        backbone.arch = dict(widths=(8, 16, 16, 32), stem_channels=8, **depths)
    cfg.model.head.in_channels = 32
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(key):
            cfg[key].update(num_workers=0, persistent_workers=False)
            cfg[key].dataset.update(data_root=str(folders), metainfo=dict(classes=('a', 'b', 'c')))
    return cfg


@pytest.fixture
def build(folders, tmp_path):
    """Build a config's runner up to the point where mmengine would begin to train."""

    def build(name):
        cfg = small(name, folders, tmp_path)
        runner = Runner.from_cfg(cfg)
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        return runner

    return build


def test_the_table_has_configs_only():
    """Of every recipe of the papers; one of a contributor's own need not be in it."""
    assert len(RECIPES) == 148 and RECIPES.keys() <= {path.stem for path in CONFIGS.glob('*.py')}


@every_config(QUICK)
def test_recipe(name, build):
    expected = RECIPES[name][1]
    runner = build(name)
    loop, wrapper, model = runner.train_loop, runner.optim_wrapper, runner.model
    optimizer = wrapper.optimizer

    per_sample = 1 if expected['mixing'] is None else 2
    assert loop.dataloader.batch_size * loop.accumulation == expected['batch'] * per_sample  # on one device
    assert loop.images in (expected['images'], 12)  # in an epoch; of those that are told in steps, the data set's
    assert wrapper._accumulative_counts == loop.accumulation
    assert loop.max_iters == expected['steps']
    assert type(optimizer).__name__ == expected['optimizer'] and optimizer.param_groups[0]['nesterov']
    assert {(g['initial_lr'], g['momentum']) for g in optimizer.param_groups} == {(expected['lr'], 0.9)}
    rising, falling = runner.param_schedulers
    assert rising.begin == 0 and rising.end - 1 == falling.begin == expected['warmup']
    assert falling.end == falling.begin + falling.T_max == expected['steps']
    assert (falling.eta_min_ratio or falling.eta_min) == expected['floor']
    assert optimizer.param_groups[0]['lr'] == pytest.approx(0, abs=1e-7)

    decays = {p: g['weight_decay'] for g in optimizer.param_groups for p in g['params']}
    for key, p in model.named_parameters():
        assert decays[p] == (0 if p.dim() < 2 else expected['decay']), key
    assert (wrapper.clip_grad_kwargs or {}).get('max_norm') == expected['clip_norm'] or expected['agc']
    if expected['agc'] is None:
        assert not isinstance(wrapper, (AGCOptimWrapper, AmpAGCOptimWrapper))
    else:
        assert isinstance(wrapper, (AGCOptimWrapper, AmpAGCOptimWrapper))
        assert wrapper.agc == dict(clipping=expected['agc'], eps=1e-3)
        assert {key for key, p in model.named_parameters() if p in wrapper.excluded} == {'head.fc.weight'}
    assert (getattr(wrapper, 'cast_dtype', None) == torch.bfloat16) == ('nfnet' in name)

    averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
    assert [hook.ema_cfg['type'] for hook in averages] == ['nfnet_mm.WarmupEMA'] * (expected['ema'] is not None)
    assert all(hook.ema_cfg['momentum'] == expected['ema'] for hook in averages)
    assert all(hook.ema_cfg.get('update_buffers', False) == ('bn_' in name) for hook in averages)
    sams = [hook for hook in runner.hooks if isinstance(hook, SAM)]
    assert [(hook.rho, hook.fraction) for hook in sams] == [(0.05, 0.2)] * expected['sam']

    assert model.head.dropout.p == expected['dropout']
    assert model.head.loss_module.label_smooth_val == 0.1
    assert [stage[0].drop_path_rate for stage in model.backbone.stages] == pytest.approx(
        [expected['drop_path'] * i / 4 for i in range(4)]
    )
    assert model.head.init_cfg == (
        dict(type='Constant', layer='Linear', val=0)
        if re.search('regnet|bn_resnet|fixup|skipinit', name)
        else dict(type='Normal', layer='Linear', std=0.01)
    )
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert model.data_preprocessor.std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert model.data_preprocessor.to_rgb and model.data_preprocessor.batch_augments is None

    steps = loop.dataloader.dataset.pipeline.transforms
    assert [type(step).__name__ for step in steps] == [
        'LoadImageFromFile',
        'RandomResizedCrop',
        'RandomFlip',
        'PackInputs',
    ]
    assert steps[1].scale == (expected['train'],) * 2 and steps[1].crop_ratio_range == (0.08, 1.0)
    assert steps[1].aspect_ratio_range == (3 / 4, 4 / 3)
    assert type(steps[1]) is RandomResizedCrop and steps[1].clip is False
    collate = loop.dataloader.collate_fn
    if expected['mixing'] is None:
        assert collate.func is not mixing_collate
    else:
        assert collate.func is mixing_collate
        assert collate.keywords == dict(num_classes=1000, **expected['mixing'])
    if expected['test'] is None:
        assert runner.val_loop is None
    else:
        load_image, view, pack = runner.val_loop.dataloader.dataset.pipeline.transforms
        assert [type(step).__name__ for step in (load_image, pack)] == ['LoadImageFromFile', 'PackInputs']
        assert type(view) is (ResizeCrop32 if 'nfnet' in name else CropResize) and view.size == expected['test']


@pytest.mark.parametrize('name', sorted(RECIPES))
def test_shapes(name):
    """The variant, and a head that fits it; without building it, which the test of all configs does."""
    arch, expected = RECIPES[name]
    cfg = load(name)
    backbone, head = cfg.model.backbone, cfg.model.head
    assert tuple(backbone.out_indices) == (4,)
    family = backbone.type.rpartition('.')[2]
    built = resolve_arch(family, backbone.get('arch') or str(backbone.depth))
    if isinstance(arch, dict):
        found = find_network(re.sub('_[a-z]+(_[a-z]+)?$', '', name))
        row = dataclasses.replace(found.arch, **arch, final_channels=2 * arch['widths'][-1])
    else:
        found = find_network(arch if arch.startswith('bn_') or '_' in arch else f'{PREFIXES[family]}{arch}')
        row = found.arch
        assert found.family == family
    assert built == row and head.in_channels == (row.final_channels or row.widths[-1])
    if 'tune' not in name and 'pretrain' not in name:
        own = setting(found)
        assert (own.train_size, own.test_size) == (expected['train'], expected['test'])


def test_leaves_are_short_and_do_their_arithmetic():
    for path in CONFIGS.glob('*.py'):
        lines = path.read_text().splitlines()
        assert len(lines) <= 30, path.name
        cfg = load(path.stem)
        gpus = 1 if path.stem.endswith(('batch8', 'batch4')) else 8
        mixed = cfg.train_dataloader.collate_fn.type == 'nfnet_mm.mixing_collate'
        batch, each = cfg.train_cfg.total_batch, cfg.train_dataloader.batch_size // (1 + mixed)
        said = f'{batch} = {each} {"samples, each mixed from two images," if mixed else "images"} x {gpus} GPU'
        said += 's' * (gpus > 1) + (f' x {batch // (each * gpus)} accumulated' if batch > each * gpus else '')
        assert said in ' '.join(lines[:2]) and batch % (each * gpus) == 0, (path.name, said)


@pytest.mark.parametrize('total', [4096, 2048])
def test_learning_rate_step_by_step(total, folders, tmp_path):
    """Linear from 0 to the full rate at step `warmup`, then half a cosine to 0: both schedulers, really stepped.

    Another total batch keeps the epochs and scales the rate.
    """
    cfg = small('nf_resnet50_agc', folders, tmp_path)
    cfg.train_cfg.total_batch = total
    runner = Runner.from_cfg(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.optim_wrapper = wrapper
    schedulers = runner.build_param_scheduler(runner.param_schedulers)
    warmup, steps = 5 * IMAGES // total, 90 * IMAGES // total
    seen = []
    for _ in range(runner.max_iters):
        seen.append(wrapper.optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            scheduler.step()
    expected = [
        k / warmup if k < warmup else 0.5 + 0.5 * math.cos(math.pi * (k - warmup) / (steps - warmup))
        for k in range(steps)
    ]
    assert len(seen) == steps
    assert np.abs(np.array(seen) - 1.6 * total / 4096 * np.array(expected)).max() < 1e-6


@every_config(
    (
        'nfnet_f0',
        'nfnet_f6_sam',
        'eca_nfnet_l1',
        'nf_resnet50',
        'nf_resnet50_agc',
        'nf_resnet50_15e_batch4',
        'nf_regnet_b0',
        'bn_resnet50',
        'fixup_resnet50',
        'skipinit_resnet50',
        'bn_nfnet_f0',
        'nfnet_f0_randaugment',
        'finetune_nf_resnet50_224px',
        'pretrain_nf_resnet50',
    )
)
def test_two_steps_and_validation(name, folders, tmp_path):
    cfg = small(name, folders, tmp_path)
    if cfg.train_dataloader.batch_size > 4:
        cfg.train_dataloader.batch_size = 4
    cfg.train_cfg.update(total_batch=8, max_iters=2, max_epochs=None, images=None, val_interval=2)
    cfg.param_scheduler[0].update(end=2, by_epoch=False)  # to the full rate in the second step
    cfg.param_scheduler[1].update(begin=1, by_epoch=False)
    cfg.train_dataloader.dataset.pipeline[1].scale = 32
    cfg.default_hooks.logger.interval = 1
    if cfg.get('val_dataloader'):
        pipeline = cfg.val_dataloader.dataset.pipeline
        pipeline[1].size = 40
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    before = {key: p.detach().clone() for key, p in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 2 and (tmp_path / 'iter_2.pth').exists()
    for key, p in runner.model.named_parameters():
        assert p.isfinite().all(), key
    moved = [key for key, p in runner.model.named_parameters() if not torch.equal(p, before[key])]
    assert 'head.fc.weight' in moved and 'head.fc.bias' in moved
    # with a classifier of zeros nothing else has a gradient before the second update
    assert cfg.model.head.get('init_cfg') or any(key.startswith('backbone') for key in moved)
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == 2 and np.isfinite(losses).all()
    classes = cfg.model.head.num_classes
    assert abs(losses[0] - math.log(classes)) < 1
    if cfg.get('val_dataloader'):
        assert 0 <= runner.message_hub.get_scalar('val/accuracy/top1').current() <= 100


@pytest.mark.parametrize('kind', ['nf', 'bn'])
def test_fine_tuning_starts_from_the_pre_trained_backbone(kind, folders, tmp_path):
    """What pre-training saves is what the fine-tuning's init_cfg loads, though the classes are others."""
    source = Runner.from_cfg(small(f'pretrain_{kind}_resnet50', folders, tmp_path / 'a')).model
    source.init_weights()
    with torch.no_grad():
        for p in source.parameters():
            p.normal_()
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'pretrained.pth')
    name = f'finetune_{kind}_resnet50_384px'
    cfg = small(name, folders, tmp_path / 'b')
    cfg.model.backbone.init_cfg = dict(load(name).model.backbone.init_cfg, checkpoint=str(tmp_path / 'pretrained.pth'))
    target = Runner.from_cfg(cfg).model
    target.init_weights()
    ours, theirs = target.backbone.state_dict(), source.backbone.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_every_fine_tuning_starts_from_weights_that_are_to_be_named():
    """By an option too, in configs that inherit another fine-tuning; and no file is named that need not exist."""
    for name in (name for name in RECIPES if name.startswith('finetune')):
        cfg = load(name)
        assert cfg.weights is None and cfg.model.backbone.init_cfg.checkpoint is None
        start = re.sub('_[0-9]+px', '', name).replace('finetune', 'pretrain')
        assert IMAGENET[name].start == start and f'{start}.py' in (CONFIGS / f'{name}.py').read_text()
        cfg = run.load_config(str(CONFIGS / f'{name}.py'), dict(weights='some.pth'))
        assert cfg.model.backbone.init_cfg == dict(type='nfnet_mm.NFPretrained', checkpoint='some.pth')


def test_weights_for_a_config_that_takes_none_are_refused():
    with pytest.raises(UserError, match='weights=some.pth: this config starts from random weights'):
        run.load_config(str(CONFIGS / 'nfnet_f0.py'), dict(weights='some.pth'))


def test_workers_mix_reproducibly(folders, tmp_path):
    """The same seed gives the same mixed and augmented batches, from two worker processes."""
    cfg = small('nfnet_f0', folders, tmp_path)
    init_default_scope(cfg.default_scope)
    cfg.train_dataloader.update(batch_size=4, num_workers=2)
    cfg.train_dataloader.dataset.pipeline[1].scale = 32
    batches = []
    for seed in (0, 0, 1):
        loader = iter(Runner.build_dataloader(copy.deepcopy(cfg.train_dataloader), seed=seed))
        batches.append([next(loader) for _ in range(3)])
        del loader
    images = [torch.stack([batch['inputs'] for batch in run]) for run in batches]
    assert images[0].dtype == torch.uint8 and images[0].shape == (3, 2, 3, 32, 32)
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])
    scores = [torch.stack([s.gt_score for batch in run for s in batch['data_samples']]) for run in batches]
    assert torch.equal(scores[0], scores[1]) and scores[0].shape == (6, 1000)
