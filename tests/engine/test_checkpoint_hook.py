"""Checkpoints under what can go wrong while they are written, and after."""

import io
import logging
import multiprocessing
import os
import random
import resource
import signal
import time

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from nfnet_mm import run
from nfnet_mm.engine.checkpoint_file import damage, write_sealed
from nfnet_mm.engine.checkpoint_hook import SafeCheckpointHook
from nfnet_mm.errors import UserError
from tests.engine.random_toy import CONFIG


@pytest.fixture
def sealed(tmp_path):
    content = io.BytesIO()
    torch.save(dict(state_dict={'a': torch.randn(300), 'b': torch.randn(7, 5)}, meta=dict(cfg='x' * 999)), content)
    write_sealed(tmp_path / 'iter_1.pth', content.getvalue())
    return tmp_path / 'iter_1.pth'


def test_a_sealed_file_is_pytorch_s(sealed):
    assert damage(sealed) is None
    for mmap in (False, True):
        loaded = torch.load(str(sealed), weights_only=True, mmap=mmap)
        assert len(loaded['state_dict']['a']) == 300 and loaded['meta'] == dict(cfg='x' * 999)


def test_every_cut_and_every_changed_byte_is_seen(sealed):
    whole = sealed.read_bytes()
    generator = random.Random(0)
    for end in [0, 1, 4, len(whole) - 1, len(whole) - 2, *generator.sample(range(len(whole)), 35)]:
        sealed.write_bytes(whole[:end])
        assert damage(sealed), end
    for at in generator.sample(range(len(whole)), 200):
        changed = bytearray(whole)
        changed[at] ^= 1 << generator.randrange(8)
        sealed.write_bytes(changed)
        assert damage(sealed), at
    sealed.write_bytes(whole + b'\0')
    assert damage(sealed)


def test_a_file_without_a_seal_tells_by_its_own_checksums(tmp_path):
    path = tmp_path / 'iter_1.pth'
    torch.save(dict(a=torch.zeros(5000)), path)
    assert damage(path) is None
    whole = path.read_bytes()
    middle = whole.index(b'\0' * 4000) + 2000
    path.write_bytes(whole[:middle] + b'\1' + whole[middle + 1 :])
    assert damage(path).endswith('was changed')
    path.write_bytes(whole[:middle])
    assert damage(path) == 'it is cut off or broken'
    path.write_bytes(b'')
    assert damage(path) == 'it is empty'
    assert damage(tmp_path / 'no') == 'No such file or directory'


class FullDisk(Hook):
    """No file grows beyond 7 kB from one iteration to another; the toy's checkpoints are larger."""

    def __init__(self, first, last):
        self.first, self.last, self.before = first, last, resource.getrlimit(resource.RLIMIT_FSIZE)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx + 1 == self.first:
            resource.setrlimit(resource.RLIMIT_FSIZE, (7000, self.before[1]))
        if batch_idx + 1 == self.last + 1:
            self.after_run(runner)

    def after_run(self, runner):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def runner_of(folder, name, hooks='', iters=6, workers=0, interval=1):
    config = folder / 'config.py'
    config.write_text(
        f"{CONFIG}default_hooks['checkpoint'].update(interval={interval}{hooks})\ntrain_cfg['max_iters'] = {iters}\n"
    )
    cfg = run.load_config(str(config), dict(experiment_name=f'{folder}{name}'), str(folder / 'run'))
    run.use_resume(cfg, 'auto')
    return run.build_runner(cfg)


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setattr('logging.raiseExceptions', False)  # the log cannot grow either


def test_training_goes_on_when_the_disk_is_full(tmp_path, quiet, log_lines):
    runner = runner_of(tmp_path, 'full', ', max_keep_ckpts=2, max_failures=3')
    full = FullDisk(3, 4)
    runner.register_hook(full)
    seen = {}

    class Look(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            seen[batch_idx + 1] = sorted(path.name for path in (tmp_path / 'run').glob('*.pth'))
            assert damage((tmp_path / 'run/last_checkpoint').read_text()) is None
            assert not list((tmp_path / 'run').glob('.*.tmp'))

    runner.register_hook(Look(), 'LOWEST')
    try:
        runner.train()
    finally:
        full.after_run(runner)
    kept = {1: (1,), 2: (1, 2), 3: (1, 2), 4: (1, 2), 5: (2, 5), 6: (5, 6)}
    assert seen == {now: [f'iter_{n}.pth' for n in numbers] for now, numbers in kept.items()}


def test_a_run_that_cannot_save_ends(tmp_path, quiet):
    runner = runner_of(tmp_path, 'ends', ', max_failures=2')
    full = FullDisk(2, 9)
    runner.register_hook(full)
    try:
        with pytest.raises(
            UserError, match=r'at iteration 3: .*iter_3.pth.* was not written: File too large; the last '
        ):
            runner.train()
    finally:
        full.after_run(runner)
    assert damage(tmp_path / 'run/iter_1.pth') is None and not (tmp_path / 'run/iter_2.pth').exists()


def test_the_best_checkpoint_stays_until_a_better_one_is_written(tmp_path, quiet):
    """The toy's error falls at every validation, of which there is one an iteration."""
    config = ", save_best='error', rule='less', max_failures=9"
    runner = runner_of(tmp_path, 'best', config)
    runner.cfg.train_cfg.val_interval = runner._train_loop['val_interval'] = 1
    full = FullDisk(3, 4)
    runner.register_hook(full)
    best = {}

    class Look(Hook):
        priority = 'LOWEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            best[batch_idx] = [path.name for path in (tmp_path / 'run').glob('best*.pth')]

    runner.register_hook(Look(), 'LOWEST')
    try:
        runner.train()
    finally:
        full.after_run(runner)
    assert best[2] == best[3] == best[4] and len(best[2]) == 1
    score = float(runner.message_hub.get_info('best_score'))
    assert runner.message_hub.get_info('best_ckpt') == str(next((tmp_path / 'run').glob('best*.pth')))
    assert score <= runner.message_hub.get_scalar('val/error').current() + 1e-9


def test_a_best_score_of_numpy_is_kept_as_a_plain_number(tmp_path, quiet):
    """As mmseg's, of the type that ``torch.load(weights_only=True)`` refuses."""
    runner = runner_of(tmp_path, 'numpy', ", save_best='error', rule='less'")
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook))
    hook._save_best_checkpoint(runner, dict(error=np.float32(-0.5)))
    assert repr(runner.message_hub.get_info('best_score')) == '-0.5'


def train_on(folder, number, iters):
    """Of a process that may be killed at any moment."""
    logging.disable(logging.CRITICAL)
    runner_of(folder, number, ', max_keep_ckpts=2', iters, workers=1, interval=2).train()


def last_of(folder):
    pointer = folder / 'run/last_checkpoint'
    return int(pointer.read_text().rpartition('_')[2].removesuffix('.pth')) if pointer.exists() else 0


@pytest.mark.parametrize('kills,iters', [(5, 24), pytest.param(50, 400, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path, kills, iters):
    """Every resumed run finds a whole checkpoint, and the weights in the end are those of a run in one piece.

    Every other kill comes while a checkpoint is being written.
    """
    server = multiprocessing.get_context('forkserver')
    server.set_forkserver_preload(['torchvision', 'mmengine.visualization', 'tests.engine.test_checkpoint_hook'])
    whole, part = tmp_path / 'whole', tmp_path / 'part'
    for folder in (whole, part):
        folder.mkdir()
    process = server.Process(target=train_on, args=(whole, 0, iters))
    process.start()
    process.join()
    assert process.exitcode == 0
    generator, inside = random.Random(0), 0
    for number in range(kills + 1):
        process = server.Process(target=train_on, args=(part, number, iters))
        process.start()
        target = last_of(part) + generator.randint(1, max(iters // kills - 1, 1))
        while number < kills and process.is_alive() and last_of(part) < min(target, iters - 3):
            pass
        if number < kills:
            writing = []
            while number % 2 and process.is_alive() and not writing:
                writing = list((part / 'run').glob('.iter*.tmp'))
            if not number % 2:
                time.sleep(generator.uniform(0, 0.02))
            assert process.is_alive()
            os.kill(process.pid, signal.SIGKILL)
            inside += bool(list((part / 'run').glob('.iter*.tmp')))
        process.join()
        assert process.exitcode == (-signal.SIGKILL if number < kills else 0)
        assert [damage(path) for path in (part / 'run').glob('*.pth')] in ([None], [None] * 2, [None] * 3)
    assert inside >= kills // 5
    states = [run.read_checkpoint(folder / f'run/iter_{iters}.pth') for folder in (whole, part)]
    for key in ('state_dict', 'optimizer'):
        torch.testing.assert_close(states[1][key], states[0][key], rtol=0, atol=0)
    assert not list((part / 'run').glob('.*.tmp'))  # what kills left is tidied up
