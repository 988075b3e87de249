"""Files that must be refused: those that try to run code, that lie about their size, and that are simply broken.

Each is (name, writer of the file at a path, words the error has to hold). ``CANARY`` is a module that must never be
imported; what the hostile ones would run creates the file that the environment variable of the same name says.
"""

import gzip
import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import torch

from tests.converters.networks import deepmind_tree

CANARY = 'nfnet_mm_canary'
RUN = f'touch "${CANARY}"'  # by a shell
EXEC = f"import os; open(os.environ['{CANARY}'], 'w').close()"
P2, P4 = b'\x80\x02', b'\x80\x04'
_ARRAY = np.ones(3, np.float32)


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def text(value):
    value = value.encode()
    return b'X' + struct.pack('<I', len(value)) + value


def name(module, attribute):
    return b'c' + f'{module}\n{attribute}\n'.encode()


def call(module, attribute, *arguments):
    return name(module, attribute) + b'(' + b''.join(arguments) + b'tR'


def tree(leaf, protocol=P2):
    """A pickle of {'net': {'w': leaf}} from the instructions that make the leaf."""
    return protocol + b'}' + text('net') + b'}' + text('w') + leaf + b'ss.'


_DTYPE = call('numpy', 'dtype', text('f4'), b'\x89\x88')
_EMPTY = call('numpy.core.multiarray', '_reconstruct', name('numpy', 'ndarray'), b'K\x00\x85', b'C\x01b')


def array(shape, data, dtype=_DTYPE):
    return _EMPTY + b'(K\x01' + shape + dtype + b'\x89' + data + b'tb'


def pickles():
    """(name, bytes, words): none of these is a tree of arrays."""
    dump = pickle.dumps
    yield 'reduce', dump({'net': {'w': Call(os.system, RUN)}}), r'posix\.system'
    yield 'reduce at the top', dump(Call(os.system, RUN)), r'posix\.system'
    yield 'reduce in protocol 0', dump({'net': Call(os.system, RUN)}, protocol=0), r'posix\.system'
    yield 'exec', dump({'net': {'w': Call(exec, EXEC)}}, protocol=2), r'__builtin__\.exec'
    yield 'eval', dump({'net': {'w': Call(eval, f'exec("{EXEC}")')}}), r'builtins\.eval'
    yield 'getattr', dump({'net': Call(getattr, 'x', 'upper')}), 'getattr'
    yield 'import', tree(name(CANARY, 'anything')), rf'{CANARY}\.anything'
    yield 'import by stack', tree(text(CANARY) + text('anything') + b'\x93', P4), rf'{CANARY}\.anything'
    yield 'dotted attribute', tree(text('numpy') + text('ndarray.__class__') + b'\x93', P4), r'ndarray\.__class__'
    yield 'dotted path', tree(text('collections') + text('OrderedDict.fromkeys') + b'\x93', P4), r'Dict\.fromkeys'
    yield 'name that is no text', tree(text('os') + b'K\x01\x93', P4), 'something else than text'
    yield 'inst', P2 + b'(' + text(RUN) + b'ios\nsystem\n.', 'INST os system'
    yield 'obj', P2 + b'(' + name('os', 'system') + text(RUN) + b'o.', r'os\.system'
    yield 'obj of an array', P2 + b'(' + name('numpy', 'ndarray') + b'K\x01o.', 'instruction OBJ'
    yield 'newobj', tree(name('subprocess', 'Popen') + text(RUN) + b'\x85\x81'), r'subprocess\.Popen'
    yield 'newobj of an array', tree(name('numpy', 'ndarray') + b'K\x01\x85\x81'), 'instruction NEWOBJ'
    yield 'newobj_ex', tree(name('numpy', 'ndarray') + b')}\x92', P4), 'instruction NEWOBJ_EX'
    yield 'persistent id', P2 + b'Pos.system\n.', 'instruction PERSID os.system'
    yield 'binary persistent id', P2 + text('os.system') + b'Q.', 'instruction BINPERSID'
    for width, code in (('1', b'\x82\xf0'), ('2', b'\x83\xf0\x00'), ('4', b'\x84\xf0\x00\x00\x00')):
        yield f'extension code {width}', P2 + code + text(RUN) + b'\x85R.', f'instruction EXT{width} 240'
    yield 'next buffer', b'\x80\x05\x97.', 'instruction NEXT_BUFFER'
    yield 'build on a function', tree(name('numpy', 'dtype') + b'}' + text('x') + b'K\x01sb'), 'state of a reference'
    yield 'build on a mapping', P2 + b'}}' + text('__class__') + b'K\x01sb.', 'state of a dict'
    yield (
        'build on an array twice',
        tree(array(b'K\x01\x85', b'C\x04abcd') + b'(K\x01K\x01\x85' + _DTYPE + b'\x89C\x04abcdtb'),
        'malformed state',
    )
    yield 'call of a text', tree(text('print') + text(RUN) + b'\x85R'), 'calls a str'
    yield 'call of a mapping', tree(b'}' + text(RUN) + b'\x85R'), 'calls a dict'
    yield 'call of an array class', tree(call('numpy', 'ndarray', b'K\x01')), r'calls numpy\.ndarray'
    yield 'array method', tree(call('numpy.core.multiarray', 'fromfile', text('/etc/hosts'))), r'multiarray\.fromfile'
    yield (
        'nested in ordered mappings',
        tree(call('collections', 'OrderedDict') + text('k') + call('os', 'system', text(RUN)) + b's'),
        r'os\.system',
    )
    yield (
        'flat map of a call',
        tree(call('haiku._src.data_structures', 'FlatMapping', call('os', 'system', text(RUN)))),
        r'os\.system',
    )
    yield 'flat map of a list', tree(call('haiku._src.data_structures', 'FlatMapping', b']')), 'mapping of a list'
    jax = 'jax._src.array', '_reconstruct_array'
    yield 'jax array of a call', tree(call(*jax, name('os', 'system'), text(RUN) + b'\x85', b'}', b'}')), r'os\.system'
    yield (
        'jax array of another function',
        tree(call(*jax, name('numpy', 'dtype'), text('f4') + b'\x85', b')', b'}')),
        'unknown way',
    )
    yield 'dill import', tree(call('dill._dill', '_import_module', text('os'))), 'module os'
    yield 'dill import of ours', tree(call('dill._dill', '_import_module', text(CANARY))), f'module {CANARY}'
    nested = b')' + b'\x85' * 5000
    yield 'dill import of deep nesting', tree(call('dill._dill', '_import_module', nested)), 'module a tuple'
    module = call('dill._dill', '_import_module', text('numpy.core.multiarray'))
    yield 'dill attribute', tree(call('dill._dill', '_get_attr', module, text('fromstring'))), r'multiarray\.fromstring'
    yield 'dill attribute of a text', tree(call('dill._dill', '_get_attr', text('os'), text('system'))), 'of a str'
    for function in ('_load_type', '_create_function', '_create_code', '_eval_repr', '_getattribute', '_unmarshal'):
        yield f'dill {function}', tree(call('dill._dill', function, text('x'))), rf'dill\._dill\.{function}'
    yield (
        'dill array with attributes',
        tree(
            call(
                'dill._dill',
                '_create_array',
                name('numpy.core.multiarray', '_reconstruct'),
                name('numpy', 'ndarray') + b'K\x00\x85C\x01b\x87',
                b'(K\x01K\x01\x85' + _DTYPE + b'\x89C\x04abcdt',
                b'}' + text('__class__') + b'K\x01s',
            )
        ),
        'way',
    )
    yield 'subclass of arrays', dump({'net': {'w': np.ma.masked_array([1.0])}}), 'numpy.ma'
    yield 'object array', dump({'net': {'w': np.array([Call(os.system, RUN)], object)}}), r'posix\.system|objects'
    yield 'object array of numbers', dump({'net': {'w': np.array([1.0, None], object)}}), 'Python objects'
    yield (
        'object scalar',
        tree(call('numpy.core.multiarray', 'scalar', call('numpy', 'dtype', text('O8'), b'\x89\x88'), b'K\x01')),
        'Python objects',
    )
    yield 'structured array', dump({'net': {'w': np.ones(2, [('a', 'f4'), ('b', 'f4')])}}), 'V8|plain numbers'
    yield 'array of times', dump({'net': {'w': np.ones(2, 'M8[s]')}}), 'type M8'
    yield 'array of texts', dump({'net': {'w': np.array(['text'])}}), 'type U4'
    large = b'J\x00\x00\x10\x00'
    yield 'array larger than its bytes', tree(array(large + large + b'\x86', b'C\x04abcd')), 'in 4 bytes'
    yield 'array of overflowing size', tree(array(b'\x8a\x08' + b'\xff' * 7 + b'\x7f\x85', b'C\x04abcd')), 'in 4 bytes'
    yield 'array of negative size', tree(array(b'J\xff\xff\xff\xff\x85', b'C\x04abcd')), 'malformed state'
    yield 'array of many dimensions', tree(array(b'(' + b'K\x02' * 40000 + b't', b'C\x04abcd')), 'malformed state'
    yield 'one array under many names', dump({'net': dict.fromkeys(map(str, range(3000)), np.ones(500))}), 'more bytes'
    encode = call('_codecs', 'encode', b'h\x00', text('latin1'))
    yield 'one text encoded often', P2 + text('x' * 10000) + b'q\x00(' + encode * 500 + b't.', 'more bytes'
    yield 'other codec', tree(call('_codecs', 'encode', text(RUN), text('rot13'))), 'unknown way'
    yield 'length beyond the file', P4 + b'\x8e' + struct.pack('<Q', 1 << 60) + b'x.', 'cut off'
    yield 'text beyond the file', P4 + b'\x8d' + struct.pack('<Q', 1 << 62) + b'x.', 'cut off'
    yield 'buffer beyond the file', b'\x80\x05\x96' + struct.pack('<Q', 1 << 40) + b'x.', 'cut off'
    yield 'huge number', tree(b'\x8b' + struct.pack('<i', 100000) + b'\xff' * 100000), 'instruction LONG4'
    yield 'endless digits', P2 + b'I' + b'9' * 100000 + b'\n.', 'malformed'
    yield 'deep stack', P2 + b'(' * 60000 + b'.', 'longer or deeper'
    yield 'deep nesting', P2 + b')' + b'\x85' * 200000 + b'.', 'holds a tuple'
    yield 'mapping that holds itself', P2 + b'}q\x00' + text('net') + b'h\x00s.', 'net is a dict'
    yield 'memo that is not there', P2 + b'h\x07.', 'malformed'
    yield 'empty stack', P2 + b'.', 'malformed'
    yield 'no mark', P2 + b'Nt.', 'malformed'
    yield 'odd items', P2 + b'}(' + text('a') + b'u.', 'sets items'
    yield 'key that is no text', dump({1: {'w': _ARRAY}}), 'int for a key'
    yield 'key twice', P2 + b'}' + text('net') + b'}s' + text('net') + b'}s.', 'net twice'
    yield 'one level', dump({'w': _ARRAY}), 'w is an array'
    yield 'three levels', dump({'a': {'b': {'c': _ARRAY}}}), r'a\|b is a dict'
    yield 'list at the top', dump([_ARRAY]), 'holds a list'
    yield 'number at the top', dump(7), 'holds an int'
    yield 'text for an array', dump({'net': {'w': 'text'}}), 'w is a str'
    yield 'bytes for an array', dump({'net': {'w': b'bytes'}}), 'w is a bytes'
    yield 'nothing for an array', dump({'net': {'w': None}}), 'w is None'
    yield 'array not filled', tree(_EMPTY), 'w is None'
    yield 'set', dump({'net': {1, 2}}), 'instruction EMPTY_SET'
    yield 'second pickle behind', dump({}) + dump(Call(os.system, RUN)), 'follow the end'
    whole = dump(deepmind_tree())
    yield 'cut in half', whole[: len(whole) // 2], 'cut off'
    yield 'cut before the end', whole[:-1], 'cut off'
    yield 'garbage inside', whole[:1000] + bytes(range(256)) * 4 + whole[2000:], ''
    yield 'protocol of the future', b'\x80\x05\xff.', 'malformed'


def _put(data):
    def write(path):
        path.write_bytes(data)

    return write


def _torch(content, **kwargs):
    def write(path):
        torch.save(content() if callable(content) else content, path, **kwargs)

    return write


def _safetensors(header, data=b'', length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return _put(struct.pack('<Q', len(text) if length is None else length) + text + data)


def _zip(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return _put(buffer.getvalue())


def _cut(writer, part):
    def write(path):
        writer(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * part)])

    return write


def _npz(path):
    with open(path, 'wb') as file:
        np.savez(file, w=_ARRAY)


def _compressed_torch(path):
    torch.save({'w': torch.zeros(1 << 20)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {m: archive.read(m) for m in archive.namelist()}
    _zip(members, zipfile.ZIP_DEFLATED)(path)


def _locked(path):
    """As if encrypted: the flag of every entry of the directory at the archive's end."""
    torch.save({'w': torch.zeros(1)}, path)
    data = bytearray(path.read_bytes())
    at = data.find(b'PK\x01\x02')
    while at >= 0:
        data[at + 8] |= 1
        at = data.find(b'PK\x01\x02', at + 1)
    path.write_bytes(data)


def _deep_torch(path):
    """Keys nested so deeply that hashing them would end the process."""
    torch.save({'w': torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {m: archive.read(m) for m in archive.namelist()}
    nested = P2 + b'})' + b'\x85' * 2_000_000 + b'K\x01s.'
    _zip({m: nested if m.endswith('data.pkl') else data for m, data in members.items()})(path)


def _deep_old_torch(path):
    torch.save({'w': torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    weights = data.index(b'ctorch._utils')
    start = data.rindex(P2, 0, weights)
    path.write_bytes(data[:start] + P2 + b'})' + b'\x85' * 2_000_000 + b'K\x01s.')


def files():
    """(name, writer, words): no file of weights either."""
    good = {'a.weight': torch.ones(3)}
    yield 'folder', lambda path: path.mkdir(), 'a folder'
    yield 'pipe', lambda path: os.mkfifo(path), 'not a regular file'
    yield 'nothing there', lambda path: None, 'does not exist'
    yield 'empty file', _put(b''), 'empty'
    yield 'text', _put(b'NFNet weights, version 1\n'), 'it is text'
    yield 'web page', _put(b'<!DOCTYPE html><html></html>'), 'it is text'
    yield 'json', _put(b'{"a": [1, 2, 3]}'), 'it is text'
    yield 'zeros', _put(bytes(1000)), '00 00 00'
    yield 'gzip', _put(gzip.compress(pickle.dumps({}))), 'a gzip file'
    yield 'hdf5', _put(b'\x89HDF\r\n\x1a\n' + bytes(100)), 'a HDF5 file'
    yield 'npy', _put(b'\x93NUMPY\x01\x00' + bytes(100)), 'a NumPy .npy file'
    yield 'npz', _npz, 'NumPy archive'
    yield 'zip', _zip({'a.txt': b'x'}), 'without weights'
    yield 'zip cut off', _cut(_torch(good), 0.7), 'cut off'
    yield 'zip magic alone', _put(b'PK\x03\x04'), 'cut off'
    yield 'zip locked', _locked, 'cut off or broken'
    yield 'zip bomb', _compressed_torch, 'unpacks to more'
    yield 'pth nested deeply', _deep_torch, '2000000 tuples'
    yield 'old pth nested deeply', _deep_old_torch, '2000000 tuples'
    yield 'pth that runs code', _torch({'a': Call(os.system, RUN)}), r'posix\.system'
    yield 'old pth that runs code', _torch({'a': Call(os.system, RUN)}, _use_new_zipfile_serialization=False), 'system'
    yield 'pth with a module', _torch(lambda: torch.nn.Linear(2, 2)), r'torch\.nn\.modules\.linear\.Linear'
    yield 'pth with getattr of a module', _torch({'state_dict': {'a': Call(getattr, 'x', 'upper')}}), 'not a weight'
    yield 'pth cut off', _cut(_torch(good, _use_new_zipfile_serialization=False), 0.97), 'broken'
    yield 'pth with a list', _torch([torch.ones(3)]), 'holds a list'
    yield 'pth with nothing', _torch({}), 'holds a dict|holds a OrderedDict'
    yield 'pth with texts', _torch({'state_dict': {'a': 'text'}}), 'a is a str'
    yield 'pth with numbers for names', _torch({1: torch.ones(3)}), 'named by int'
    yield 'pth shown large', _torch({'a': torch.ones(1).expand(1 << 40)}), 'more bytes'
    yield 'pth of sparse tensors', _torch({'a': torch.eye(3).to_sparse()}), 'dense'
    yield 'pth on no device', _torch({'a': torch.empty(3, device='meta')}), 'dense'
    yield 'pth with two states', _torch({'state_dict': good, 'state_dict_ema': good}), 'state_dict_ema'
    resnet = {'conv1.weight': torch.ones(64, 3, 7, 7), 'bn1.weight': torch.ones(64)}
    yield 'foreign network', _torch(resnet), r'bn1\.weight'
    both = {f'{who}.backbone.stem.conv0.weight': torch.ones(3) for who in ('teacher', 'student')}
    yield 'teacher and student', _torch(both), r'student\.backbone\., teacher\.backbone\.'
    one = {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}
    yield 'safetensors with a long header', _safetensors({}, length=1 << 45), 'states a length'
    yield 'safetensors with a longer header than file', _safetensors({}, length=99), 'states a length'
    yield 'safetensors without JSON', _safetensors(b'{"a": '), 'malformed'
    yield 'safetensors nested deeply', _safetensors(b'{"a": ' + b'[' * 200000), 'malformed'
    yield 'safetensors with a name twice', _safetensors(b'{"a": {}, "a": {}}'), 'malformed: a name comes twice'
    yield 'safetensors without data', _safetensors({'a': one}), 'not in the file'
    yield 'safetensors with more data', _safetensors({'a': one}, bytes(12)), 'cut off or too long'
    yield 'safetensors with a hole', _safetensors({'a': dict(one, data_offsets=[4, 12])}, bytes(12)), 'do not follow'
    overlapping = {'a': one, 'b': dict(one, data_offsets=[4, 12])}
    yield 'safetensors overlapping', _safetensors(overlapping, bytes(12)), 'do not follow'
    yield 'safetensors of another size', _safetensors({'a': dict(one, shape=[3])}, bytes(8)), r'shape \(3,\) in 8 bytes'
    yield 'safetensors of overflowing size', _safetensors({'a': dict(one, shape=[1 << 61] * 8)}, bytes(8)), 'in 8 bytes'
    yield 'safetensors of a negative size', _safetensors({'a': dict(one, shape=[-2])}, bytes(8)), 'does not describe a'
    yield 'safetensors of no type', _safetensors({'a': dict(one, dtype='F33')}, bytes(8)), 'does not describe a'
    yield 'safetensors of a list', _safetensors({'a': [1, 2]}, bytes(8)), 'does not describe a'
    yield 'safetensors of numbers', _safetensors({'stem.conv.gain': dict(one, dtype='I64', shape=[1])}, bytes(8)), ''
    yield 'safetensors metadata', _safetensors({'__metadata__': {'a': 1}}), 'metadata'


def trees():
    """(name, writer, words): trees of arrays, but not of one of our networks."""

    def change(function):
        made = deepmind_tree()
        function(made)
        return _put(pickle.dumps(made))

    conv = 'NFNet/~/nf_block/~/conv1'
    yield 'NaN weights', change(lambda t: t[conv]['w'].fill(np.nan)), r'conv1\.weight holds NaN or Inf'
    yield 'infinite gain', change(lambda t: t[conv]['gain'].fill(np.inf)), r'conv1\.gain holds NaN or Inf'
    yield 'wrong rank', change(lambda t: t[conv].update(w=_ARRAY)), r'conv1\|w has shape \(3,\)'
    yield 'wrong shape', change(lambda t: t[conv].update(w=np.ones((3, 3, 8, 8), 'f4'))), r'stages\.0\.0\.conv'
    yield 'whole numbers', change(lambda t: t[conv].update(w=np.ones((3, 3, 4, 4), int))), 'int64'
    yield 'missing weight', change(lambda t: t[conv].pop('gain')), r'missing: backbone\.stages\.0\.0\.conv1\.gain'
    yield 'weight too many', change(lambda t: t.update(other={'w': _ARRAY})), r'other\|w'
    yield 'no blocks', _put(pickle.dumps({'NFNet/~/linear': {'w': np.ones((2, 2), 'f4')}})), r'stages \[\]'
    yield 'another network', _put(pickle.dumps({'ResNet50/~/conv': {'w': np.ones((7, 7, 3, 64), 'f4')}})), 'ResNet50'
    yield 'nothing at all', _put(pickle.dumps({})), r'stages \[\]'


def everything():
    for label, data, words in pickles():
        yield f'pickle: {label}', _put(data), words
    for label, writer, words in (*files(), *trees()):
        yield label, writer, words
