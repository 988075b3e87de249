"""Read and write the safetensors format: the length of a JSON header, the header, the tensors' bytes.

https://github.com/huggingface/safetensors#format. Done here because the package must not need another package for it,
and because the reader has to hold every length in the header against the file before it allocates anything.
"""

import json
import os
from collections.abc import Mapping
from io import BufferedReader
from math import prod
from typing import Any, BinaryIO

import torch
from torch import Tensor

from nfnet_mm.errors import short

from ..errors import ReadError

_MAX_HEADER = 16 << 20  # bytes; NFNet-F6 takes 0.2 MB
_FLOATS = dict(F64=torch.float64, F32=torch.float32, F16=torch.float16, BF16=torch.bfloat16)
_WHOLE = dict(I64=torch.int64, I32=torch.int32, I16=torch.int16, I8=torch.int8, U8=torch.uint8, BOOL=torch.bool)
_DTYPES = {**_FLOATS, **_WHOLE}


def read_safetensors(file: BufferedReader) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file opened for binary reading, and its metadata.

    Raises:
        ReadError: the header is too long, malformed, or does not fit the bytes that follow it.
    """
    size = file.seek(0, os.SEEK_END) - 8
    file.seek(0)
    length = int.from_bytes(file.read(8), 'little')
    if length > min(size, _MAX_HEADER):
        raise ReadError(f'the safetensors header states a length of {length} bytes, {size} are there')
    try:
        header = json.loads(file.read(length), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ReadError(f'the safetensors header is malformed: {short(error)}') from None
    meta = header.pop('__metadata__', {})
    if type(meta) is not dict or not all(type(v) is str for v in meta.values()):
        raise ReadError('the safetensors metadata are not texts')
    spans = sorted(((*_span(name, entry), name) for name, entry in header.items()), key=lambda span: span[:2])
    at, end = 0, size - length
    for start, stop, *_, name in spans:
        if start != at or stop > end:
            raise ReadError(f'the bytes of {short(name)} do not follow the ones before it, or are not in the file')
        at = stop
    if at != end:
        raise ReadError(f'the safetensors file is cut off or too long: {end} bytes of tensors, {at} in the header')
    tensors = {}
    for start, stop, dtype, shape, name in spans:
        data = bytearray(stop - start)
        file.readinto(data)
        tensors[name] = torch.frombuffer(data, dtype=dtype).reshape(shape)
    return {name: tensors[name] for name in header}, meta


def write_safetensors(tensors: Mapping[str, Tensor], meta: Mapping[str, str], file: BinaryIO) -> None:
    """Write dense tensors and texts to a file opened for binary writing."""
    names = {dtype: name for name, dtype in _DTYPES.items()}
    header: dict[str, dict[str, Any]] = {'__metadata__': {'format': 'pt', **meta}}
    at = 0
    for name, tensor in tensors.items():
        stop = at + tensor.numel() * tensor.element_size()
        header[name] = {'dtype': names[tensor.dtype], 'shape': list(tensor.shape), 'data_offsets': [at, stop]}
        at = stop
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)  # so that the tensors are aligned
    file.write(len(text).to_bytes(8, 'little') + text)
    for tensor in tensors.values():
        file.write(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError('a name comes twice')
    return made


def _span(name: str, entry: Any) -> tuple[int, int, torch.dtype, list[int]]:
    """(first byte, byte after the last, type, shape) of one entry of the header."""
    entry = entry if type(entry) is dict else {}
    dtype, shape, offsets = _DTYPES.get(str(entry.get('dtype'))), entry.get('shape'), entry.get('data_offsets')
    if dtype is None or not _sizes(shape) or len(shape) > 8 or not _sizes(offsets) or len(offsets) != 2:
        raise ReadError(f'the safetensors header does not describe {short(name)}')
    start, stop = offsets
    if stop - start != prod(shape) * dtype.itemsize or stop == start:
        raise ReadError(f'{short(name)} has the shape {short(tuple(shape))} in {stop - start} bytes')
    return start, stop, dtype, shape


def _sizes(values: Any) -> bool:
    return type(values) is list and all(type(v) is int and 0 <= v < 1 << 62 for v in values)
