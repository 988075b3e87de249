"""Read the arrays of a pickle without unpickling it.

A pickle is a program for a small stack machine; Python's own machine imports what the program names and calls it.
This one knows the few instructions that build mappings, lists and numbers, and takes a name only as a name: what is
"called" is looked up in a table of our own functions that know nothing but arrays and mappings, and whatever is not
in that table is refused by name. Nothing is imported, no code of the file or of JAX, Haiku or dill is run, and an
array never gets larger than the bytes the file holds for it.

The table covers what these write for trees of arrays: NumPy 1 and 2, JAX 0.2 (which writes NumPy arrays) up to 0.10,
Haiku's flat maps, and dill, which refers to NumPy's functions by way of functions of its own.
"""

import os
import pickletools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np

from nfnet_mm.errors import short

from ..errors import ReadError, malformed
from .stand_ins import CALLS, ENCODE, PickledArray, PickledDType, PickledName, kind_of, known_name

_MAX_INSTRUCTIONS = 2_000_000  # the largest NFNet takes under 100,000
_MAX_DEPTH = 50_000  # of the stack: a dict's items wait on it, a thousand at a time
_MARK = object()


def read_pickled_tree(file: BinaryIO) -> dict[str, dict[str, np.ndarray]]:
    """The two-level mapping {module: {name: array}} of a pickle.

    Args:
        file: opened for binary reading, at the start of the pickle, which has to fill the rest.

    Returns:
        The mapping; its arrays are views of the bytes read, so they cannot be written to.

    Raises:
        ReadError: the pickle is cut off or malformed, needs anything but arrays and mappings, or is no such tree.

    Example:
        >>> import io, pickle
        >>> read_pickled_tree(io.BytesIO(pickle.dumps({'net/~/conv': {'gain': np.ones(2, np.float32)}})))
        {'net/~/conv': {'gain': array([1., 1.], dtype=float32)}}
        >>> read_pickled_tree(io.BytesIO(pickle.dumps({'net': exec})))
        Traceback (most recent call last):
        ...
        nfnet_mm.converters.errors.ReadError: the pickle asks for builtins.exec, which is neither an array nor a mapping
    """
    reader = Bounded(file)
    tree = _Machine(reader.size).run(reader)
    if reader.left:
        raise ReadError(f'{reader.left} bytes follow the end of the pickle')
    return _check_tree(tree, reader.size)


def _check_tree(tree: Any, size: int) -> dict[str, dict[str, np.ndarray]]:
    if not isinstance(tree, dict):
        raise ReadError(f'the pickle holds {kind_of(tree)}, not a mapping')
    checked: dict[str, dict[str, np.ndarray]] = {}
    total = 0
    for module, leaves in tree.items():
        if not isinstance(leaves, dict):
            raise ReadError(f'{short(module)} is {kind_of(leaves)}, not a mapping of arrays')
        checked[module] = {}
        for name, leaf in leaves.items():
            leaf = leaf.value if isinstance(leaf, PickledArray) else np.asarray(leaf) if type(leaf) is float else leaf
            if not isinstance(leaf, np.ndarray):
                raise ReadError(f'{short(module)}|{short(name)} is {kind_of(leaf)}, not an array')
            checked[module][name] = leaf
            total += max(leaf.nbytes, 1)
            if total > size:  # one array under many names, which copying would multiply
                raise ReadError(f'the arrays up to {short(module)}|{short(name)} take more bytes than the file has')
    return checked


class Bounded:
    """A file of which never more is asked than it holds, whatever length an instruction states."""

    def __init__(self, file: BinaryIO):
        self._file, start = file, file.tell()
        self.left = self.size = file.seek(0, os.SEEK_END) - start
        file.seek(start)

    def read(self, count: int) -> bytes:
        if count > self.left:
            raise ReadError(f'the pickle is cut off: {count} more bytes are due, {self.left} are there')
        self.left -= count
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline()
        self.left -= len(line)
        return line

    def tell(self) -> int:
        return self.size - self.left

    def instructions(self) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
        """Those of the next pickle in it, each with its argument and place."""
        return pickletools.genops(self)  # type: ignore[arg-type]  # which needs no more of a file than is above


class _Machine:
    """Runs the instructions that build data; every other is an error."""

    def __init__(self, size: int):
        self.stack: list = []
        self.memo: dict[int, Any] = {}
        self.spare = size  # bytes that texts may be encoded to, in all

    def run(self, reader: Bounded) -> Any:
        with malformed('the pickle is malformed'):
            for count, (opcode, argument, _) in enumerate(reader.instructions()):
                if count > _MAX_INSTRUCTIONS or len(self.stack) > _MAX_DEPTH:
                    raise ReadError("the pickle is far longer or deeper than a network's weights")
                if opcode.name in _STEPS:
                    _STEPS[opcode.name](self, argument)
                elif opcode.name not in ('PROTO', 'FRAME', 'STOP'):
                    shown = opcode.name if argument is None else f'{opcode.name} {short(argument)}'
                    raise ReadError(f'the pickle uses the instruction {shown}, which no tree of arrays needs')
            return self.stack.pop()

    def _since_mark(self) -> list:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ReadError('the pickle is malformed: no mark on its stack')
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _tuple(self, size: int) -> None:
        if len(self.stack) < size:
            raise ReadError('the pickle is malformed: its stack is too short')
        items = tuple(self.stack[len(self.stack) - size :])
        del self.stack[len(self.stack) - size :]
        self.stack.append(items)

    def _set(self, items: list) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise ReadError(f'the pickle sets items of {kind_of(target)}')
        for key, value in zip(items[::2], items[1::2]):
            if type(key) is not str:
                raise ReadError(f'the pickle has a mapping with {kind_of(key)} for a key')
            if key in target:
                raise ReadError(f'the pickle sets {short(key)} twice')
            target[key] = value

    def _dict(self, items: list) -> None:
        self.stack.append({})
        self._set(items)

    def _extend(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise ReadError(f'the pickle appends to {kind_of(self.stack[-1])}')
        self.stack[-1].extend(items)

    def _stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise ReadError('the pickle names a global by something else than text')
        self.stack.append(known_name(f'{module}.{name}'))

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, PickledName) or type(arguments) is not tuple:
            raise ReadError(f'the pickle calls {kind_of(function)}, not a function by its name')
        if function.path != ENCODE and function.path not in CALLS:
            raise ReadError(f'the pickle calls {function.path}, which is not a function')
        call = self._encode if function.path == ENCODE else CALLS[function.path]
        self.stack.append(call(*arguments))

    def _encode(self, text: Any, encoding: Any) -> bytes:
        if type(text) is not str or encoding != 'latin1':
            raise ReadError('the pickle encodes text in an unknown way')
        self.spare -= len(text)
        if self.spare < 0:
            raise ReadError('the pickle makes more bytes than the file has')
        return text.encode('latin1')

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, (PickledDType, PickledArray)):
            raise ReadError(f'the pickle sets the state of {kind_of(target)}')
        target.set_state(state)


_NUMBERS = ('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'FLOAT', 'BINFLOAT')
_TEXTS = ('UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8')
_BYTES = ('BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8')
_STEPS: dict[str, Callable] = {
    **dict.fromkeys((*_NUMBERS, *_TEXTS, *_BYTES), lambda m, value: m.stack.append(value)),
    'NONE': lambda m, _: m.stack.append(None),
    'NEWTRUE': lambda m, _: m.stack.append(True),
    'NEWFALSE': lambda m, _: m.stack.append(False),
    'MARK': lambda m, _: m.stack.append(_MARK),
    'EMPTY_DICT': lambda m, _: m.stack.append({}),
    'EMPTY_LIST': lambda m, _: m.stack.append([]),
    'EMPTY_TUPLE': lambda m, _: m.stack.append(()),
    'DICT': lambda m, _: m._dict(m._since_mark()),
    'LIST': lambda m, _: m.stack.append(m._since_mark()),
    'TUPLE': lambda m, _: m.stack.append(tuple(m._since_mark())),
    'TUPLE1': lambda m, _: m._tuple(1),
    'TUPLE2': lambda m, _: m._tuple(2),
    'TUPLE3': lambda m, _: m._tuple(3),
    'SETITEM': lambda m, _: m._set([m.stack.pop(-2), m.stack.pop()]),
    'SETITEMS': lambda m, _: m._set(m._since_mark()),
    'APPEND': lambda m, _: m._extend([m.stack.pop()]),
    'APPENDS': lambda m, _: m._extend(m._since_mark()),
    **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT'), lambda m, i: m.memo.__setitem__(i, m.stack[-1])),
    **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), lambda m, i: m.stack.append(m.memo[i])),
    'MEMOIZE': lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    'GLOBAL': lambda m, name: m.stack.append(known_name(name.replace(' ', '.', 1))),
    'STACK_GLOBAL': lambda m, _: m._stack_name(),
    'REDUCE': lambda m, _: m._call(),
    'BUILD': lambda m, _: m._build(),
}
