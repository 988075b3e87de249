"""Trainings in several processes as launchers start them: several machines, restarts, another number of processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from nfnet_mm import run
from tests.engine.random_toy import CONFIG
from tests.tools.test_ends import free_port

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DIST = ['bash', ROOT / 'tools/dist_train.sh']
# two data workers, dropout, augmentation and a moving average; a checkpoint every second update
TRAINING = f"""{CONFIG}
custom_imports['imports'].append('tests.tools.test_launches')
train_cfg['max_iters'] = 12
train_cfg['val_interval'] = 100
train_dataloader['num_workers'] = 2
randomness = dict(seed=5)
custom_hooks = [dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA')]
"""
DIES = "custom_hooks.append(dict(type='Die', at=7))\n"


@HOOKS.register_module(force=True)
class Die(Hook):
    """Kill process 1 before an iteration, the first time that it comes to it."""

    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if (runner.iter, runner.rank, os.environ['TORCHELASTIC_RESTART_COUNT']) == (self.at, 1, '0'):
            os.kill(os.getpid(), signal.SIGKILL)


def begin(folder, command, *args, config=TRAINING, **env):
    """A process that has begun, and the file of what it says."""
    (folder / 'toy.py').write_text(config)
    environment = dict(os.environ, PYTHON=sys.executable, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', **env)
    environment['CUDA_VISIBLE_DEVICES'] = '-1'
    log = folder / f'said_{len(list(folder.glob("said_*")))}.txt'
    with log.open('w') as out:
        return subprocess.Popen([*command, *args], cwd=folder, env=environment, stdout=out, stderr=out), log


def finish(*begun):
    for process, _ in begun:
        process.wait(400)
    said = '\n'.join(log.read_text() for _, log in begun)
    assert [process.returncode for process, _ in begun] == [0] * len(begun), said[-5000:]
    return said


def train(folder, processes, *args, **kwargs):
    return finish(begin(folder, [*DIST, 'toy.py', str(processes)], *args, PORT=str(free_port()), **kwargs))


def state(path):
    content = run.read_checkpoint(path)
    return [content[key] for key in ('state_dict', 'ema_state_dict', 'optimizer')]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """What an uninterrupted training in two processes on one machine ends with."""
    folder = tmp_path_factory.mktemp('whole')
    train(folder, 2, '--work-dir', 'run')
    return state(folder / 'run/iter_12.pth')


def test_two_machines_train_as_one(tmp_path, whole):
    env = dict(NNODES='2', MASTER_ADDR='127.0.0.1', PORT=str(free_port()))
    command = [*DIST, 'toy.py', '1', '--work-dir', 'run']
    finish(*(begin(tmp_path, command, NODE_RANK=str(node), **env) for node in range(2)))
    torch.testing.assert_close(state(tmp_path / 'run/iter_12.pth'), whole, rtol=0, atol=0)


def test_a_killed_process_is_started_again_and_the_run_goes_on(tmp_path, whole):
    said = train(tmp_path, 2, '--work-dir', 'run', '--resume', 'auto', config=TRAINING + DIES, MAX_RESTARTS='1')
    assert 'training starts from' in said and f'resuming from {"run/iter_6.pth"!r}' in said
    torch.testing.assert_close(state(tmp_path / 'run/iter_12.pth'), whole, rtol=0, atol=0)


def test_two_machines_start_again_together(tmp_path, whole):
    command = [sys.executable, '-m', 'torch.distributed.run', '--nnodes=2', '--nproc-per-node=1', '--max-restarts=2']
    command += ['--rdzv-backend=c10d', f'--rdzv-endpoint=127.0.0.1:{free_port()}', '--rdzv-id=toy']
    command += ['-m', 'nfnet_mm', 'train', 'toy.py', '--launcher', 'pytorch', '--work-dir', 'run', '--resume', 'auto']
    said = finish(*(begin(tmp_path, command, config=TRAINING + DIES) for _ in range(2)))
    assert 'iter_6.pth' in said
    torch.testing.assert_close(state(tmp_path / 'run/iter_12.pth'), whole, rtol=0, atol=0)


def test_resumed_on_another_number_of_processes_says_so(tmp_path):
    """From one process to two and four, by numbers that are not random: with the samples of an uninterrupted run."""
    plain = TRAINING.replace('tests.engine.random_toy', 'tests.toy').replace('ToyDropout', 'ToyLinear')
    plain = plain.replace('ToyNoise', 'ToyNumbers')
    train(tmp_path, 1, '--work-dir', 'run', config=plain)
    whole = state(tmp_path / 'run/iter_12.pth')
    for processes in (2, 4):
        resume = ('--work-dir', f'run{processes}', '--resume', 'run/iter_4.pth')
        train(tmp_path, processes, *resume, config=plain)
        log = next((tmp_path / f'run{processes}').rglob('*.log')).read_text()
        assert f'random numbers begin anew, as the checkpoint is of 1 processes, now {processes}' in log
        torch.testing.assert_close(state(tmp_path / f'run{processes}/iter_12.pth')[:2], whole[:2], rtol=1e-6, atol=1e-9)
