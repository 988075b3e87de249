"""Data workers that fail, die or hang: the line that a run ends with."""

import gc
import os
import signal
import time

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader

from nfnet_mm import run
from nfnet_mm.engine.data_workers import DataWorkersHook, _what_happened
from nfnet_mm.errors import UserError
from tests import toy

CONFIG = toy.CONFIG.replace("'tests.toy'", "'tests.engine.test_data_workers'").replace('max_iters=4', 'max_iters=8')
CONFIG = CONFIG.replace('num_workers=0', 'num_workers=2') + "default_hooks['checkpoint']['interval'] = 100\n"
BAD = 'train_dataloader = dict(data, dataset=dict(type="{kind}", how="{how}"))\n'


def fail(how):
    if how == 'raise':
        raise KeyError('no such\nkey')
    if how == 'exit':
        os._exit(7)
    if how == 'hang':
        time.sleep(600)
    os.kill(os.getpid(), dict(kill=signal.SIGKILL, segv=signal.SIGSEGV, bus=signal.SIGBUS)[how])


@DATASETS.register_module(force=True)
class BadNumbers(toy.ToyNumbers):
    """Item 21 cannot be loaded."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def __getitem__(self, index):
        if index == 21:
            fail(self.how)
        return super().__getitem__(index)


@DATASETS.register_module(force=True)
class BadFiles(BaseDataset):
    """The same, of files."""

    def __init__(self, how):
        self.how, self.numbers = how, toy.ToyNumbers()
        super().__init__(pipeline=[self.load])

    def load_data_list(self):
        return [dict(img_path=f'pictures/{i}.png', number=i) for i in range(32)]

    def load(self, results):
        if results['number'] == 21:
            fail(self.how)
        return self.numbers[results['number']]


@pytest.fixture(autouse=True)
def children(monkeypatch):
    """PyTorch watches its workers by a handler of signals, which it sets once, and which such an end takes away."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    monkeypatch.setattr('torch.utils.data._utils.signal_handling._SIGCHLD_handler_set', False)
    yield
    gc.collect()
    signal.signal(signal.SIGCHLD, before)


def ending(folder, how, kind='BadNumbers', more=''):
    (folder / 'config.py').write_text(CONFIG + BAD.format(kind=kind, how=how) + more)
    cfg = run.load_config(str(folder / 'config.py'), dict(experiment_name=f'{folder}{how}{kind}'), str(folder / 'run'))
    runner = run.build_runner(cfg)
    with pytest.raises(UserError) as end:
        run.train(runner)
    assert end.value.of_one_process and '\n' not in str(end.value)
    said = str(end.value)
    del end, runner  # whose loader would still watch its workers
    gc.collect()
    return said


@pytest.mark.parametrize('workers', [0, 2])
def test_an_exception_is_told_with_its_item_and_the_traceback_kept(tmp_path, workers):
    more = f"train_dataloader['num_workers'] = {workers}\n"
    if workers:
        said = ending(tmp_path, 'raise', more=more)
    else:
        (tmp_path / 'config.py').write_text(CONFIG + BAD.format(kind='BadNumbers', how='raise') + more)
        cfg = run.load_config(str(tmp_path / 'config.py'), dict(experiment_name=f'{tmp_path}'), str(tmp_path / 'run'))
        with pytest.raises(UserError) as end:
            run.train(run.build_runner(cfg))
        said = str(end.value)
    where = 'test_data_workers.py:26'
    what = rf"item 21 of BadNumbers cannot be loaded: KeyError: 'no such\nkey' ({where})"
    assert said == f'{what}; the traceback is in {tmp_path}/run/data_errors.txt'
    kept = (tmp_path / 'run/data_errors.txt').read_text()
    assert kept.startswith(what) and 'in __getitem__\n    fail(self.how)' in kept


def test_an_exception_of_a_transform_names_the_file(tmp_path):
    said = ending(tmp_path, 'raise', 'BadFiles')
    assert said.startswith("item 21 of BadFiles (pictures/21.png) cannot be loaded: KeyError: 'no such")


@pytest.mark.parametrize(
    'how,said',
    [
        (
            'kill',
            'was killed by signal: Killed, as the kernel does when memory runs out (dmesg says): lower num_workers',
        ),
        pytest.param('segv', 'was killed by signal: Segmentation fault', marks=pytest.mark.slow),
        pytest.param(
            'bus',
            'was killed by signal: Bus error; /dev/shm, by which workers hand over batches, has ',
            marks=pytest.mark.slow,
        ),
        ('exit', 'exited with status 7'),
    ],
)
def test_a_worker_that_dies_is_told_with_its_cause_and_what_it_was_loading(tmp_path, how, said):
    line = ending(tmp_path, how, 'BadFiles')
    assert line.startswith(f'a data worker {said}')
    assert line.endswith('. It was loading item 21 of BadFiles (pictures/21.png)')


@pytest.mark.slow
def test_one_that_hangs_is_named_after_the_timeout(tmp_path):
    line = ending(tmp_path, 'hang', 'BadFiles', "custom_hooks = [dict(type='nfnet_mm.DataWorkersHook', timeout=8)]\n")
    said = 'no batch came from the data workers for 8 seconds: they hang at item 21 of BadFiles (pictures/21.png) ('
    assert line.startswith(said)


def test_what_is_no_fault_of_a_worker_s_goes_on():
    assert _what_happened('CUDA error: device-side assert', []) is None
    with pytest.raises(UserError, match='timeout=-1 must be a number in'):
        DataWorkersHook(timeout=-1)


def test_a_timeout_of_the_loader_s_own_stays():
    loader, data = DataLoader(toy.ToyNumbers(), num_workers=1, timeout=9), DataLoader(range(3))
    hook, runner = DataWorkersHook(), type('Runner', (), dict(work_dir='.'))
    for one in (loader, loader, data):
        hook._watch(one, runner)
    assert loader.timeout == 9 and data.timeout == 0 and data.dataset == range(3)
    assert torch.equal(loader.dataset[3]['inputs'], toy.ToyNumbers().inputs[3])
