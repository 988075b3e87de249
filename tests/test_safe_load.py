"""Checkpoints that would run code, through everything that loads one; and what mmengine stores, which must load."""

import argparse
import collections
import datetime
import functools
import http.server
import pathlib
import re
import threading
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader

from nfnet_mm.converters.formats.older_torch import HAS_ALLOW_LIST
from nfnet_mm.errors import UserError
from nfnet_mm.run import read_checkpoint, use_safe_loading
from nfnet_mm.run.safe_load import SafeSaveHook
from tests import toy
from tests.converters import hostile

PICKLES = {name: content for name, content, _ in hostile.pickles()}
# getattr, which mmengine's own allow-list has, on what may be named: from a class to what lies around it
GETATTR = {
    'getattr of a global': hostile.call(
        'builtins',
        'getattr',
        hostile.name('mmengine.logging.history_buffer', 'HistoryBuffer'),
        hostile.text('__init__'),
    ),
    'getattr of another class': hostile.call(
        'builtins', 'getattr', hostile.name('collections', 'OrderedDict'), hostile.text('fromkeys')
    ),
}
# what asks for nothing at all can only be malformed
RUNNING = {
    name: content
    for name, content in PICKLES.items()
    if any(word in content for word in (b'system', b'exec', b'dill', b'getattr'))
}
RUNNING |= {name: hostile.tree(leaf) for name, leaf in GETATTR.items()}


def archive(path, content):
    """A file as torch.save writes it, with another pickle in it."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, 'w') as new:
        for name, data in members.items():
            new.writestr(name, content if name.endswith('data.pkl') else data)
    return path


def test_there_are_twenty_kinds():
    assert len(RUNNING) >= 20


@pytest.mark.parametrize('name', RUNNING)
def test_code_is_refused(tmp_path, canary, name):
    if name == 'second pickle behind' and not HAS_ALLOW_LIST:  # whose reader ends before it
        assert read_checkpoint(archive(tmp_path / 'hostile.pth', RUNNING[name])) == {}
        return
    with pytest.raises(UserError, match='is refused: it asks for|cannot be read') as error:
        read_checkpoint(archive(tmp_path / 'hostile.pth', RUNNING[name]))
    assert '\n' not in str(error.value)
    (tmp_path / 'old.pth').write_bytes(RUNNING[name])  # before zip archives
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / 'old.pth')


def test_the_payload_would_run(tmp_path, monkeypatch):
    """So the tests above can fail: the same file, loaded as mmengine does where the safe way refuses."""
    monkeypatch.setenv(hostile.CANARY, str(tmp_path / 'ran'))
    torch.load(archive(tmp_path / 'hostile.pth', RUNNING['reduce at the top']), weights_only=False)
    assert (tmp_path / 'ran').exists()


PRETRAINED = "model = dict(type='ToyLinear', init_cfg=dict(type='Pretrained', checkpoint={!r}))\n"


@pytest.mark.parametrize('entry', ['test', 'resume', 'load_from', 'init_cfg', 'work folder'])
@pytest.mark.parametrize('name', ['exec', 'getattr of a global', 'obj'])
def test_every_entry_point_refuses_it(run_tool, tmp_path, canary, entry, name):
    config, work = tmp_path / 'config.py', tmp_path / 'run'
    config.write_text(toy.CONFIG)
    work.mkdir()
    file = archive(work / 'iter_2.pth', RUNNING[name])
    own = ['--work-dir', work]
    options = ['--cfg-options', f'experiment_name={entry}{name}']
    if entry == 'init_cfg':
        config.write_text(toy.CONFIG + PRETRAINED.format(str(file)))
    code, errors = run_tool(
        *{
            'test': ('test', config, file, *own, *options),
            'resume': ('train', config, '--resume', file, *own, *options),
            'load_from': ('train', config, *own, *options, f'load_from={file}'),
            'init_cfg': ('train', config, *own, *options),
            'work folder': ('train', config, '--resume', *own, *options),
        }[entry]
    )
    assert code == 2 and f'{file}' in errors and 'could run code' in errors, errors
    assert errors.count('\n') == 1 and '--trust-checkpoint' in errors


def test_trust_is_explicit_and_loud(run_tool, tmp_path, monkeypatch):
    config = tmp_path / 'config.py'
    config.write_text(toy.CONFIG)
    monkeypatch.setenv(hostile.CANARY, str(tmp_path / 'ran'))
    weights = {'linear.weight': torch.zeros(1, 3), 'linear.bias': torch.zeros(1)}
    torch.save(dict(state_dict=weights, meta=hostile.Call(eval, f'exec("{hostile.EXEC}")')), tmp_path / 'odd.pth')
    args = ['test', config, tmp_path / 'odd.pth', '--work-dir', tmp_path / 'run']
    assert run_tool(*args, '--trust-checkpoint', '--cfg-options', 'experiment_name=trust')[0] == 0
    (tmp_path / 'ran').unlink()
    assert run_tool(*args, '--cfg-options', 'experiment_name=no_trust')[0] == 2 and not (tmp_path / 'ran').exists()


def test_what_mmengine_stores_is_read(tmp_path):
    hub = MessageHub.get_instance('test_what_mmengine_stores_is_read')
    hub.update_scalar('loss', 0.5)
    hub.update_scalar('of_numpy', np.float32(0.25))
    hub.update_info('best_score', np.float64(3))
    meta = dict(
        classes=('a', 'b'),
        palette=[(1, 2, 3)],
        names=np.array(['x']),
        on=np.bool_(True),
        span=slice(1, 2),
        groups={1, 2},
        counts=collections.Counter('aab'),
        generator=np.random.RandomState(0).get_state(),
    )
    torch.save(dict(message_hub=hub.state_dict(), meta=meta), tmp_path / 'a.pth')
    loaded = read_checkpoint(tmp_path / 'a.pth')
    scalars = loaded['message_hub']['log_scalars']
    assert isinstance(scalars['loss'], HistoryBuffer) and scalars['loss'].statistics('mean') == 0.5
    assert scalars['of_numpy'].current() == 0.25
    assert loaded['message_hub']['runtime_info']['best_score'] == 3
    state = loaded['meta'].pop('generator')
    assert all(np.array_equal(one, two) for one, two in zip(state, meta.pop('generator')))
    assert loaded['meta'] == meta


def test_what_training_codes_store_is_read(tmp_path):
    """Nested options of a data set's metainfo, the arguments of a script, paths, times, a version."""
    meta = dict(
        metainfo=Config(dict(metainfo=dict(groups=dict(thing=('a', 'b'))))).metainfo,
        args=argparse.Namespace(lr=1e-4, sizes=[1, 2]),
        time=datetime.datetime(2024, 2, 29, 1, 2),
        version=torch.torch_version.TorchVersion('2.1.0'),
        path=pathlib.PurePosixPath('/data/a'),
        found=collections.defaultdict(list, a=[1]),
        last=collections.deque([1, 2], maxlen=2),
        shape=torch.Size([1, 2]),
    )
    torch.save(dict(state_dict={}, meta=meta), tmp_path / 'a.pth')
    loaded = read_checkpoint(tmp_path / 'a.pth')['meta']
    assert loaded == meta | dict(path='/data/a', found=dict(a=[1]), last=[1, 2])
    assert loaded['args'].lr == 1e-4


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Of a server on this machine that serves a folder."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    monkeypatch.setattr(handler.func, 'log_message', lambda *args: None)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_a_checkpoint_from_an_address(tmp_path, address, canary, monkeypatch):
    use_safe_loading()
    hub = MessageHub.get_instance('test_a_checkpoint_from_an_address')
    hub.update_scalar('loss', 0.5)
    torch.save(dict(state_dict={'a': torch.ones(1)}, message_hub=hub.state_dict()), tmp_path / 'good.pth')
    loaded = CheckpointLoader.load_checkpoint(f'{address}/good.pth')
    assert loaded['message_hub']['log_scalars']['loss'].current() == 0.5
    archive(tmp_path / 'bad.pth', RUNNING['getattr of a global'])
    named = {name: f'{address}/{name}.pth' for name in ('good', 'bad')}
    for table in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        monkeypatch.setattr(f'mmengine.runner.checkpoint.{table}', lambda: named)
    for place in ('torchvision://', 'open-mmlab://'):
        loaded = CheckpointLoader.load_checkpoint(f'{place}good')
        assert loaded['message_hub']['log_scalars']['loss'].current() == 0.5
    for one in (f'{address}/bad.pth', 'torchvision://bad', 'open-mmlab://bad', 'mmcls://bad'):
        with pytest.raises(UserError, match='bad.pth.* is refused: it asks for'):
            CheckpointLoader.load_checkpoint(one)


class Odd:
    """Of a hook of the user's."""


def test_what_will_be_refused_is_told_when_it_is_saved(log_lines):
    hook, hub = SafeSaveHook(), MessageHub.get_instance('test_what_will_be_refused')
    hub.update_scalar('loss', 0.5)
    hub.update_info('epoch', 1)
    plain = dict(
        meta=dict(cfg='', numbers=[np.float32(1.0)]), state_dict=dict(a=torch.ones(3)), message_hub=hub.state_dict()
    )
    hook.before_save_checkpoint(None, plain)
    assert not log_lines()
    hub.update_info('mine', dict(all=[Odd()]))
    for _ in range(2):
        hook.before_save_checkpoint(None, {**plain, 'message_hub': hub.state_dict(), 'own': functools.partial(print)})
    told = [line for line in log_lines().splitlines() if 'REFUSE IT' in line]
    assert len(told) == 2  # each once
    where = 'message_hub runtime_info.mine of the checkpoint holds tests.test_safe_load.Odd, which is not read back'
    assert told[0].startswith(where) and told[1].startswith('own of the checkpoint holds functools.partial')


def test_a_cut_checkpoint_is_one_line(run_tool, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(toy.CONFIG)
    run_tool('train', config, '--work-dir', tmp_path / 'run', '--cfg-options', 'experiment_name=to_be_cut')
    whole = (tmp_path / 'run/iter_4.pth').read_bytes()
    for part in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / 'cut.pth').write_bytes(whole[:part])
        for args in (['test', config, tmp_path / 'cut.pth'], ['train', config, '--resume', tmp_path / 'cut.pth']):
            code, errors = run_tool(
                *args, '--work-dir', tmp_path / f'{part}', '--cfg-options', f'experiment_name={part}{args[0]}'
            )
            assert code == 2 and re.match(rf"error: .*'{tmp_path}/cut.pth'.*(cut off|changed|empty)", errors), errors
            assert errors.count('\n') == 1
