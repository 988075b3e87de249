"""The same training in one, two and four processes: ten updates of whatever can be combined, weights against weights.

One process with the whole batch is the measure. With SAM, whose ascent goes by micro-batches, and under bfloat16, which
rounds the gradient of each, it is one process that accumulates the same micro-batches.
"""

import copy

import pytest
import torch
from mmengine.registry import MODELS

from nfnet_mm.run import read_checkpoint
from tests.adversarial import by_hand, probe
from tests.adversarial.test_training import AGC, BFLOAT16, EMA, PLAIN, SCALED, check, sam

TOTAL, UPDATES = 16, 10
WRAPPERS = {
    # without AGC, steps of AGC's learning rate are large enough for rounding to grow tenfold in ten updates
    'plain': dict(PLAIN, optimizer=dict(PLAIN['optimizer'], lr=0.005)),
    'agc': AGC,
    'agc and clip_grad': dict(AGC, clip_grad=dict(max_norm=0.05)),
    'bfloat16': BFLOAT16,
    'bfloat16, scaled': SCALED,
}
HOOKS = {'': [], 'ema': [EMA], 'sam': [sam(0.5)], 'whole sam': [sam(1)], 'sam and ema': [sam(0.5), EMA]}
# micro-batches of a process, and who counts them
ACCUMULATION = {'at once': (1, 'loop'), 'accumulated': (2, 'loop'), 'counted': (2, 'wrapper')}


def config(folder, wrapper, hooks, each, counted='loop', order=(1, 1), shuffle=False, world=1):
    """A run of batches of ``each`` samples on ``world`` processes, in the order of other processes."""
    hooks, wrapper = copy.deepcopy(HOOKS[hooks]), copy.deepcopy(WRAPPERS[wrapper])
    cfg = probe.config(folder, dict(type='Probe'), wrapper, each, TOTAL, UPDATES, hooks)
    cfg['train_dataloader']['dataset'].update(replicas=order[0], batch=order[1])
    cfg['train_dataloader']['sampler'] = dict(type='InfiniteSampler', shuffle=shuffle)
    last = UPDATES
    if counted == 'wrapper':
        accumulated = TOTAL // (each * world)
        last *= accumulated
        cfg['train_cfg'] = dict(type='IterBasedTrainLoop', max_iters=last)
        wrapper['accumulative_counts'] = accumulated
        for hook in hooks:
            if hook['type'] == 'EMAHook':
                hook['interval'] = accumulated
    cfg['default_hooks']['checkpoint']['interval'] = last
    return cfg, folder / f'iter_{last}.pth'


def state(path):
    """(weights, their average or None)."""
    saved = read_checkpoint(path)
    average = saved['state_dict']
    if 'ema_state_dict' not in saved:
        return average, None
    # mmengine writes the average where the weights would be
    return {name.removeprefix('module.'): p for name, p in saved['ema_state_dict'].items() if name != 'steps'}, average


def distance(one, other):
    """Between two checkpoints: the largest distance of two tensors, relative to the norm of the second.

    Below AGC's eps, as under it, a weight's norm counts as eps: a bias begins at zero.
    """
    largest = []
    for ours, theirs in zip(state(one), state(other)):
        assert ours is theirs is None or ours.keys() == theirs.keys()
        for name, p in (theirs or {}).items():
            largest.append(float((ours[name] - p).norm() / p.norm().clamp(min=by_hand.EPS)))
    return max(largest)


def trained_together(processes, world, folder, *args, **kwargs):
    cfg, path = config(folder, *args, world=world, **kwargs)
    processes(world).call(probe.run_in_group, cfg)
    return path


def trained_alone(folder, *args, **kwargs):
    cfg, path = config(folder, *args, **kwargs)
    probe.run(cfg)
    return path


QUICK = [
    (2, 'agc and clip_grad', '', 'at once'),
    (2, 'agc', 'ema', 'accumulated'),
    (2, 'bfloat16', 'sam and ema', 'counted'),
]
# every wrapper with every hook, and each of the two with each way to accumulate
SLOW = [
    (world, wrapper, hooks, list(ACCUMULATION)[(i + j + world // 4) % 3])
    for world in (2, 4)
    for i, wrapper in enumerate(WRAPPERS)
    for j, hooks in enumerate(HOOKS)
]
ROWS = [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW if row not in QUICK)]


@pytest.mark.parametrize('world,wrapper,hooks,accumulation', ROWS)
def test_processes_train_as_one(processes, record_property, tmp_path, world, wrapper, hooks, accumulation):
    times, counted = ACCUMULATION[accumulation]
    each = TOTAL // world // times
    micro = 'sam' in hooks or 'bfloat16' in wrapper
    path = trained_together(processes, world, tmp_path / 'together', wrapper, hooks, each, counted, shuffle=not micro)
    if micro:
        alone = trained_alone(tmp_path / 'alone', wrapper, hooks, each, counted, order=(world, each))
    else:
        alone = trained_alone(tmp_path / 'alone', wrapper, hooks, TOTAL, shuffle=True)
    apart = distance(path, alone)
    record_property('distance', apart)
    assert apart < 1e-6


@pytest.mark.parametrize(
    'randomness,distinct', [({}, True), pytest.param(dict(diff_rank_seed=False), False, marks=pytest.mark.slow)]
)
def test_each_process_drops_paths_of_its_own(processes, tmp_path, randomness, distinct):
    """And the result is that of a training by hand in which each part of the batch has its process's masks."""
    cfg, path = config(tmp_path, 'agc', '', TOTAL // 2)
    cfg['model']['extras'] = ('drops',)
    cfg['randomness'].update(randomness)
    cfg['custom_hooks'] = [dict(type='Draws')]
    torch.manual_seed(3)
    processes(2).call(probe.run_in_group, cfg)
    draws = [torch.load(tmp_path / f'draws_{rank}.pth') for rank in range(2)]
    assert [torch.equal(*states) for states in zip(*draws)] == [not distinct] * UPDATES
    weights, _ = by_hand.train(
        MODELS.build(cfg['model']),
        probe.updates_of(UPDATES, TOTAL // 2, TOTAL, replicas=2),
        agc=True,
        excluded=('head.fc.weight',),
        draws=draws,
    )
    check(state(path)[0], weights)


@pytest.mark.slow
@pytest.mark.parametrize('world', [2, 4])
def test_two_runs_are_the_same_bit_for_bit(processes, tmp_path, world):
    each = TOTAL // world // 2
    one, two = (
        trained_together(processes, world, tmp_path / name, 'bfloat16', 'sam and ema', each, shuffle=True)
        for name in ('one', 'two')
    )
    torch.testing.assert_close(state(one), state(two), rtol=0, atol=0)


@pytest.mark.slow
def test_bfloat16_rounds_less_apart_than_it_rounds(processes, tmp_path):
    """Against the whole batch in one process, whose one gradient is rounded instead of each part's.

    Each of the two is about as far from float32 as the other: the bound on what is between them is twice that.
    """
    together = trained_together(processes, 2, tmp_path / 'together', 'bfloat16', '', TOTAL // 2)
    whole = trained_alone(tmp_path / 'whole', 'bfloat16', '', TOTAL)
    exact = trained_alone(tmp_path / 'exact', 'agc', '', TOTAL)
    apart, rounded = distance(together, whole), distance(whole, exact)
    assert 1e-6 < apart < 2 * rounded
