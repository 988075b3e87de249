import os
import pickle
import runpy
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nfnet_mm.converters import ConversionError, convert_file, from_deepmind, from_timm, read_weights, to_timm
from nfnet_mm.errors import UserError, write_atomically
from tests.converters.networks import deepmind_tree

ROOT = Path(__file__).parents[2]


def tool(*arguments, monkeypatch, capsys):
    """(exit status, printed, error) of the command, run here."""
    monkeypatch.setattr(sys, 'argv', ['convert_weights.py', *map(str, arguments)])
    status = 0
    try:
        runpy.run_path(str(ROOT / 'tools' / 'convert_weights.py'), run_name='__main__')
    except SystemExit as exit:
        status = exit.code
    return status, *capsys.readouterr()


@pytest.fixture
def source(tmp_path):
    path = tmp_path / 'tiny_haiku.npz'
    path.write_bytes(pickle.dumps(deepmind_tree()))
    return path


def test_there_and_back(source, tmp_path, monkeypatch, capsys):
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'convert_weights.py', source, 'a.pth'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    count = sum(a.size for leaves in deepmind_tree().values() for a in leaves.values())
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == (
        f'NFNet a variant without a name, {count:,} parameters, 5 classes, dialect authors; from deepmind to ours\n'
    )
    saved = torch.load(tmp_path / 'a.pth', weights_only=True)
    expected = from_deepmind(deepmind_tree())
    assert all(torch.equal(saved['state_dict'][k], v) for k, v in expected.items())
    assert saved['meta']['dialect'] == 'authors' and saved['meta']['family'] == 'NFNet' and 'arch' not in saved['meta']
    monkeypatch.chdir(tmp_path)
    run = dict(monkeypatch=monkeypatch, capsys=capsys)
    assert tool(source, 'a.pth', **run) == (2, '', "error: 'a.pth' exists; --force replaces it\n")
    assert tool('a.pth', 'b.pth', '--arch', 'F0', **run)[2].startswith("error: 'a.pth': the weights are not F0's: ")
    status, printed, error = tool('a.pth', 'b.safetensors', '--to', 'timm', '--dialect', 'timm', **run)
    assert (status, error) == (0, '') and printed.endswith('dialect timm; from ours to timm\n')
    back = read_weights(tmp_path / 'b.safetensors')
    assert back.meta['dialect'] == 'timm'
    assert all(torch.equal(back.state_dict[k], v) for k, v in to_timm(expected).items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.pth', 'b.safetensors', 'tiny_haiku.npz']


@pytest.mark.parametrize('name', ['test_nfnet', 'nf_resnet26', 'nf_regnet_b0'])
def test_timms_models_load_strictly(name, tmp_path):
    timm = pytest.importorskip('timm')
    pytest.importorskip('mmpretrain')
    from mmengine.registry import MODELS

    from nfnet_mm.models.backbones.arch import Network

    torch.manual_seed(0)
    state = timm.create_model(name, num_classes=4).state_dict()
    torch.save(state, tmp_path / 'source')
    summary = convert_file(tmp_path / 'source', tmp_path / 'a.pth')
    assert (summary.arch, summary.dialect, summary.source, summary.num_classes) == (f'timm/{name}', 'timm', 'timm', 4)
    assert summary.parameters == sum(v.numel() for v in state.values())
    backbone = MODELS.build(dict(Network(summary.family, summary.arch).cfg, out_indices=(4,)))
    classifier = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=backbone,
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='nfnet_mm.NFClsHead', num_classes=4, in_channels=backbone.out_channels[0]),
        )
    )
    classifier.load_state_dict(torch.load(tmp_path / 'a.pth', weights_only=True)['state_dict'], strict=True)
    convert_file(str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth'), to='timm')
    back = torch.load(tmp_path / 'b.pth', weights_only=True)['state_dict']
    assert back.keys() == state.keys() and all(torch.equal(back[k], v) for k, v in state.items())


def test_dialect_and_variant(tmp_path):
    """Of timm's files, those with SkipInit gains are DeepMind's weights."""
    timm = pytest.importorskip('timm')
    with torch.device('meta'):
        model = timm.create_model('dm_nfnet_f0', num_classes=2)
    state = {k: torch.full(v.shape, 0.5, dtype=torch.float16) for k, v in model.state_dict().items()}
    torch.save(state, tmp_path / 'a.pth')
    summary = convert_file(str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth'))
    assert (summary.arch, summary.dialect) == ('F0', 'authors')
    stated = convert_file(str(tmp_path / 'b.pth'), str(tmp_path / 'c.safetensors'), dialect='timm')
    assert (stated.arch, stated.dialect, stated.source) == ('timm/dm_nfnet_f0', 'timm', 'ours')
    again = convert_file(str(tmp_path / 'c.safetensors'), str(tmp_path / 'd.pth'))  # the file says so now
    assert (again.arch, again.dialect) == ('timm/dm_nfnet_f0', 'timm')
    with pytest.raises(ConversionError, match=r"a\.pth': the weights are not F1's: they have depths \(1, 2, 6, 3\)"):
        convert_file(str(tmp_path / 'a.pth'), str(tmp_path / 'e.pth'), arch='F1')
    assert not (tmp_path / 'e.pth').exists()


def test_arguments(source, tmp_path):
    def refused(target, words, origin=source, **kwargs):
        before = sorted(tmp_path.rglob('*'))
        with pytest.raises(ConversionError, match=words):
            convert_file(str(origin), str(target), **kwargs)
        assert sorted(tmp_path.rglob('*')) == before

    refused(tmp_path / 'a.txt', r"a\.txt' must end in \.pth or \.safetensors")
    refused(tmp_path / 'no' / 'a.pth', 'folder .*no.* does not exist')
    refused(tmp_path / 'a.pth', "dialect='ours' must be one of authors, timm", dialect='ours')
    refused(tmp_path / 'a.pth', "to='keras' must be ours or timm", to='keras')
    refused(tmp_path / 'a.pth', 'missing. does not exist', origin=tmp_path / 'missing')
    refused(tmp_path / 'a.pth', "NFNet arch 'B7' is unknown", arch='B7')
    refused(tmp_path / 'a.pth', "'F0' for the paper's network, 'timm/nfnet_f0' for timm's", arch='nfnet_f0')
    (tmp_path / 'folder.pth').mkdir()
    refused(tmp_path / 'folder.pth', "folder.pth' is a folder", force=True)
    source.rename(tmp_path / 'a.pth')
    refused(tmp_path / 'a.pth', 'is the source itself', origin=tmp_path / 'a.pth', force=True)


def test_force_replaces(source, tmp_path):
    target = tmp_path / 'a.pth'
    target.write_text('old')
    with pytest.raises(ConversionError, match='--force'):
        convert_file(str(source), str(target))
    assert target.read_text() == 'old'
    convert_file(str(source), str(target), force=True)
    assert read_weights(target).meta['source'] == 'deepmind'


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    target = tmp_path / 'a.pth'
    target.write_text('old')

    def half(file):
        file.write(b'half')
        raise OSError(28, 'No space left on device')

    with pytest.raises(UserError, match=r"a\.pth' was not written: No space left on device"):
        write_atomically(str(target), half)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(str(target), lambda file: (_ for _ in ()).throw(KeyboardInterrupt))
    assert target.read_text() == 'old' and [p.name for p in tmp_path.iterdir()] == ['a.pth']


def test_the_file_may_be_read_by_others(tmp_path):
    before = os.umask(0o022)
    try:
        write_atomically(str(tmp_path / 'a'), lambda file: file.write(b'x'))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'a').stat().st_mode) == 0o644


def test_timm_loads_what_goes_back(source, tmp_path):
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    model = timm.create_model('test_nfnet', num_classes=4)
    ours = tmp_path / 'ours.pth'
    torch.save({'state_dict': from_timm(model.state_dict())}, ours)
    for target in ('a.pth', 'a.safetensors'):
        convert_file(str(ours), str(tmp_path / target), to='timm')
        loaded = timm.create_model('test_nfnet', num_classes=4, checkpoint_path=str(tmp_path / target))
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.state_dict().items())


@pytest.mark.slow
def test_whole_f0_is_quick_and_small(tmp_path):
    tree = f0_tree()
    assert sum(a.size for leaves in tree.values() for a in leaves.values()) == 71_489_284
    (tmp_path / 'F0_haiku.npz').write_bytes(pickle.dumps(tree, protocol=3))
    # The peak of this program alone: getrusage's begins at the size of the process that it was forked from.
    code = (
        'import convert_weights, os, re; convert_weights.main(); status = open("/proc/self/status").read();'
        'print(sum(os.times()[:2]), re.search(r"VmHWM:\\s*(\\d+) kB", status)[1])'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, 'F0_haiku.npz', 'F0.pth'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT / 'tools')},
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2]),
    )
    assert done.returncode == 0, done.stderr
    summary, used = done.stdout.splitlines()
    assert 'NFNet F0, 71,489,284 parameters, 1000 classes, dialect authors' in summary
    # Processor time, so that what else the machine does tells nothing.
    seconds, kilobytes = map(float, used.split())
    print(f'{seconds:.1f} s, {kilobytes / 2**20:.2f} GiB')
    assert seconds < 15 and kilobytes < 2 * 2**20
    saved = torch.load(tmp_path / 'F0.pth', weights_only=True)['state_dict']
    kernel = tree['NFNet/~/nf_block_11/~/conv1b']['w']
    assert np.array_equal(saved['backbone.stages.3.2.conv1b.weight'].numpy(), kernel.transpose(3, 2, 0, 1))


def f0_tree():
    """Random weights of NFNet-F0, from the shapes of the paper (Table 1 and Figure 3)."""
    random, tree = np.random.default_rng(0), {}

    def put(path, **shapes):
        tree[f'NFNet/~/{path}'] = {k: random.random(s, np.float32) for k, s in shapes.items()}

    def conv(path, kernel, inputs, outputs):
        put(path, w=(kernel, kernel, inputs, outputs), gain=(outputs,), bias=(outputs,))

    for i, (inputs, outputs) in enumerate(((3, 16), (16, 32), (32, 64), (64, 128))):
        conv(f'stem_conv{i}', 3, inputs, outputs)
    inputs, number = 128, 0
    for depth, outputs in zip((1, 2, 6, 3), (256, 512, 1536, 1536)):
        for block in range(depth):
            path, middle = 'nf_block' + (f'_{number}' if number else ''), outputs // 2
            for name, kernel, i, o in (
                ('conv_shortcut', 1, inputs, outputs),
                ('conv0', 1, inputs, middle),
                ('conv1', 3, 128, middle),
                ('conv1b', 3, 128, middle),
                ('conv2', 1, middle, outputs),
            ):
                if block == 0 or name != 'conv_shortcut':
                    conv(f'{path}/~/{name}', kernel, i, o)
            put(f'{path}/~/squeeze_excite/~/linear', w=(outputs, middle), b=(middle,))
            put(f'{path}/~/squeeze_excite/~/linear_1', w=(middle, outputs), b=(outputs,))
            put(path, skip_gain=())
            inputs, number = outputs, number + 1
    conv('final_conv', 1, 1536, 3072)
    put('linear', w=(3072, 1000), b=(1000,))
    return {m: {k: np.asarray(a) for k, a in leaves.items()} for m, leaves in tree.items()}
