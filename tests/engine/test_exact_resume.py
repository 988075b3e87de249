"""A run that is interrupted and resumed against the same run in one piece: every bit of its weights."""

import copy
import pickle

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
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
KEPT = EPOCHS + 'train_dataloader.update(persistent_workers=True)\n'
SCHEDULES = dict(updates='', epochs=EPOCHS, plain=PLAIN, end_of_epoch=KEPT)
# of iterations: a checkpoint every so many, the one to go on from, and the last one
AT = dict(updates=(2, 2, 4), epochs=(5, 20, 32), plain=(8, 16, 40), end_of_epoch=(16, 16, 32))


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


@pytest.mark.parametrize(
    'schedule,workers', [('updates', 0), ('updates', 2), ('epochs', 2), ('plain', 0), ('end_of_epoch', 2)]
)
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
    drawn(data, 3)
    assert torch.equal(torch.get_rng_state(), before)


class Slots:
    __slots__ = ('numbers',)

    def __init__(self):
        self.numbers = range(9)

    def __getitem__(self, index):
        return self.numbers[index]

    def __len__(self):
        return 9


@pytest.mark.parametrize('data', [list(range(9)), Slots()])
def test_an_object_that_takes_no_methods_is_left_alone(data):
    one = DataLoader(data, batch_sampler=BatchSampler(InfiniteSampler(data, seed=3), 4, drop_last=False))
    assert not seed_items(one) and len(next(iter(one))) == 4


class Videos(ToyNoise):
    """Items by (video, frame), and a file that a data worker must open anew."""

    def __init__(self):
        super().__init__()
        self.file, self.opened = open(__file__), 1  # noqa: SIM115

    def __getstate__(self):
        return dict(vars(self), file=None)

    def __setstate__(self, state):
        vars(self).update(state, opened=state['opened'] + 1)

    def __getitem__(self, index):
        video, frame = index
        assert type(index) is tuple
        return super().__getitem__(4 * video + frame)


class ByVideo(DefaultSampler):
    def __iter__(self):
        yield from [(video, frame) for video in range(4) for frame in range(4)]


def test_indices_that_are_pairs_and_state_of_one_s_own():
    data, fresh = Videos(), Videos()
    one, two = (DataLoader(kind, batch_sampler=BatchSampler(ByVideo(kind, seed=1), 4, False)) for kind in (data, fresh))
    assert seed_items(one) and seed_items(two)
    first = drawn(one, 4)
    assert torch.equal(drawn(two, 4), first)
    for copied in (pickle.loads(pickle.dumps(data)), copy.copy(data)):
        assert copied.opened == 2 and copied.file is None and type(copied) is type(data)
    data.file.close()
    fresh.file.close()


class AtOnce(ToyNoise):
    def __getitems__(self, indices):
        assert all(type(index) is int for index in indices)
        return [self[index] for index in indices]


def test_a_batch_loaded_at_once_depends_on_its_place():
    data = AtOnce()
    one = DataLoader(data, batch_sampler=BatchSampler(InfiniteSampler(data, seed=3), 4, drop_last=False))
    assert seed_items(one)
    want = drawn(one, 3)
    other = DataLoader(data, batch_sampler=BatchSampler(InfiniteSampler(data, seed=3), 4, drop_last=False))
    seed_items(other)
    skip_batches(other, 2)
    assert torch.equal(drawn(other, 1), want[2:])


VALIDATED = f"""{CONFIG}
train_cfg.update(max_iters=6, val_interval=2)
randomness = dict(seed=5)
param_scheduler = [dict(type='ReduceOnPlateauLR', monitor='error', rule='greater', patience=0, threshold=1e9)]
"""


def test_a_validation_that_the_run_did_not_come_to_is_done_first(tmp_path):
    """Its score sets the rate of what follows."""
    train(VALIDATED, tmp_path / 'run')
    whole = run.read_checkpoint(tmp_path / 'run/iter_6.pth')
    (tmp_path / 'run/iter_6.pth').unlink()
    train(VALIDATED, tmp_path / 'run', tmp_path / 'run/iter_2.pth')  # which is saved before the validation
    again = run.read_checkpoint(tmp_path / 'run/iter_6.pth')
    assert whole['param_schedulers'][0]['_last_value'] != [0.1]
    assert again['param_schedulers'] == whole['param_schedulers']
    torch.testing.assert_close(again['state_dict'], whole['state_dict'], rtol=0, atol=0)


def test_a_checkpoint_without_the_state_is_resumed_with_a_word(tmp_path, log_lines):
    train(CONFIG, tmp_path / 'run')
    content = run.read_checkpoint(tmp_path / 'run/iter_2.pth')
    assert set(content.pop('randomness')) == {'random', 'sampler', 'validated'}
    torch.save(content, tmp_path / 'iter_2.pth')
    train(CONFIG, tmp_path / 'again', tmp_path / 'iter_2.pth')
    log = next((tmp_path / 'again').rglob('*.log')).read_text()
    assert 'no state of random numbers: the run goes on, but not bit for bit' in log


def test_without_a_seed_in_the_sampler_nothing_is_claimed():
    assert not seed_items(DataLoader(ToyNoise(), batch_size=2))
