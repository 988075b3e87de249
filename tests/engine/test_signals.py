"""A run that the machine asks to end: where it stops, with what status, and that it goes on from there."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.utils.data import DataLoader

from nfnet_mm import run
from nfnet_mm.engine import signals
from nfnet_mm.engine.checkpoint_file import damage
from nfnet_mm.engine.signals import _keep_working, _start_workers
from tests.engine.random_toy import CONFIG
from tests.engine.test_exact_resume import EPOCHS, state, train

ROOT = Path(__file__).parents[2]


@HOOKS.register_module(force=True)
class Ask(Hook):
    """Sends its own process a signal, in training or in validation."""

    def __init__(self, at, number=signal.SIGTERM, rank='0', during='train'):
        self.at, self.number, self.rank, self.during = at, number, rank, during

    def _ask(self, now):
        if now == self.at and os.environ.get('RANK', '0') == self.rank:
            os.kill(os.getpid(), self.number)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.during == 'train':
            self._ask(runner.iter + 1)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.during == 'val' and batch_idx == 3:
            self._ask(runner.iter)


def ask(at, **kwargs):
    options = ''.join(f', {key}={value!r}' for key, value in kwargs.items())
    return f"custom_hooks = [dict(type='Ask', at={at}{options})]\n"


SEED = 'randomness = dict(seed=5)\n'
IMPORTS = "custom_imports['imports'].append('tests.engine.test_signals')\n"
# several processes' test data is read in full by each
LONG = CONFIG + SEED + "train_cfg['max_iters'] = 12\ndefault_hooks['checkpoint'].update(interval=100)\n"


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_ends_after_the_step_and_goes_on_from_there(tmp_path, number):
    train(LONG, tmp_path / 'whole')
    listening = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)]
    with pytest.raises(SystemExit) as stop:
        train(LONG + ask(5, number=int(number)), tmp_path / 'part')
    assert stop.value.code == 75
    assert damage(tmp_path / 'part/iter_5.pth') is None and not (tmp_path / 'part/iter_6.pth').exists()
    log = next((tmp_path / 'part').rglob('*.log')).read_text()
    said = (
        f'{signal.Signals(number).name}: the run ends after iteration 5; {tmp_path}/part/iter_5.pth is its checkpoint'
    )
    assert f'{said}; --resume goes on from it (exit status 75)' in log
    for one, handler in zip((signal.SIGTERM, signal.SIGUSR1), listening):
        signal.signal(one, handler)  # the process would have ended
    train(LONG, tmp_path / 'part', 'last')
    for one in zip(state(tmp_path / 'part/iter_12.pth'), state(tmp_path / 'whole/iter_12.pth')):
        torch.testing.assert_close(*one, rtol=0, atol=0)


def test_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    config = CONFIG + EPOCHS + SEED + "default_hooks['checkpoint'].update(by_epoch=True, interval=1)\n"
    train(config, tmp_path / 'whole')
    with pytest.raises(SystemExit):
        train(config + ask(21), tmp_path / 'part')
    assert (tmp_path / 'part/last_checkpoint').read_text().endswith('/iter_21.pth')  # of two epochs of 16
    train(config, tmp_path / 'part', 'last')
    for one in zip(state(tmp_path / 'part/epoch_2.pth'), state(tmp_path / 'whole/epoch_2.pth')):
        torch.testing.assert_close(*one, rtol=0, atol=0)
    # and if that one is broken, the epoch's before it is gone on from
    (tmp_path / 'part/last_checkpoint').write_text(str(tmp_path / 'part/iter_21.pth'))
    (tmp_path / 'part/epoch_2.pth').unlink()
    os.truncate(tmp_path / 'part/iter_21.pth', 999)
    cfg = run.load_config(str(tmp_path / 'config.py'), None, str(tmp_path / 'part'))
    run.use_resume(cfg, 'last')
    assert cfg.load_from == str(tmp_path / 'part/epoch_1.pth')


@pytest.mark.parametrize('interval,iterations', [(4, 3), (100, 16)])
def test_a_validation_is_left_only_with_a_checkpoint_of_its_weights(tmp_path, interval, iterations):
    """The moving average's weights are in the model's place then, and a checkpoint would hold them as the model's."""
    config = LONG.replace('interval=100', f'interval={interval}') + "train_cfg['val_interval'] = 4\n"
    config += ask(4, during='val').replace(']', ", dict(type='EMAHook')]")
    train(config.replace('at=4', 'at=99'), tmp_path / 'whole')
    with pytest.raises(SystemExit):
        train(config, tmp_path / 'part')
    log = next((tmp_path / 'part').rglob('*.log')).read_text()
    assert (f'[{iterations + 1}/16]' not in log.replace(' ', '') and 'Iter(val) [16/16]' in log) or iterations == 3
    train(config.replace('at=4', 'at=99'), tmp_path / 'part', 'last')
    ends = [run.read_checkpoint(tmp_path / f'{name}/iter_12.pth') for name in ('part', 'whole')]
    for key in ('state_dict', 'ema_state_dict', 'optimizer'):
        torch.testing.assert_close(*(end[key] for end in ends), rtol=0, atol=0)


def blocked_by_threads(process):
    """The signals that each thread of a process blocks, as Linux tells."""
    told = [(task / 'status').read_text() for task in Path(f'/proc/{process}/task').iterdir()]
    masks = [int(re.search(r'SigBlk:\s+(\w+)', text)[1], 16) for text in told]
    return [{number for number in signal.valid_signals() if mask >> (number - 1) & 1} for mask in masks]


@HOOKS.register_module(force=True)
class AskWorkers(Hook):
    """Asks the data workers, as a launcher does that signals whatever a rank has started."""

    def before_train(self, runner):
        self.others = {one.pid for one in multiprocessing.active_children()}  # of other tests

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2:
            workers = [str(one.pid) for one in multiprocessing.active_children() if one.pid not in self.others]
            assert len(workers) == 2
            for worker in workers:
                blocked = blocked_by_threads(worker)
                # only the one that waits for it lets it through, none that a library has started
                assert sum(signal.SIGTERM not in these for these in blocked) <= 1 < len(blocked) - 1, blocked
            for number in ('-TERM', '-USR1', '-TERM', '-USR1'):
                subprocess.run(['kill', number, *workers], check=True)


def test_data_workers_work_on_until_their_process_ends_them(tmp_path):
    config = LONG.replace('num_workers=0', 'num_workers=2') + "custom_hooks = [dict(type='AskWorkers')]\n"
    threads = torch.get_num_threads()
    torch.set_num_threads(4)  # a forked process starts as many
    try:
        train(config, tmp_path / 'run')
    finally:
        torch.set_num_threads(threads)
    assert damage(tmp_path / 'run/iter_12.pth') is None
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    loader = DataLoader(range(9), num_workers=1, worker_init_fn=partial(_keep_working, None, os.getpid()))
    batches = iter(loader)
    next(batches)
    worker = batches._workers[0]
    worker.terminate()
    worker.join(9)
    assert worker.exitcode == 0


def check_start(method):
    """Run in a process of its own, where no tracker of Python's resources is there yet."""
    loader = DataLoader(range(9), num_workers=1, multiprocessing_context=method)
    batches = _start_workers(loader, loader._get_iterator)
    asked = {signal.SIGTERM, signal.SIGUSR1}
    assert all(asked <= these for these in blocked_by_threads(batches._workers[0].pid))
    assert not asked & signal.pthread_sigmask(signal.SIG_BLOCK, ())
    os.kill(resource_tracker._resource_tracker._pid, signal.SIGUSR1)
    assert [int(batch) for batch in batches] == list(range(9))
    assert resource_tracker._resource_tracker._check_alive()


@pytest.mark.parametrize('method', ['spawn', pytest.param('forkserver', marks=pytest.mark.slow)])
def test_signals_are_blocked_from_a_worker_s_first_moment(method):
    """Before its own code runs, which may take seconds to import; and the tracker, which spawning starts, lives on."""
    code = f'from tests.engine.test_signals import check_start; check_start({method!r})'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_a_worker_ends_when_its_process_is_gone(monkeypatch):
    monkeypatch.setattr(signals, '_LOOK', 0.05)
    ends, begins = os.pipe()
    if not (owner := os.fork()):
        me = os.getpid()
        if not os.fork():
            os.close(ends)
            _keep_working(None, me, 0)
            os.write(begins, b'1')
            threading.Event().wait(60)
            os._exit(1)
        os.read(ends, 1)
        os.kill(me, signal.SIGKILL)
    os.close(begins)
    os.waitpid(owner, 0)
    start = time.monotonic()
    assert os.read(ends, 1) == b'' and time.monotonic() - start < 30
    os.close(ends)


@pytest.mark.slow
def test_two_processes_end_together_though_one_was_asked(tmp_path):
    (tmp_path / 'config.py').write_text(LONG + IMPORTS + ask(5, rank='1'))
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_port=0', '--nnodes=1']
    command += ['--rdzv-backend=c10d', '--rdzv-endpoint=localhost:0', ROOT / 'tools/train.py', tmp_path / 'config.py']
    command += ['--launcher', 'pytorch', '--work-dir', tmp_path / 'run']
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(ROOT)}, timeout=300
    )
    ends = [line for line in done.stderr.splitlines() if 'exitcode' in line]
    assert 'exitcode  : 75' in done.stderr and '-6' not in ''.join(ends), done.stderr[-3000:]
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    # asked at the fifth step, told at the sixth
    assert 'SIGTERM: the run ends after iteration 6;' in log
    assert damage(tmp_path / 'run/iter_6.pth') is None
