"""How a training ends that is interrupted, or loses a process: real processes, in a group of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from nfnet_mm.run import how_to_go_on
from tests import toy

ROOT = Path(__file__).parents[2]
TRAIN = [sys.executable, ROOT / 'tools/train.py']
DIST = ['bash', ROOT / 'tools/dist_train.sh']
SLOW = """
train_dataloader = dict(data, num_workers=1, persistent_workers=True, dataset=dict(type='ToyNumbers', delay=0.02))
train_cfg.update(max_iters=10**5, val_interval=10**6)
"""


@pytest.fixture
def start(tmp_path):
    """start(command, *args) -> a training that has begun, and its log, which its errors go to as well."""
    started = []

    def begin(command, *args, config=''):
        (tmp_path / 'slow.py').write_text(toy.CONFIG + SLOW + config)
        log = tmp_path / 'log.txt'
        with log.open('w') as out:
            process = subprocess.Popen(
                [*command, 'slow.py', *args, '--work-dir', 'run'],
                cwd=tmp_path,
                env=dict(os.environ, PYTHON=sys.executable, PORT=str(free_port()), CUDA_VISIBLE_DEVICES='-1',
                         OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT)),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        started.append(process)
        end = time.monotonic() + 120
        while not (tmp_path / 'run/last_checkpoint').exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        return process, log

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def said_after_training(log):
    """The lines that are no log of mmengine's, from the first iteration on."""
    lines = log.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if 'Iter(train)' in line)
    return [line for line in lines[first:] if ' - mmengine - ' not in line]


def assert_interrupted(process, log):
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers of the data loader too
    assert process.wait(60) == 130
    (line,) = said_after_training(log)
    assert line.startswith('training interrupted after ') and ' of 100000 iterations; to go on from iter_' in line
    assert line.endswith(f'run the same again with --work-dir {log.parent / "run"} --resume')


def test_ctrl_c_is_one_line_that_says_how_to_go_on(start):
    assert_interrupted(*start(TRAIN))


def test_how_to_go_on_before_the_first_checkpoint_is_due(tmp_path):
    runner = SimpleNamespace(
        iter=7,
        max_iters=16,
        work_dir=str(tmp_path),
        cfg=dict(default_hooks=dict(checkpoint=dict(interval=500))),
        hooks=[],
    )
    assert how_to_go_on(runner) == (
        f"training interrupted after 7 of 16 iterations; '{tmp_path}' holds no checkpoint yet (the first is due "
        'after 500: default_hooks.checkpoint.interval), to start again begins anew'
    )
    (tmp_path / 'best_top1_iter_3.pth').write_bytes(b'')
    assert how_to_go_on(runner).endswith(f'run the same again with --resume {tmp_path}/best_top1_iter_3.pth')


@pytest.mark.slow
def test_ctrl_c_in_two_processes_is_one_line(start):
    assert_interrupted(*start(DIST, '2'))


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others(start):
    process, log = start(DIST, '2')
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    assert process.wait(60) == 128 + 9
    assert said_after_training(log)[-1] == 'error: process 1 was killed by signal 9'


@pytest.mark.slow
def test_a_port_in_use_is_named(tmp_path):
    (tmp_path / 'toy.py').write_text(toy.CONFIG)
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = subprocess.run(
            [*DIST, 'toy.py', '2'],
            cwd=tmp_path,
            env=dict(os.environ, PYTHON=sys.executable, PORT=str(port)),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2
    what = f'port {port} is in use, by another run on this machine: set PORT to another, e.g. PORT={port + 1}'
    assert done.stderr.strip().splitlines()[-1] == f'error: {what}'


@pytest.mark.slow
def test_an_error_in_two_processes_is_one_line(tmp_path):
    (tmp_path / 'toy.py').write_text(toy.CONFIG)
    done = subprocess.run(
        [*DIST, 'toy.py', '2', '--cfg-options', 'train_cfg.total_batch=9'],
        cwd=tmp_path,
        env=dict(os.environ, PYTHON=sys.executable, PORT=str(free_port()), CUDA_VISIBLE_DEVICES='-1'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert [line for line in done.stderr.splitlines() if 'rror' in line] == [
        'error: a total batch of 9 is not a multiple of 2 samples x 2 devices = 4: set train_cfg.total_batch to 8 or '
        '12 (the learning rate follows it)'
    ]


# what goes wrong on process 1: it loops, at a line of its own; it is stopped, as the first process may be too
LOOP = """
custom_imports['imports'].append('tests.tools.test_ends')
custom_hooks = [dict(type='nfnet_mm.HangHook', timeout=3), dict(type='Loop', at=5)]
"""


@HOOKS.register_module(force=True)
class Loop(Hook):
    def __init__(self, at):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        while runner.rank == 1 and runner.iter == self.at:
            time.sleep(0.01)  # hangs


@pytest.mark.slow
@pytest.mark.parametrize('hung', ['loop', 0, 1])
def test_a_process_that_hangs_ends_the_run_with_its_name(start, tmp_path, hung):
    at = 5 if hung == 'loop' else 10**6
    process, log = start(DIST, '2', config=LOOP.replace('at=5', f'at={at}'))
    if hung != 'loop':
        children = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
        os.kill(int(children[hung]), signal.SIGSTOP)
    began = time.monotonic()
    # 3 s, four of the tenths of it, and what the launcher gives a process that was stopped: 30 s
    assert process.wait(120) == 70
    line = said_after_training(log)[-1]
    rank = 1 if hung == 'loop' else hung
    assert f'the run makes no progress, since process {rank} ({socket.gethostname()}, pid ' in line
    if hung == 'loop':
        number = 1 + Path(__file__).read_text().splitlines().index('            time.sleep(0.01)  # hangs')
        assert f'has been at {__file__}:{number} (before_train_iter) for ' in line and ', after iteration 5;' in line
    else:
        assert 'gives no sign of life after iteration ' in line
    print('ENDED AFTER', time.monotonic() - began)
