"""Schedules in epochs against closed formulas, and against mmengine's own schedulers stepped by epochs."""

import json
import math

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from nfnet_mm.engine.epochs import in_updates
from tests.engine.test_total_batch import toy_runner, trained

IMAGENET = 1281167
MIXED = {'train_dataloader.collate_fn': dict(type='nfnet_mm.mixing_collate', num_classes=10)}


def in_epochs(*schedule, **train_cfg):
    return {'train_cfg': dict(dict(max_iters=None), **train_cfg), 'param_scheduler': list(schedule)}


def stepped(cfg, steps):
    """The learning rates of a scheduler, or of several, from the first step on."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.8)
    schedulers = [PARAM_SCHEDULERS.build(dict(one, optimizer=optimizer)) for one in cfg]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


@pytest.mark.parametrize('total, updates, warmup', [(4096, 28150, 1563), (2048, 56301, 3127)])
def test_ninety_epochs_are_ninety_with_any_total_batch(tmp_path, total, updates, warmup):
    schedule = dict(type='LinearLR', start_factor=1e-8, end=5), dict(type='CosineAnnealingLR', begin=5)
    epochs = in_epochs(*schedule, total_batch=total, lr_batch=4096, max_epochs=90, images=IMAGENET, val_interval=5)
    runner = toy_runner(tmp_path / str(total), **epochs, **{'optim_wrapper.optimizer.lr': 1.6})
    loop = runner.train_loop
    assert (loop.max_iters, loop.val_interval) == (updates, 5 * IMAGENET // total)
    rate = 1.6 * total / 4096
    assert runner.optim_wrapper['optimizer']['lr'] == pytest.approx(rate)
    assert runner.param_schedulers == [  # as the configs state it in updates
        dict(type='LinearLR', start_factor=1e-8, by_epoch=False, begin=0, end=warmup + 1),
        dict(type='CosineAnnealingLR', by_epoch=False, begin=warmup, end=updates, T_max=updates - warmup),
    ]
    expected = [
        1e-8 + (1 - 1e-8) * t / warmup
        if t < warmup
        else (1 + math.cos(math.pi * (t - warmup) / (updates - warmup))) / 2
        for t in range(updates)
    ]
    found = torch.tensor(stepped(runner.param_schedulers, updates), dtype=torch.float64) / 0.8
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='StepLR', step_size=2, gamma=0.5),
        dict(type='MultiStepLR', begin=1, milestones=[2, 4], gamma=0.1, end=6),
        dict(type='ExponentialLR', begin=2, gamma=0.9),
        dict(type='CosineAnnealingLR', T_max=8, eta_min=0.1),
        dict(type='CosineRestartLR', begin=1, periods=[2, 5], restart_weights=[1, 0.5], eta_min=0.0),
    ],
    ids=lambda cfg: cfg['type'],
)
def test_each_epoch_begins_at_the_rate_of_mmengines_epochs(cfg):
    """Forty samples are five updates of eight."""
    converted = in_updates(cfg, 'schedule', 8, images=40, max_iters=40)
    assert not converted['by_epoch']
    # a scheduler keeps the rate at which it ends, which in updates is the one of its last update
    assert stepped([converted], 36)[::5] == pytest.approx(stepped([cfg], 8), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    'cfg, expected',
    [
        # what leads to a rate has it at the end's update, 10 of 5 an epoch: mmengine one update before its end
        (dict(type='LinearLR', start_factor=0.5, end=2), {10: 0.8, 9: 0.76, 0: 0.4, 30: 0.8}),
        (dict(type='ConstantLR', factor=0.5, end=2), {0: 0.4, 9: 0.4, 10: 0.8, 30: 0.8}),
        (dict(type='CosineAnnealingLR', begin=2), {9: 0.8, 10: 0.8, 25: 0.4}),
        (dict(type='CosineAnnealingLR', by_epoch=False, begin=10), {9: 0.8, 10: 0.8, 25: 0.4}),
        (dict(type='CosineAnnealingLR', begin=2, end=4), {10: 0.8, 15: 0.4}),
        (dict(type='PolyLR', begin=2), {10: 0.8, 39: 0.0}),
        (dict(type='OneCycleLR', eta_max=1.0, total_steps=8, pct_start=0.5), {0: 0.04, 19: 1.0, 39: 4e-6}),
        (dict(type='CosineAnnealingLR', begin=9), {39: 0.8}),  # after the training
        (dict(type='CosineAnnealingLR', by_epoch=False, T_max=20), {10: 0.4, 20: 0.0, 30: 0.4}),  # is left alone
    ],
    ids=str,
)
def test_rates_at_updates(cfg, expected):
    rates = stepped([in_updates(cfg, 'schedule', 8, images=40, max_iters=40)], 40)
    assert {update: rates[update] for update in expected} == pytest.approx(expected, abs=1e-7)


def test_momentum_is_converted_alike():
    cfg = dict(type='MultiStepMomentum', milestones=[1.5], gamma=0.5)
    assert in_updates(cfg, 'schedule', 8, images=40, max_iters=40)['milestones'] == [7]


def test_a_training_in_epochs_is_the_one_in_updates(tmp_path):
    """Its log, validations and checkpoints; either resumes the other's."""
    updates = {'train_cfg.max_iters': 8, 'train_cfg.val_interval': 2}
    updates['param_scheduler'] = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3),
        dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=8, T_max=6),
    ]
    schedule = dict(type='LinearLR', start_factor=0.1, end=0.5), dict(type='CosineAnnealingLR', begin=0.5)
    epochs = in_epochs(*schedule, max_epochs=2, val_interval=0.5)
    whole, _ = trained(tmp_path / 'updates', **updates)
    found, _ = trained(tmp_path / 'epochs', **epochs)
    torch.testing.assert_close(found, whole, rtol=0, atol=0)
    logged = next((tmp_path / 'epochs').rglob('scalars.json')).read_text().splitlines()
    rows = [json.loads(line) for line in logged]
    assert [row['epoch'] for row in rows if 'loss' in row] == [0.25 * i for i in range(1, 9)]
    assert [row['step'] for row in rows if 'error' in row] == [4, 6, 8]  # not before val_begin's first epoch
    for name, other, changes in (('a', 'updates', epochs), ('b', 'epochs', updates)):
        path = str(tmp_path / other / 'iter_4.pth')
        resumed, _ = trained(tmp_path / name, resume=True, load_from=path, **changes)
        torch.testing.assert_close(resumed, whole, rtol=0, atol=0)
    longer = in_epochs(*schedule, max_epochs=3, val_interval=0.5)
    path = str(tmp_path / 'epochs/iter_4.pth')
    with pytest.raises(ValueError, match=r'param_scheduler\.1\.T_max is 10 in the config and 6 in the checkpoint'):
        trained(tmp_path / 'longer', resume=True, load_from=path, **longer)


def test_total_batch_counts_mixed_samples(tmp_path, log_lines):
    runner = toy_runner(tmp_path / 'mixed', **{**MIXED, 'train_dataloader.batch_size': 4})
    assert runner.train_loop.accumulation == 4
    log = ''.join(path.read_text() for path in (tmp_path / 'mixed').rglob('*.log')) + log_lines()
    assert 'batch 8 = 2 samples (mixed from 4 images) x 1 devices x 4 accumulated; learning rate 0.1' in log
    unmixed = {**MIXED, 'train_dataloader.collate_fn.mixup': False, 'train_dataloader.collate_fn.cutmix': False}
    runner = toy_runner(tmp_path / 'unmixed', **{**unmixed, 'train_dataloader.batch_size': 4})
    assert runner.train_loop.accumulation == 2


@pytest.mark.parametrize('images, said', [(IMAGENET, True), (32, False), (None, False)])
def test_an_epoch_of_another_length_than_the_data_set_is_told(tmp_path, images, said):
    assert toy_runner(tmp_path / 'run', **in_epochs(max_epochs=2, images=images)).train_loop.counts_epochs
    log = ''.join(path.read_text() for path in (tmp_path / 'run').rglob('*.log'))
    assert ('and the data set has 32 images: train_cfg.images=None makes an epoch of these' in log) == said


@pytest.mark.parametrize(
    'changes, message',
    [
        (in_epochs(), 'needs one of max_iters and max_epochs, got max_iters=None and max_epochs=None'),
        (in_epochs(max_iters=4, max_epochs=1), 'got max_iters=4 and max_epochs=1: set the other to None'),
        (in_epochs(max_epochs='1'), r"train_cfg\.max_epochs='1' must be .* in epochs"),
        (in_epochs(max_epochs=0.2), r'max_epochs=0\.2 of 32 samples are less than one update on total_batch=8'),
        (in_epochs(max_epochs=1, val_interval=-1), r'train_cfg\.val_interval=-1 must be'),
        (in_epochs(max_epochs=1, images=0), r'train_cfg\.images=0 must be a positive integer'),
        (
            in_epochs(dict(type='LinearLR', end=0.1), max_epochs=1),
            r'param_scheduler\.0 \(LinearLR\) has no update between its begin=0 and its end=0\.1, in epochs',
        ),
        (
            in_epochs(dict(type='StepLR', step_size=1, begin='1'), max_epochs=1),
            r"param_scheduler\.0 \(StepLR\) begin='1' must be .* in epochs",
        ),
        ({**MIXED, 'train_dataloader.batch_size': 1}, r'batch_size=1 must be a multiple of 2'),
        (
            {**MIXED, 'train_dataloader.batch_size': 6, 'train_dataloader.drop_last': True},
            r'8 is not a multiple of 3 samples .*set train_dataloader\.batch_size to one of \[2, 4, 8, 16\]',
        ),
    ],
)
def test_bad_values(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        assert toy_runner(tmp_path / ''.join(filter(str.isalnum, message)), **changes).train_loop


def test_epochs_of_data_without_a_length():
    cfg = dict(type='StepLR', step_size=1)
    with pytest.raises(ValueError, match=r'schedule \(StepLR\) counts epochs, .* set train_cfg.images'):
        in_updates(cfg, 'schedule', 8, images=None, max_iters=4)
