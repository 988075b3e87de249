"""The written configs: as the tables say, and each whole in spite of what it inherits."""

import dataclasses
import doctest
from pathlib import Path

import pytest
from mmengine import Config

from nfnet_mm import config_files
from nfnet_mm.analysis.model_zoo import metafile
from nfnet_mm.errors import UserError
from nfnet_mm.recipes import IMAGENET, TRANSFERS
from nfnet_mm.recipes.imagenet import _network_of

ROOT = Path(__file__).parents[2]


def test_examples():
    assert doctest.testmod(config_files.text) == (0, 2)


def test_files_are_up_to_date():
    files = config_files.config_files()
    stale = [path for path, text in files.items() if not (ROOT / path).exists() or (ROOT / path).read_text() != text]
    assert not stale, f'{stale} differ from the tables: run python tools/write_configs.py'
    leaves = [*ROOT.glob('configs/*.py'), *ROOT.glob('configs/imagenet/*.py')]
    written = [path for path in files if '_base_' not in path]
    assert sorted(written) == sorted(str(path.relative_to(ROOT)) for path in leaves)
    assert {line for text in files.values() for line in text.splitlines() if len(line) > 120} == set()


def test_little_is_kept_by_hand():
    files = config_files.config_files()
    by_hand = [path for path in (ROOT / 'configs').rglob('*.py') if str(path.relative_to(ROOT)) not in files]
    assert len(by_hand) <= 16
    imagenet = ('data/imagenet', 'model/classifier', 'model/pixels', 'recipe/imagenet', 'runtime/*')
    paths = [path for name in imagenet for path in (ROOT / 'configs/_base_').glob(f'{name}.py')]
    assert len({line for path in paths for line in path.read_text().splitlines()}) < 150


def settled(name, text, folder):
    """What a config with this text resolves to, beside the others."""
    path = folder / f'{name}.py'
    path.write_text(text.replace("'../_base_", f"'{ROOT}/configs/_base_"))
    return Config.fromfile(path).to_dict()


def test_an_inherited_config_is_what_it_would_be_alone(tmp_path):
    """Each recipe written whole and written as a difference resolve to the same."""
    short = {recipe.name: settled(recipe.name, config_files.imagenet(recipe), tmp_path) for recipe in IMAGENET.values()}
    for name, recipe in IMAGENET.items():
        whole = settled(f'whole_{name}', config_files.imagenet(dataclasses.replace(recipe, like=None)), tmp_path)
        if (
            recipe.pretraining
        ):  # written whole it keeps the type of the data that the base names, which the row replaces
            for config in (whole, short[name]):
                config.pop('train_dataloader')
        if 'custom_hooks' not in whole:  # an empty list takes away what it inherits
            assert not short[name].pop('custom_hooks', None)
        assert whole == short[name], name


@pytest.mark.parametrize('recipe', IMAGENET.values(), ids=lambda recipe: recipe.name)
def test_numbers_of_the_row(recipe):
    cfg = Config.fromfile(ROOT / recipe.config)
    recipe, loop = recipe.resolved, cfg.train_cfg
    rising, falling = cfg.param_scheduler
    assert (loop.total_batch, cfg.train_dataloader.batch_size) == (
        recipe.total_batch,
        recipe.batch * (1 + recipe.mixing),
    )
    if recipe.steps:
        assert (loop.max_iters, loop.get('max_epochs')) == (recipe.steps, None)
    else:
        assert (loop.max_epochs, loop.images, loop.get('max_iters')) == (recipe.epochs, recipe.images, None)
    by_step = recipe.warmup_steps is not None
    assert [scheduler.get('by_epoch', True) for scheduler in cfg.param_scheduler] == [not by_step] * 2
    assert (rising.end - by_step, falling.begin) == (recipe.warmup_steps or 5,) * 2
    assert cfg.train_dataloader.dataset.pipeline[1].scale == recipe.train_size
    assert (cfg.optim_wrapper.optimizer.lr, cfg.model.head.dropout) == (recipe.lr, recipe.dropout)


@pytest.mark.parametrize('recipe', TRANSFERS.values(), ids=lambda recipe: recipe.name)
def test_the_batch_of_a_transfer_is_that_of_its_base(recipe):
    pytest.importorskip('mmdet' if recipe.task.title.startswith('Mask') else 'mmseg')
    cfg = Config.fromfile(ROOT / recipe.config)
    assert (cfg.train_cfg.total_batch, cfg.train_dataloader.batch_size) == (recipe.task.total_batch, recipe.task.batch)


def test_a_new_row_states_only_what_it_changes(tmp_path, monkeypatch):
    """One row of a sweep: AGC of 0.04 at batch 512."""
    like = IMAGENET['nf_resnet50_agc']
    row = dataclasses.replace(like, name='sweep', like=like.name, total_batch=512, batch=64, lr=0.2, agc=0.04, note='')
    monkeypatch.setitem(IMAGENET, 'sweep', row)
    for name in ('nf_resnet50', 'nf_resnet50_agc'):
        (tmp_path / f'{name}.py').write_text(
            (ROOT / IMAGENET[name].config).read_text().replace("'../_base_", f"'{ROOT}/configs/_base_")
        )
    text = config_files.imagenet(row)
    assert '# 512 = 64 images x 8 GPUs.\n' in text and 'optimizer=dict(lr=0.2)' in text and 'model' not in text
    assert 'param_scheduler' not in text and 'max_epochs' not in text
    cfg, before = Config(settled('sweep', text, tmp_path)), Config.fromfile(ROOT / like.config)
    assert cfg.train_cfg == dict(before.train_cfg, total_batch=512, lr_batch=512) and before.train_cfg.max_epochs == 90
    assert cfg.optim_wrapper.agc == dict(clipping=0.04, eps=1e-3) and cfg.model == before.model


def test_a_new_row_may_change_one_field(tmp_path):
    """A name that a changed setting needs is written, though its value is inherited; mixed precision without AGC."""
    like = IMAGENET['finetune_nf_resnet50_224px']
    row = dataclasses.replace(like, name='scaled', like=like.name, scale_lr=True, agc=None, bfloat16=True)
    text = config_files.imagenet(row).replace(f"'{like.name}.py'", f"'{ROOT / like.config}'")
    cfg = Config(settled('scaled', text, tmp_path))
    assert cfg.train_cfg == dict(Config.fromfile(ROOT / like.config).train_cfg, lr_batch=2048)
    wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', constructor='nfnet_mm.NFOptimWrapperConstructor')
    assert {key: value for key, value in cfg.optim_wrapper.items() if key != 'optimizer'} == wrapper


@pytest.mark.parametrize(
    'name, like, changes, message',
    [
        ('nf_resnet101', 'nf_resnet50', {}, "recipe 'nf_resnet101' is there already"),
        ('nf_resnet78', 'nf_resnet50', {}, 'would train nf_resnet50, and is not named after it: state network='),
        ('nf_resnet600', 'nf_resnet05', {}, r"like='nf_resnet05' is no row above it. Did you mean 'nf_resnet50'\?"),
        ('nf_resnet600', 'nf_resnet50', dict(start='pretrain'), "start='pretrain' is no row above it"),
        ('nf_resnet600', 'nf_resnet50', dict(bacth=8), "field 'bacth' is unknown. Did you mean 'batch'"),
        ('quick', 'nf_resnet50', dict(network='nf_resnet55'), "backbone 'nf_resnet55' is unknown"),
    ],
)
def test_a_row_that_cannot_be_meant_is_refused(name, like, changes, message):
    with pytest.raises(UserError, match=message):
        _network_of(name, like, IMAGENET, changes)


def test_numbers_of_a_row_are_checked():
    row = IMAGENET['nf_resnet50']
    for change, message in (
        (dict(batch=96), r'total_batch=1024 is no multiple of 96 images x 8 devices = 768: change batch'),
        (dict(drop_path=1.5), r'recipe nf_resnet50: drop_path=1.5 must be a number in \[0, 1\)'),
        (dict(lr='0.1'), "recipe nf_resnet50: lr='0.1' must be a positive finite number"),
    ):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(row, **change)


def test_a_row_named_as_a_network_or_after_one_trains_it():
    assert _network_of('nf_resnet600', 'nf_resnet50', IMAGENET, {}) == 'nf_resnet600'
    assert _network_of('bn_resnet50_long', 'bn_resnet50', IMAGENET, {}) == 'bn_resnet50'
    assert _network_of('quick', 'nf_resnet50', IMAGENET, dict(network='F4+')) == 'nfnet_f4+'


def test_the_zoo_says_what_a_recipe_was_trained_on(monkeypatch):
    """A fine-tuning from a recipe of ImageNet is none from JFT-300M."""
    row = dataclasses.replace(IMAGENET['nf_resnet50'], name='nf_resnet50_more', start='nf_resnet50')
    monkeypatch.setitem(IMAGENET, row.name, row)
    models = {model['Name']: model for model in metafile('NFResNet')['Models']}
    assert 'Training Data' not in models['nf_resnet50_more_in1k']['Metadata']
    assert models['finetune_nf_resnet50_224px_in1k']['Metadata']['Training Data'] == ['JFT-300M', 'ImageNet-1k']
