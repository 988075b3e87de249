"""A run that is interrupted and resumed against the same run in one piece: every bit of its weights."""

import pickle

import pytest
import torch
from mmengine.dataset import InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader

from nfnet_mm import run
from nfnet_mm.engine.seeded_items import seed_items, skip_batches
from tests.engine.random_toy import CONFIG, ToyNoise

EPOCHS = """
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
train_dataloader = dict(data, sampler=dict(type='DefaultSampler', shuffle=True))
param_scheduler = []
"""
PLAIN = EPOCHS.replace("type='EpochBasedTrainLoop', max_epochs=2", "type='IterBasedTrainLoop', max_iters=40")
SCHEDULES = dict(updates='', epochs=EPOCHS, plain=PLAIN)
# of iterations: a checkpoint every so many, the one to go on from, and the last one
AT = dict(updates=(2, 2, 4), epochs=(5, 20, 32), plain=(10, 20, 40))


def train(config, folder, resume=None, seed=None):
    (folder.parent / 'config.py').write_text(config)
    options = dict({'randomness.seed': seed} if seed else {}, experiment_name=f'{folder}{resume}')
    cfg = run.load_config(str(folder.parent / 'config.py'), options, str(folder))
    run.use_resume(cfg, resume and str(resume))
    runner = run.build_runner(cfg)
    run.require_whole(runner)
    runner.train()


def state(path):
    content = run.read_checkpoint(path)
    return content['state_dict'], content['optimizer']['state']


@pytest.mark.parametrize('schedule,workers', [('updates', 0), ('updates', 2), ('epochs', 2), ('plain', 0)])
def test_a_resumed_run_is_the_same_run(tmp_path, schedule, workers):
    every, middle, end = AT[schedule]
    config = CONFIG.replace('num_workers=0', f'num_workers={workers}') + SCHEDULES[schedule]
    config += f"default_hooks['checkpoint']['interval'] = {every}\n"
    train(config, tmp_path / 'run')  # without a seed of its own
    whole = state(tmp_path / f'run/iter_{end}.pth')
    (tmp_path / f'run/iter_{end}.pth').unlink()
    # in another number of workers, who have no state
    train(config.replace('num_workers=2', 'num_workers=1'), tmp_path / 'run', tmp_path / f'run/iter_{middle}.pth')
    torch.testing.assert_close(state(tmp_path / f'run/iter_{end}.pth'), whole, rtol=0, atol=0)


def test_another_seed_is_another_run(tmp_path):
    for seed in (1, 1, 2):
        train(CONFIG, tmp_path / f'{seed}', seed=seed)
    assert not torch.equal(*(state(tmp_path / f'{seed}/iter_4.pth')[0]['linear.weight'] for seed in (1, 2)))


def loader(**kwargs):
    data = ToyNoise()
    sampler = InfiniteSampler(data, seed=3)
    return DataLoader(data, batch_sampler=BatchSampler(sampler, 4, drop_last=False), **kwargs)


def drawn(batches, count):
    stream = iter(batches)
    return torch.stack([next(stream)['inputs'] for _ in range(count)])


def test_items_depend_on_their_place_alone():
    one, two, late = loader(), loader(num_workers=2), loader(num_workers=1)
    assert seed_items(one) and seed_items(two) and seed_items(late)
    torch.manual_seed(0)
    want = drawn(one, 6)
    torch.manual_seed(1)
    assert torch.equal(drawn(two, 6), want)
    skip_batches(late, 4)
    assert torch.equal(drawn(late, 2), want[4:])
    # the same items, the second time around with other noise
    again = drawn(loader(), 16)
    assert not torch.equal(again[:8], again[8:])


def test_the_loader_s_objects_stay_what_they_are():
    data = loader()
    seed_items(data)
    assert isinstance(data.dataset, ToyNoise) and isinstance(data.batch_sampler.sampler, InfiniteSampler)
    assert type(data.dataset).__name__ == 'ToyNoise' and type(data.batch_sampler).__name__ == 'BatchSampler'
    copied = pickle.loads(pickle.dumps(data.dataset))  # as to a worker that is not forked
    assert type(copied) is type(data.dataset) and torch.equal(copied.inputs, data.dataset.inputs)
    before = torch.get_rng_state()
    next(iter(DataLoader(range(3))))  # a loader draws a number as it begins
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    drawn(data, 3)
    assert torch.equal(torch.get_rng_state(), after)  # and its items none


def test_a_checkpoint_without_the_state_is_resumed_with_a_word(tmp_path, log_lines):
    train(CONFIG, tmp_path / 'run')
    content = run.read_checkpoint(tmp_path / 'run/iter_2.pth')
    assert set(content.pop('randomness')) == {'random', 'sampler'}
    torch.save(content, tmp_path / 'iter_2.pth')
    train(CONFIG, tmp_path / 'again', tmp_path / 'iter_2.pth')
    log = next((tmp_path / 'again').rglob('*.log')).read_text()
    assert 'no state of random numbers: the run goes on, but not bit for bit' in log


def test_without_a_seed_in_the_sampler_nothing_is_claimed():
    assert not seed_items(DataLoader(ToyNoise(), batch_size=2))
