"""Whatever trains, put through whatever people's models and runs are like, against training by hand.

A new feature is a row of ``FEATURES``, a new situation a row of ``SITUATIONS``; each pair is one test.
"""

import copy
import pickle

import pytest
import torch
from mmengine.registry import MODELS

from nfnet_mm.run import read_checkpoint
from tests.adversarial import by_hand, probe

pytestmark = pytest.mark.slow

SGD = dict(type='SGD', lr=by_hand.LR, momentum=by_hand.MOMENTUM, nesterov=True, weight_decay=by_hand.DECAY)
PLAIN = dict(type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor', optimizer=SGD)
AGC = dict(PLAIN, type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=by_hand.CLIPPING, eps=by_hand.EPS))
BFLOAT16 = dict(AGC, type='nfnet_mm.AmpAGCOptimWrapper', dtype='bfloat16')
SCALED = dict(AGC, type='nfnet_mm.AmpAGCOptimWrapper', dtype='bfloat16', loss_scale=1024)
EMA = dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA')


def sam(fraction):
    return dict(type='nfnet_mm.SAMHook', rho=by_hand.RHO, fraction=fraction)


# what every command adds to a run
EARLY_ENDS = [
    dict(type='nfnet_mm.SafeCheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=1),
    dict(type='nfnet_mm.ExactResumeHook'),
    dict(type='nfnet_mm.StopOnSignalHook'),
    dict(type='nfnet_mm.BrokenPicturesHook', limit=0),
    dict(type='nfnet_mm.DataWorkersHook'),
    dict(type='nfnet_mm.FiniteWeightsHook'),
    dict(type='nfnet_mm.HangHook'),
    dict(type='nfnet_mm.RankSeedHook'),
    dict(type='nfnet_mm.ScalarsLaterHook'),
    dict(type='nfnet_mm.SignalPropagationHook', interval=1, batch_size=2, size=32),
]
# feature: (optimizer wrapper, hooks, what training by hand is told)
FEATURES = {
    'plain': (PLAIN, [dict(type='nfnet_mm.StrictLoadHook')], dict()),
    'agc': (AGC, [], dict(agc=True)),
    'runs that end early': (AGC, EARLY_ENDS, dict(agc=True)),
    'agc_bfloat16': (BFLOAT16, [], dict(agc=True, dtype=torch.bfloat16)),
    'agc_scaled': (SCALED, [], dict(agc=True, dtype=torch.bfloat16)),
    'ema': (AGC, [EMA], dict(agc=True, ema=True)),
    'sam': (PLAIN, [sam(0.5)], dict(sam=0.5)),
    'sam_whole': (AGC, [sam(1)], dict(agc=True, sam=1)),
    'all': (AGC, [sam(0.5), EMA], dict(agc=True, sam=0.5, ema=True)),
}

# situation: what the model has besides, and how the run differs
SITUATIONS = {
    'as it is': dict(),
    'tied weights': dict(extras=('tied',)),
    'frozen stages': dict(extras=('frozen',)),
    'several losses': dict(extras=('losses',)),
    'stacked batches': dict(collate='default_collate'),
    'one sample at a time': dict(batch=1),
    'one sample in all': dict(batch=1, total=1),
    'no accumulation': dict(batch=8),
    'one channel': dict(channels=1),
    'transposed conv': dict(extras=('transposed',)),
    'batch norm': dict(extras=('norm',)),
    'unused parameters': dict(extras=('unused',)),
    'empty parameter': dict(extras=('empty',)),
    'buffer of the first forward': dict(extras=('buffer',)),
    'reentrant checkpointing': dict(extras=('reentrant',)),
    'all at once': dict(
        extras=('tied', 'frozen', 'losses', 'transposed', 'norm', 'unused', 'empty', 'buffer'), channels=1
    ),
}


def by_both(tmp_path, feature, extras=(), channels=3, batch=4, total=8, collate='pseudo_collate', replicas=1):
    """(config of the run, weights and average by hand)."""
    wrapper, hooks, told = copy.deepcopy(FEATURES[feature])
    updates = 3
    model = dict(type='Probe', extras=extras, channels=channels)
    cfg = probe.config(tmp_path, model, wrapper, batch, total, updates, hooks, channels, collate)
    expected = by_hand.train(
        MODELS.build(model),
        probe.updates_of(updates, batch, total, replicas, channels, collate == 'pseudo_collate'),
        excluded=('head.fc.weight',),
        **told,
    )
    return cfg, expected


def check(state, expected, rtol=2e-4, atol=2e-6):
    """Weights against those by hand."""
    for name, value in expected.items():
        torch.testing.assert_close(
            state[name], value, rtol=rtol, atol=atol, msg=lambda text, name=name: f'{name}: {text}'
        )


def check_checkpoint(path, expected, **tolerance):
    saved = read_checkpoint(path)
    weights, average = expected
    if average is None:
        check(saved['state_dict'], weights, **tolerance)
    else:  # mmengine writes the average where the weights would be, and the weights beside it
        check(saved['state_dict'], average)
        check({key.removeprefix('module.'): value for key, value in saved['ema_state_dict'].items()}, weights)


@pytest.mark.parametrize('situation', SITUATIONS)
@pytest.mark.parametrize('feature', FEATURES)
def test_training_equals_training_by_hand(tmp_path, feature, situation):
    cfg, expected = by_both(tmp_path, feature, **SITUATIONS[situation])
    runner = probe.run(cfg)
    check(dict(runner.model.named_parameters()), expected[0])
    check_checkpoint(tmp_path / 'iter_3.pth', expected)
    wrapper = runner.optim_wrapper
    assert getattr(wrapper, 'skipped_steps', 0) == 0
    pickle.loads(pickle.dumps(runner.model))


# what may differ when a run is resumed
RESUMED = {
    'unchanged': dict(),
    'half the batch on the device': {'train_dataloader.batch_size': 2},
    'twice the batch on the device': {'train_dataloader.batch_size': 8},
}


@pytest.mark.parametrize('change', RESUMED)
@pytest.mark.parametrize('situation', ['as it is', 'tied weights', 'buffer of the first forward', 'frozen stages'])
@pytest.mark.parametrize('feature', ['plain', 'agc', 'agc_bfloat16', 'ema', 'sam_whole'])
def test_a_resumed_run_equals_training_by_hand(tmp_path, feature, situation, change):
    from mmengine import Config

    cfg, expected = by_both(tmp_path / 'whole', feature, **SITUATIONS[situation])
    if 'sam' in feature and change != 'unchanged':
        pytest.skip('the ascent goes by micro-batches')
    probe.run(cfg)
    cfg = Config(
        dict(
            cfg,
            work_dir=str(tmp_path / 'resumed'),
            resume=True,
            experiment_name=f'{tmp_path}_resumed',
            load_from=str(tmp_path / 'whole/iter_1.pth'),
        )
    )
    cfg.merge_from_dict(RESUMED[change])
    probe.run(cfg)
    # bfloat16 rounds the gradient of each batch: other batches round otherwise
    rounding = dict(rtol=0.05, atol=2e-4) if 'bfloat16' in feature and change != 'unchanged' else {}
    check_checkpoint(tmp_path / 'resumed/iter_3.pth', expected, **rounding)


@pytest.mark.parametrize(
    'change, message',
    [
        ({'train_cfg.total_batch': 16}, 'total_batch=16'),
        ({'optim_wrapper.optimizer.lr': 0.01}, 'learning rate of 0.01'),
    ],
)
@pytest.mark.parametrize('feature', ['plain', 'all'])
def test_resuming_with_another_rate_is_refused(tmp_path, feature, change, message):
    from mmengine import Config

    cfg, _ = by_both(tmp_path, feature)
    probe.run(cfg)
    cfg = Config(dict(cfg, resume=True, experiment_name=f'{tmp_path}_resumed'))
    cfg.merge_from_dict(change)
    with pytest.raises(ValueError, match=message):
        probe.run(cfg)


@pytest.mark.parametrize(
    'situation',
    [
        'as it is',
        'tied weights',
        'frozen stages',
        'several losses',
        'unused parameters',
        'reentrant checkpointing',
        'one sample at a time',
    ],
)
@pytest.mark.parametrize('feature', ['agc', 'all', 'agc_scaled', 'sam_whole'])
def test_two_processes_equal_training_by_hand(processes, tmp_path, feature, situation):
    options = {'batch': 2, **SITUATIONS[situation]}
    cfg, expected = by_both(tmp_path, feature, replicas=2, **options)
    processes(2).call(probe.run_in_group, cfg)
    check_checkpoint(tmp_path / 'iter_3.pth', expected)
