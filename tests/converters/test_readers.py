import contextlib
import io
import os
import pickle
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nfnet_mm.converters import ConversionError, ReadError, convert_file, read_weights
from nfnet_mm.converters.formats.pickled import read_pickled_tree
from nfnet_mm.converters.formats.safetensors import write_safetensors
from tests.converters import hostile
from tests.converters.networks import deepmind_tree

PICKLES = sorted((Path(__file__).parents[1] / 'data' / 'pickles').glob('*.pkl'))
HOSTILE = list(hostile.everything())


def test_a_folder_is_told_with_the_weights_in_it(tmp_path):
    (tmp_path / 'notes.txt').write_text('')
    with pytest.raises(ReadError, match='a folder, and no Orbax checkpoint; files of weights in it: none$'):
        read_weights(tmp_path)
    (tmp_path / 'iter_9.pth').write_bytes(b'')
    with pytest.raises(ReadError, match='files of weights in it: iter_9.pth$'):
        read_weights(tmp_path)


def test_the_canary_would_die(canary):
    with pytest.raises(AttributeError):  # what was made is no file; by then it has run
        read_pickled_tree(pickle.loads(pickle.dumps(hostile.Call(os.system, hostile.RUN))))
    assert canary.exists()
    canary.unlink()


@pytest.mark.parametrize('write, words', [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE])
def test_refused(write, words, tmp_path, canary):
    source, target = tmp_path / 'source', tmp_path / 'target.pth'
    write(source)
    with pytest.raises(ConversionError) as error:
        convert_file(str(source), str(target))
    message = str(error.value)
    assert repr(str(source)) in message and re.search(words, message) and '\n' not in message
    assert len(message) < 400 + len(str(source))
    assert {p.name for p in tmp_path.iterdir()} <= {'source', 'canary'}


def test_enough_of_them():
    assert len(HOSTILE) >= 40 and len({h[0] for h in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize('path', PICKLES, ids=[p.stem for p in PICKLES])
def test_pickles_of_other_packages(path):
    with open(path, 'rb') as file:
        tree = read_pickled_tree(file)
    assert {m: set(leaves) for m, leaves in tree.items()} == {'net/~/conv': {'w', 'gain'}, 'net': {'skip_gain', 'bias'}}
    assert tree['net/~/conv']['w'].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tree['net/~/conv']['gain'].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert tree['net']['skip_gain'].shape == () and tree['net']['skip_gain'] == 0.5 and tree['net']['bias'] == 0.25
    assert all(a.dtype == np.float32 for leaves in tree.values() for a in leaves.values())


def test_all_forms_are_there():
    names = ' '.join(p.stem for p in PICKLES)
    assert all(
        word in names
        for word in (
            'dill0.3.3',
            'dill0.4',
            'numpy1.20',
            'numpy2',
            'jax',
            'flatmap',
            'frozendict',
            'ordered',
            'protocol0',
            'protocol2',
            'protocol3',
            'protocol5',
        )
    )


@contextlib.contextmanager
def pretended(module, function):
    """A function of a package that is not here, just for writing a pickle that refers to it."""

    def stand_in(*_):
        raise AssertionError('must not be called')

    made, path = types.ModuleType(module), module.split('.')
    stand_in.__module__, stand_in.__qualname__ = module, function
    setattr(made, function, stand_in)
    names = ['.'.join(path[: i + 1]) for i in range(len(path))]
    before = {n: sys.modules.get(n) for n in names}
    sys.modules.update({n: types.ModuleType(n) for n in names[:-1]}, **{module: made})
    try:
        yield stand_in
    finally:
        for n, old in before.items():
            sys.modules.pop(n) if old is None else sys.modules.update({n: old})


@pytest.mark.parametrize('protocol', range(6))
def test_jax_before_0_4(protocol):
    # jax 0.3.25, jax/_src/device_array.py: (reconstruct_device_array, (fun, args, arr_state, aval_state))
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    with pretended('jax._src.device_array', 'reconstruct_device_array') as rebuild:
        leaf = hostile.Call(rebuild, *array.__reduce__(), {'weak_type': False, 'named_shape': {}})
        data = pickle.dumps({'net': {'w': leaf}}, protocol)
    tree = read_pickled_tree(io.BytesIO(data))
    assert tree['net']['w'].tolist() == array.tolist()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_pickles_are_refused_or_read(data):
    whole = bytearray(data.draw(st.sampled_from(PICKLES)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        tree = read_pickled_tree(io.BytesIO(whole))
    except ReadError as error:
        assert '\n' not in str(error)
    else:
        assert all(isinstance(a, np.ndarray) for leaves in tree.values() for a in leaves.values())


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
@example(b'}.')
def test_any_bytes_are_refused_or_read(data):
    try:
        assert isinstance(read_pickled_tree(io.BytesIO(b'\x80\x04' + data)), dict)
    except ReadError as error:
        assert '\n' not in str(error)


def test_reading_uses_no_memory_for_what_is_not_there(tmp_path):
    """A header of 40 bytes that claims a gigabyte costs nothing."""
    import tracemalloc

    tracemalloc.start()
    try:
        for claim in (hostile.P4 + b'\x8e\x00\x00\x00\x40\x00\x00\x00\x00', b'\x00' * 4 + b'\x40\x00\x00\x00{"a"'):
            path = tmp_path / 'claim'
            path.write_bytes(claim)
            with pytest.raises(ReadError):
                read_weights(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# Good files.


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    return {
        'a.weight': torch.rand(3, 4, generator=generator),
        'a.gain': torch.rand((), generator=generator),
        'b': torch.rand(2, generator=generator).bfloat16(),
    }


def test_pth_of_both_formats(state, tmp_path):
    for new in (True, False):
        for content in (state, {'state_dict': state}, {'model': state}, {'state_dict': state, 'meta': {'epoch': 3}}):
            torch.save(content, tmp_path / 'weights.npz', _use_new_zipfile_serialization=new)
            read = read_weights(tmp_path / 'weights.npz')  # the suffix does not matter
            assert read.kind == 'torch' and read.tree is None
            assert all(torch.equal(read.state_dict[k], v) for k, v in state.items())
            assert read.meta == content.get('meta', {})


def test_parameters_and_buffers(tmp_path):
    module = torch.nn.Linear(2, 3)
    torch.save({'weight': module.weight, 'bias': module.bias}, tmp_path / 'a.pth')
    read = read_weights(tmp_path / 'a.pth').state_dict
    assert torch.equal(read['weight'], module.weight) and not read['weight'].requires_grad


def test_mmengines_checkpoints(state, tmp_path, canary):
    from mmengine.logging import HistoryBuffer

    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(
        {
            'state_dict': state,
            'meta': {'epoch': 3},
            'message_hub': {'log_scalars': {'loss': buffer}, 'x': np.float64(3)},
            'optimizer': {'state': {}},
        },
        tmp_path / 'epoch_3.pth',
    )
    allow_list = getattr(torch.serialization, 'get_safe_globals', list)  # torch >= 2.5 has one
    statistics, allowed = dict(HistoryBuffer._statistics_methods), set(allow_list())
    read = read_weights(tmp_path / 'epoch_3.pth')
    assert all(torch.equal(read.state_dict[k], v) for k, v in state.items()) and read.meta == {'epoch': 3}
    assert HistoryBuffer._statistics_methods == statistics
    # What may stand beside the weights still may not run anything there.
    torch.save({'state_dict': state, 'message_hub': hostile.Call(os.system, hostile.RUN)}, tmp_path / 'bad.pth')
    with pytest.raises(ReadError, match=r'posix\.system'):
        read_weights(tmp_path / 'bad.pth')
    assert set(allow_list()) == allowed


def test_safetensors_against_the_library(state, tmp_path):
    library = pytest.importorskip('safetensors.torch')
    from safetensors import safe_open

    library.save_file(state, tmp_path / 'theirs.safetensors', {'dialect': 'timm'})
    read = read_weights(tmp_path / 'theirs.safetensors')
    assert read.meta == {'dialect': 'timm'} and read.state_dict.keys() == state.keys()
    assert all(torch.equal(read.state_dict[k], v) and read.state_dict[k].dtype == v.dtype for k, v in state.items())
    with open(tmp_path / 'ours.safetensors', 'wb') as file:
        write_safetensors({**state, 'transposed': state['a.weight'].T}, {'arch': 'F0'}, file)
    read = library.load_file(tmp_path / 'ours.safetensors')
    assert all(torch.equal(read[k], v) for k, v in state.items())
    assert torch.equal(read['transposed'], state['a.weight'].T)
    with safe_open(tmp_path / 'ours.safetensors', 'pt') as opened:
        assert opened.metadata() == {'format': 'pt', 'arch': 'F0'}


def test_a_pickled_tree(tmp_path):
    tree = deepmind_tree()
    for protocol in range(6):
        (tmp_path / 'F0_haiku.npz').write_bytes(pickle.dumps(tree, protocol))
        read = read_weights(tmp_path / 'F0_haiku.npz')
        assert read.kind == 'pickle' and read.state_dict is None and read.tree.keys() == tree.keys()
        assert all(np.array_equal(read.tree[m][n], a) for m, leaves in tree.items() for n, a in leaves.items())
