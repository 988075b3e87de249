"""Orbax checkpoints, written by several versions of the library, and by the installed one."""

import json
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from nfnet_mm.converters import ReadError, convert_file, from_deepmind, load_weights, read_weights
from nfnet_mm.converters.formats import orbax as reader
from tests.converters.networks import deepmind_tree

DATA = Path(__file__).parents[1] / 'data' / 'orbax'
OLD = sorted(path.name.removesuffix('.tar.xz') for path in DATA.glob('*.tar.xz'))
needs_orbax = pytest.mark.skipif(
    find_spec('orbax') is None, reason='pip install orbax-checkpoint to read what it writes'
)
SHAPE = dict(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1))


def unpacked(name, folder):
    with tarfile.open(DATA / f'{name}.tar.xz') as archive:
        archive.extractall(folder, filter='data')
    return folder / name


def known_tree():
    """What the stored checkpoints hold, by the formula of the page beside them."""
    tree, i = deepmind_tree(**SHAPE), 0
    for leaves in tree.values():
        for name, array in leaves.items():
            leaves[name] = ((np.arange(array.size) % 16 + i) / 8).reshape(array.shape)
            i += 1
    return tree


def same(read, tree):
    assert {m: set(leaves) for m, leaves in read.items()} == {m: set(leaves) for m, leaves in tree.items()}
    for module, leaves in tree.items():
        for name, array in leaves.items():
            assert read[module][name].dtype == np.float32 and np.array_equal(read[module][name], array), (module, name)


def test_all_layouts_are_there():
    assert OLD == ['orbax0.12.8-devices', 'orbax0.2.7-numpy', 'orbax0.4.8-devices']


@needs_orbax
@pytest.mark.parametrize('name', OLD)
def test_stored_checkpoints(name, tmp_path):
    read = read_weights(unpacked(name, tmp_path))
    assert (read.kind, read.state, read.state_dict) == ('orbax', {}, None)
    same(read.tree, known_tree())


@needs_orbax
def test_into_a_backbone_and_a_file(tmp_path):
    folder = unpacked('orbax0.12.8-devices', tmp_path)
    arch = dict(**SHAPE, stem_channels=4, group_width=4, final_channels=16)
    expected = from_deepmind(known_tree())
    cfg = dict(type='nfnet_mm.NFNet', arch=arch, out_indices=(3, 4))
    net = MODELS.build(dict(cfg, init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=str(folder))))
    net.init_weights()
    assert all(torch.equal(value, expected[f'backbone.{key}']) for key, value in net.state_dict().items())
    weights = load_weights(folder)
    assert (weights.source, weights.dialect, weights.layout.num_classes) == ('deepmind', 'authors', 5)
    convert_file(folder, tmp_path / 'a.pth')
    saved = torch.load(tmp_path / 'a.pth', weights_only=True)['state_dict']
    assert saved.keys() == expected.keys() and all(torch.equal(saved[k], v) for k, v in expected.items())


WRITE = """
import sys, numpy as np, jax.numpy as jnp, orbax.checkpoint as ocp
linear = {'w': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': jnp.ones(3, jnp.bfloat16)}
tree = {'params': {'NFNet/~/linear': linear}, 'state': {'NFNet/~/bn/~/mean_ema': {'average': np.zeros(3)}}}
tree |= {'step': 3, 'optimizer': (jnp.ones(2), {'a': None})}
for name, options in (('arrays', dict(use_ocdbt=False)), ('store', dict(use_ocdbt=True))):
    ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)).save(f'{sys.argv[1]}/{name}', tree)
manager = ocp.CheckpointManager(sys.argv[1] + '/run')
for step in (3, 20):
    manager.save(step, args=ocp.args.StandardSave({'params': tree['params']}))
manager.close()
standard = ocp.StandardCheckpointer()
standard.save(sys.argv[1] + '/other', {'weights': np.ones(3)})
standard.close()
"""


@needs_orbax
def test_what_the_installed_library_writes(tmp_path):
    subprocess.run([sys.executable, '-c', WRITE, tmp_path], check=True, capture_output=True)
    for name in ('arrays', 'store', 'run/20'):
        read = read_weights(tmp_path / name)
        weights = read.tree['NFNet/~/linear']
        assert np.array_equal(weights['w'], [[0, 1, 2], [3, 4, 5]]) and weights['w'].dtype == np.float32
        assert np.array_equal(weights['b'], [1, 1, 1]) and weights['b'].dtype == np.float32
        assert list(read.state) == ([] if name == 'run/20' else ['NFNet/~/bn/~/mean_ema'])
    with pytest.raises(ReadError, match=r"run': a folder of checkpoints: name one in it, such as '20' of 20, 3$"):
        read_weights(tmp_path / 'run')
    with pytest.raises(ReadError, match=r"other': the Orbax checkpoint holds no 'params'$"):
        read_weights(tmp_path / 'other')


def spoil(folder, name):
    """Break a checkpoint of 0.2.7 in one of several ways."""
    array = folder / 'params.NFNet' / '~' / 'stem_conv0.w'
    header = json.loads((array / '.zarray').read_text())
    if name == 'a file is missing':
        (array / '0.0.0.0').unlink()
    elif name == 'a huge array':
        (array / '.zarray').write_text(
            json.dumps({**header, 'shape': [3, 3, 3, 1 << 40], 'chunks': [3, 3, 3, 1 << 40]})
        )
    elif name == 'a broken header':
        (array / '.zarray').write_text('{"shape": 3}')
    elif name == 'a cut list':
        (folder / 'checkpoint').write_bytes((folder / 'checkpoint').read_bytes()[:1000])
    elif name == 'no array':
        for file in (array / '.zarray', array / '0.0.0.0'):
            file.unlink()
    elif name == 'no arrays in it':
        (folder / 'checkpoint').write_text('model_checkpoint_path: "model.ckpt-3"\n')  # TensorFlow's


BROKEN = {
    'a file is missing': r'1 of the 1 files of params\.NFNet/~/stem_conv0\.w are missing$',
    'a huge array': r'its arrays take 1187\d{11} bytes, its files \d+$',
    'a broken header': r'the header of params\.NFNet/~/stem_conv0\.w is malformed: ',
}
BROKEN_FOR_ORBAX = {
    'a cut list': r'the Orbax checkpoint is not readable: ValueError: ',
    'no array': r'the Orbax checkpoint is not readable: \w+: .*stem_conv0',
    'no arrays in it': r'the Orbax checkpoint is not readable: ',
}


@pytest.mark.parametrize('name', [*BROKEN, *(pytest.param(name, marks=needs_orbax) for name in BROKEN_FOR_ORBAX)])
def test_broken_checkpoints_are_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, 'check_installed', lambda: None)  # what is missing is seen without it
    folder = unpacked('orbax0.2.7-numpy', tmp_path)
    spoil(folder, name)
    with pytest.raises(ReadError, match=(BROKEN | BROKEN_FOR_ORBAX)[name]) as caught:
        load_weights(folder)
    assert '\n' not in str(caught.value) and repr(str(folder)) in str(caught.value)


def test_without_the_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'orbax', None)  # as if it were not installed
    folder = unpacked('orbax0.4.8-devices', tmp_path)
    with pytest.raises(ReadError, match=r'it is an Orbax checkpoint, .*-m pip install orbax-checkpoint$'):
        load_weights(folder)
