"""Safe replacements for the classes and functions that a pickled tree of weights may name.

Each takes what the pickle calls the original with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from nfnet_mm.errors import short

from ..errors import ReadError

_MAX_RANK = 8


@dataclass(frozen=True)
class PickledName:
    """A global of the pickle, or a module that dill would import: its name, nothing more."""

    path: str


@dataclass
class PickledDType:
    """A NumPy type: a kind and a size, then its byte order."""

    code: str
    order: Literal['<', '>', '|', '='] = '='

    def set_state(self, state: Any) -> None:
        # (version, byte order, and for structured types: subarray, names, fields, ...)
        if type(state) is not tuple or len(state) < 5 or state[1] not in ('<', '>', '|', '=') or any(state[2:5]):
            raise ReadError('the pickle has an array type other than plain numbers')
        self.order = state[1]


@dataclass
class PickledArray:
    """An array that has yet to be given its state."""

    value: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        if self.value is not None or type(state) is not tuple or len(state) not in (4, 5):
            raise ReadError('the pickle has an array with a malformed state')
        shape, dtype, fortran, data = state[-4:]  # a version comes before
        self.value = _array(data, dtype, shape, 'F' if fortran else 'C')


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if type(data) is list:
        raise ReadError('the pickle has an array of Python objects, not of numbers')
    if (
        not isinstance(dtype, PickledDType)
        or type(data) not in (bytes, bytearray)
        or type(shape) is not tuple
        or len(shape) > _MAX_RANK
        or not all(type(d) is int and d >= 0 for d in shape)
        or order not in ('C', 'F')
    ):
        raise ReadError('the pickle has an array with a malformed state')
    kind = np.dtype(dtype.code).newbyteorder(dtype.order)
    if prod(shape) * kind.itemsize != len(data):
        raise ReadError(f'the pickle has an array of shape {short(shape)} and type {kind} in {len(data)} bytes')
    return np.frombuffer(data, kind).reshape(shape, order=order)


def _empty_array(kind: Any, shape: Any, code: Any) -> PickledArray:
    if kind != PickledName('numpy.ndarray') or shape != (0,) or code not in (b'b', 'b'):
        raise ReadError('the pickle builds an array in an unknown way')
    return PickledArray()


def _dtype(code: Any, align: Any = False, copy: Any = True) -> PickledDType:
    if type(code) is str and code[:1] in ('O', '|'):
        raise ReadError('the pickle has an array of Python objects, not of numbers')
    if type(code) is not str or code not in _NUMBERS:
        raise ReadError(f'the pickle has an array of type {show(code)}, not of plain numbers')
    return PickledDType(code)


def _rebuild(function: Any, arguments: Any, state: Any, extra: Any = None) -> PickledArray:
    # JAX: extra says whether a type is weak. dill: attributes of a subclass of arrays, which have no place here.
    flags = {} if extra is None else extra
    known = type(flags) is dict and all(k in _FLAGS and value in (True, False, {}) for k, value in flags.items())
    if not known or function not in map(PickledName, _RECONSTRUCT) or type(arguments) is not tuple:
        raise ReadError('the pickle builds an array in an unknown way')
    array = _empty_array(*arguments)
    array.set_state(state)
    return array


def _mapping(mapping: Any = None) -> dict:
    if mapping is not None and type(mapping) is not dict:
        raise ReadError(f'the pickle makes a mapping of {kind_of(mapping)}')
    return {} if mapping is None else mapping


def _module(path: Any) -> PickledName:
    if type(path) is not str or path not in _MODULES:
        raise ReadError(f'the pickle asks for the module {show(path)}, which arrays do not need')
    return PickledName(path)


def _attribute(module: Any, name: Any) -> PickledName:
    if not isinstance(module, PickledName) or module.path not in _MODULES or type(name) is not str:
        raise ReadError(f'the pickle asks for an attribute of {kind_of(module)}')
    return known_name(f'{module.path}.{name}')


def known_name(path: str) -> PickledName:
    if path not in CALLS and path not in (ENCODE, 'numpy.ndarray'):
        raise ReadError(f'the pickle asks for {show(path)}, which is neither an array nor a mapping')
    return PickledName(path)


_NUMBERS = frozenset(f'{kind}{size}' for kind in 'fiu' for size in (1, 2, 4, 8)) - {'f1'} | {'b1'}
_CORES = tuple(f'numpy.{core}.{module}' for core in ('core', '_core') for module in ('multiarray', '_multiarray_umath'))
_MODULES = frozenset((*_CORES, '_codecs'))
_FLAGS = ('weak_type', 'named_shape')
_RECONSTRUCT = tuple(f'{core}._reconstruct' for core in _CORES)
ENCODE = '_codecs.encode'  # of texts to bytes, as protocols 0 to 2 write them: the machine counts what it makes
_HAIKU = 'haiku._src.data_structures'
CALLS: dict[str, Callable] = {
    'numpy.dtype': _dtype,
    **dict.fromkeys(_RECONSTRUCT, _empty_array),
    **dict.fromkeys([f'{core}.scalar' for core in _CORES], lambda dtype, data: _array(data, dtype, (), 'C')),
    'numpy.core.numeric._frombuffer': _array,
    'numpy._core.numeric._frombuffer': _array,
    'collections.OrderedDict': _mapping,
    **{f'{_HAIKU}.{name}': _mapping for name in ('FlatMapping', 'FlatMap', 'frozendict')},
    'jax._src.array._reconstruct_array': _rebuild,
    'jax._src.device_array.reconstruct_device_array': _rebuild,
    'dill._dill._create_array': _rebuild,
    'dill._dill._import_module': _module,
    'dill._dill._get_attr': _attribute,
}


_KINDS = dict(PickledArray='array', ndarray='array', PickledDType='array type', object='mark')


def kind_of(value: Any) -> str:
    """What a value is, without showing it: it may be endless or deeply nested."""
    if isinstance(value, PickledName):
        return f'a reference to {short(value.path)}'
    if value is None:
        return 'None'
    name = _KINDS.get(type(value).__name__, type(value).__name__)
    return f'an {name}' if name[0] in 'aeiou' else f'a {name}'


def show(value: Any) -> str:
    """A text in one line, and of anything else what it is."""
    return short(value) if type(value) is str else kind_of(value)
