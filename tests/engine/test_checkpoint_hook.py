"""Checkpoints under what can go wrong while they are written, and after."""

import io
import json
import logging
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from nfnet_mm import run
from nfnet_mm.engine import sealed_files
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

    def __init__(self, first, last, size=7000):
        self.first, self.last, self.before = first, last, resource.getrlimit(resource.RLIMIT_FSIZE)
        self.size = size

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        for hook in runner.hooks:
            if getattr(hook, 'writer', None):  # of the checkpoint before, in the background
                hook.writer.wait()
        if batch_idx + 1 == self.first:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))
        if batch_idx + 1 == self.last + 1:
            self.after_run(runner)

    def after_run(self, runner):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def runner_of(folder, name, hooks='', iters=6, workers=0, interval=1):
    config = folder / 'config.py'
    hooks, seeded, _ = hooks.partition('SEED')
    settings = f"default_hooks['checkpoint'].update(interval={interval}{hooks})\ntrain_cfg['max_iters'] = {iters}\n"
    config.write_text(CONFIG + settings + ('randomness = dict(seed=5)\n' if seeded else ''))
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


@pytest.mark.parametrize('background', [False, True])
def test_a_run_that_cannot_save_ends(tmp_path, quiet, background):
    runner = runner_of(tmp_path, f'ends{background}', f', max_failures=2, background={background}')
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


def test_training_goes_on_without_its_logs(tmp_path, quiet, log_lines):
    runner = runner_of(tmp_path, 'logs', interval=6)
    full = FullDisk(2, 4, size=1)
    runner.register_hook(full)
    try:
        runner.train()
    finally:
        full.after_run(runner)
    written = [json.loads(line) for line in next((tmp_path / 'run').rglob('scalars.json')).read_text().splitlines()]
    assert [one['step'] for one in written if 'loss' in one] == [1, 5, 6]
    assert damage(tmp_path / 'run/iter_6.pth') is None


TMPFS = """
import logging, pathlib
from mmengine.hooks import Hook
from tests.engine.test_checkpoint_hook import damage, runner_of
logging.raiseExceptions = False
folder = pathlib.Path('{folder}/disk')
runner = runner_of(folder, 'tmpfs', ', max_keep_ckpts=2, background={background}')
full = []

class Fill(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 2:
            hook = next(hook for hook in runner.hooks if hasattr(hook, 'writer'))
            hook.writer and hook.writer.wait()
            with open(folder / 'filler', 'wb', buffering=0) as file:
                try:
                    while file.write(bytes(1024)):
                        pass
                except OSError as error:
                    full.append(error.strerror)
        if batch_idx == 4:
            (folder / 'filler').unlink()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx in (2, 3):
            assert damage((folder / 'run/last_checkpoint').read_text()) is None

runner.register_hook(Fill())
runner.train()
print(full, sorted(path.name for path in (folder / 'run').glob('*.pth')))
"""


@pytest.mark.slow
@pytest.mark.parametrize('background', [False, True])
def test_on_a_small_disk_that_is_full_for_a_while(tmp_path, background):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'train.py').write_text(TMPFS.format(folder=tmp_path, background=background))
    mount = f'mount -t tmpfs -o size=300k tmpfs {tmp_path}/disk'
    if subprocess.run(['unshare', '-rm', 'sh', '-c', mount], capture_output=True).returncode:
        pytest.skip('this machine does not let its users mount a disk in memory')
    command = ['unshare', '-rm', 'sh', '-c', f'{mount} && {sys.executable} -W ignore {tmp_path}/train.py']
    env = {**os.environ, 'PYTHONPATH': os.getcwd()}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "['No space left on device'] ['iter_5.pth', 'iter_6.pth']"


@pytest.mark.parametrize('gone', [False, True])
def test_a_read_only_or_vanished_folder(tmp_path, quiet, gone):
    """Of another path than the logs': training goes on, and saves again when the folder is as it was."""
    out = tmp_path / 'out'
    runner = runner_of(tmp_path, f'folder{gone}', f", out_dir='{out}'")
    folder = out / 'run'

    class Take(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if batch_idx == 2:
                folder.rename(out / 'aside')
                if not gone:
                    folder.write_text('nothing can be created here, whoever runs the tests')
            if batch_idx == 4 and not gone:
                folder.unlink()
                (out / 'aside').rename(folder)

    runner.register_hook(Take())
    runner.train()
    names = sorted(path.name for path in folder.glob('*.pth'))
    # a folder that is gone is made anew; the pointer names what is there
    assert names == [f'iter_{n}.pth' for n in ((3, 4, 5, 6) if gone else (1, 2, 5, 6))]
    assert (tmp_path / 'run/last_checkpoint').read_text() == str(folder / 'iter_6.pth')


def test_a_misspelt_option_is_told_before_training(tmp_path):
    runner = runner_of(tmp_path, 'misspelt', ', backgroundd=True', iters=1, interval=100)
    with pytest.raises(UserError, match="CheckpointHook has no option 'backgroundd'. Did you mean 'background'?"):
        runner.train()


@pytest.mark.parametrize('background', [False, True])
def test_the_last_checkpoint_of_a_training_must_be_saved(tmp_path, quiet, background):
    runner = runner_of(tmp_path, f'last{background}', f', background={background}')
    full = FullDisk(6, 9)
    runner.register_hook(full)
    try:
        with pytest.raises(UserError, match=r'LAST CHECKPOINT COULD NOT BE SAVED: the last good one is .*iter_5.pth'):
            runner.train()
    finally:
        full.after_run(runner)
    assert not (tmp_path / 'run/iter_6.pth').exists() and (tmp_path / 'run/last_checkpoint').read_text().endswith(
        '5.pth'
    )


class Slow(Hook):
    """Writing takes until it is released; what is there is noted after every step."""

    priority = 'LOWEST'

    def __init__(self, monkeypatch, folder):
        self.gate, self.begun, self.seen, self.folder = threading.Event(), threading.Event(), {}, folder

        def write(path, content, write=sealed_files.write_sealed):
            self.begun.set()
            assert self.gate.wait(60)
            write(path, content)

        monkeypatch.setattr(sealed_files, 'write_sealed', write)

    def files(self):
        return sorted(path.name for path in self.folder.glob('[a-z]*'))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen[batch_idx + 1] = self.files()


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch, quiet):
    """The file holds the weights of its step, though training has gone on; only then is the one before removed."""
    folder = tmp_path / 'run'
    reference = runner_of(tmp_path, 'sync', ', max_keep_ckpts=1SEED', interval=2)
    reference.train()
    (folder / 'iter_6.pth').rename(tmp_path / 'six.pth')
    want = run.read_checkpoint(tmp_path / 'six.pth')
    (folder / 'last_checkpoint').unlink()
    runner = runner_of(tmp_path, 'background', ', max_keep_ckpts=1, background=TrueSEED', interval=2)
    slow = Slow(monkeypatch, folder)
    runner.register_hook(slow, 'LOWEST')

    class Release(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if batch_idx == 3:  # the second checkpoint, at 4, waits for the first
                slow.gate.set()
            if batch_idx == 5:
                slow.gate.clear()  # that of the end is waited for
                threading.Timer(0.3, slow.gate.set).start()

    runner.register_hook(Release())
    runner.train()
    assert slow.seen[2] == slow.seen[3] and not any(name.endswith('.pth') for name in slow.seen[3])
    assert 'iter_2.pth' in slow.seen[4] and {'iter_6.pth', 'last_checkpoint'} <= set(slow.files())
    assert [name for name in slow.files() if name.endswith('.pth')] == ['iter_6.pth']
    found = run.read_checkpoint(folder / 'iter_6.pth')
    for key in ('state_dict', 'optimizer'):
        torch.testing.assert_close(found[key], want[key], rtol=0, atol=0)
    assert found['meta']['iter'] == 6 and found['message_hub']['runtime_info']['keep_ckpt_ids'] == [6]


def test_a_failure_in_the_background_is_told_at_the_next_checkpoint(tmp_path, quiet):
    """As test_training_goes_on_when_the_disk_is_full, a checkpoint later."""
    hooks = ", max_keep_ckpts=2, background=True, max_failures=9, save_best='error', rule='less'"
    runner = runner_of(tmp_path, 'later', hooks)
    runner.cfg.train_cfg.val_interval = runner._train_loop['val_interval'] = 1
    full = FullDisk(3, 4)
    runner.register_hook(full)
    failures, seen = {}, {}

    class Look(Hook):
        priority = 'LOWEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            hook = next(hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook))
            hook.writer.thread and hook.writer.thread.join()
            failures[batch_idx] = hook.failures
            seen[batch_idx] = sorted(path.name for path in (tmp_path / 'run').glob('*.pth'))
            assert all(damage(path) is None for path in (tmp_path / 'run').glob('*.pth'))

    runner.register_hook(Look(), 'LOWEST')
    try:
        runner.train()
    finally:
        full.after_run(runner)
    assert seen[2] == seen[3] == seen[4] and seen[2][1:] == ['iter_1.pth', 'iter_2.pth']
    assert failures[2] == 0 < failures[4]
    best = os.path.basename(runner.message_hub.get_info('best_ckpt'))
    left = sorted(path.name for path in (tmp_path / 'run').glob('*.pth'))
    assert left == [best, 'iter_5.pth', 'iter_6.pth']
    assert damage((tmp_path / 'run/last_checkpoint').read_text()) is None


@pytest.mark.parametrize('fails', [False, True])
def test_an_error_of_the_training_waits_for_what_is_written(tmp_path, monkeypatch, quiet, fails):
    """Of several processes, one that has failed would end at once, and the checkpoint with it."""
    runner = runner_of(tmp_path, f'error{fails}', ', background=True', interval=2)
    slow = Slow(monkeypatch, tmp_path / 'run')
    if fails:
        monkeypatch.setattr(sealed_files, 'damage', lambda path: 'it is cut off')

    class Fail(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if batch_idx == 3:
                assert not any(name.endswith('.pth') for name in slow.files())
                threading.Timer(0.5, slow.gate.set).start()
                raise ZeroDivisionError

    runner.register_hook(Fail())
    with pytest.raises(ZeroDivisionError):
        run.train(runner)
    assert [name for name in slow.files() if name.endswith('.pth')] == ([] if fails else ['iter_2.pth'])
    log = next((tmp_path / 'run').rglob('*.log')).read_text()
    assert log.count('NO CHECKPOINT was saved at iteration 2: ') == fails


def train_on(folder, number, iters, background=False, digits=None):
    """Of a process that may be killed at any moment; ``digits``: a detector, on the pictures in that folder."""
    logging.disable(logging.CRITICAL)
    if digits is None:
        runner_of(folder, number, f', max_keep_ckpts=2, background={background}', iters, workers=1, interval=2).train()
    else:
        detector_runner_of(folder, number, iters, digits).train()


def detector_runner_of(folder, number, iters, digits):
    settings = {
        'experiment_name': f'{folder}{number}',
        'data_root': f'{digits}/',
        'train_cfg.max_iters': iters,
        'train_cfg.val_interval': iters,
        'train_dataloader.batch_size': 1,
        'train_dataloader.num_workers': 1,
        'default_hooks.checkpoint': dict(type='CheckpointHook', by_epoch=False, interval=2, max_keep_ckpts=2),
    }
    cfg = run.load_config('demo/configs/mask_rcnn_nfnet_nano_digits.py', settings, str(folder / 'run'))
    run.use_resume(cfg, 'auto')
    return run.build_runner(cfg)


def last_of(folder):
    pointer = folder / 'run/last_checkpoint'
    return int(pointer.read_text().rpartition('_')[2].removesuffix('.pth')) if pointer.exists() else 0


@pytest.mark.parametrize(
    'kills,iters,background,detector',
    [
        (5, 24, False, False),
        *(
            pytest.param(50, 400, *how, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])
            for how in ((False, False), (True, False), (False, True))
        ),
    ],
)
def test_killed_at_random_moments(tmp_path, digits_root, kills, iters, background, detector):
    """Every resumed run finds a whole checkpoint, and the weights in the end are those of a run in one piece.

    Every other kill comes while a checkpoint is being written.
    """
    server = multiprocessing.get_context('forkserver')
    server.set_forkserver_preload(['torchvision', 'mmengine.visualization', 'tests.engine.test_checkpoint_hook'])
    whole, part, digits = tmp_path / 'whole', tmp_path / 'part', digits_root if detector else None
    for folder in (whole, part):
        folder.mkdir()
    process = server.Process(target=train_on, args=(whole, 0, iters, False, digits))
    process.start()
    process.join()
    assert process.exitcode == 0
    generator, inside = random.Random(0), 0
    for number in range(kills + 1):
        process = server.Process(target=train_on, args=(part, number, iters, background, digits))
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
