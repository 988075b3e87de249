"""The formats: how a model is written in each, and how such a file is run."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nfnet_mm.errors import UserError, did_you_mean, is_integer, short

from .graph import check_graph

SUFFIXES = {'.onnx': 'onnx', '.xml': 'openvino', '.pt2': 'torch', '.pt': 'torchscript', '.pth': 'checkpoint'}
OLDEST_OPSET, DEFAULT_OPSET = 17, 20  # from 20 on GELU is one operator
AXES = {0: 'batch', 2: 'height', 3: 'width'}  # that are free
METADATA_FILE = 'nfnet_mm.json'  # inside torch's files

Run = Callable[[np.ndarray], Sequence[np.ndarray]]


class Job(NamedTuple):
    """What to write: a model in evaluation, images (N, C, H, W) to trace it with, names, and what is told of it."""

    model: nn.Module
    images: Tensor
    names: Sequence[str]
    metadata: Mapping[str, str]
    opset: int
    axes: Mapping[str, Mapping[int, str]]  # that are free


def check_format(path: str, name: str | None) -> str:
    """The format that is asked for by name, or told from the path's suffix.

    Raises:
        UserError: it is unknown.
    """
    known = {one: suffix for suffix, one in SUFFIXES.items()}
    if name is None:
        suffix = Path(path).suffix
        if suffix not in SUFFIXES:
            told = ', '.join(f'{suffix} ({one})' for suffix, one in SUFFIXES.items())
            raise UserError(f'{path!r} tells no format by its suffix: it is one of {told}, or name it with --format')
        return SUFFIXES[suffix]
    if name not in known:
        raise UserError(f'format={name!r} is not one of {", ".join(known)}.{did_you_mean(name, known)}')
    if name == 'openvino' and Path(path).suffix != '.xml':
        raise UserError(f'{path!r} must end in .xml: OpenVINO keeps the weights beside it, in a .bin of its name')
    return name


def newest_opset() -> int:
    """The newest opset that this torch's exporter writes."""
    constants = import_module('torch.onnx._constants')
    return getattr(constants, 'ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET', None) or constants.ONNX_MAX_OPSET


def check_opset(opset: int | None) -> int:
    """The opset of the ONNX standard to write; by default the newest that this torch writes, up to 20.

    Raises:
        UserError: it is too old, or unknown to this torch.
    """
    newest = newest_opset()
    if opset is None:
        return min(DEFAULT_OPSET, newest)
    if not is_integer(opset) or not OLDEST_OPSET <= opset <= newest:
        raise UserError(
            f'opset={opset!r} must be from {OLDEST_OPSET} to {newest}, which torch {torch.__version__} writes'
        )
    return int(opset)


def needed(package: str) -> Any:
    """An optional package.

    Raises:
        UserError: it is missing; the message says what installs it.
    """
    try:
        return import_module(package)
    except ImportError as error:
        how = 'pip install "nfnet_mm[export]"'
        raise UserError(f'{package} is needed for this export and cannot be imported ({short(error)}): {how}') from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings that shapes are traced, which is meant."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        yield


def write_onnx(job: Job, path: str) -> None:
    """By tracing: the exporter by torch.export takes a minute for what this one does in a second (torch 2.11)."""
    onnx = needed('onnx')
    options: dict[str, Any] = dict(dynamo=False) if 'dynamo' in torch.onnx.export.__code__.co_varnames else {}
    with _quiet():
        torch.onnx.export(
            job.model,
            (job.images,),
            path,
            opset_version=job.opset,
            input_names=['images'],
            output_names=list(job.names),
            dynamic_axes=job.axes,
            **options,
        )
    model = onnx.load(path)
    _without_identities(model.graph)
    onnx.helper.set_model_props(model, dict(job.metadata))
    onnx.checker.check_model(model)
    check_graph(model.graph)
    onnx.save(model, path)


def _without_identities(graph: Any) -> None:
    """Let nodes read a weight itself, where the exporter has one stand for several that are equal."""
    weights = {one.name for one in graph.initializer}
    same = {node.output[0]: node.input[0] for node in graph.node if node.op_type == 'Identity'}
    same = {name: source for name, source in same.items() if source in weights}
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    kept = [node for node in graph.node if not (node.op_type == 'Identity' and node.output[0] in same)]
    del graph.node[:]
    graph.node.extend(kept)


def write_openvino(job: Job, path: str) -> None:
    """From the ONNX graph; the weights stay in float32."""
    openvino = needed('openvino')
    between = f'{path}.onnx'
    write_onnx(job, between)
    model = openvino.convert_model(between)
    for key, value in job.metadata.items():
        model.set_rt_info(value, ['nfnet_mm', key])
    openvino.save_model(model, path, compress_to_fp16=False)
    Path(between).unlink()


def write_torchscript(job: Job, path: str) -> None:
    """By tracing."""
    with _quiet():
        torch.jit.save(
            torch.jit.trace(job.model, job.images, check_trace=False),
            path,
            _extra_files={METADATA_FILE: json.dumps(dict(job.metadata))},
        )


def write_torch(job: Job, path: str) -> None:
    """By torch.export."""
    if len(job.axes['images']) < len(AXES):
        raise UserError(
            'format torch is not for detectors, whose outputs differ in number: onnx, openvino or torchscript'
        )
    dim: Any = getattr(getattr(torch, 'export', None), 'Dim', None)
    if not hasattr(dim, 'DYNAMIC'):
        raise UserError(f'format torch needs torch >= 2.6, this is {torch.__version__}; torchscript works with any')
    with _quiet():
        shapes = (dict.fromkeys(job.axes['images'], dim.DYNAMIC),)
        program = torch.export.export(job.model, (job.images,), dynamic_shapes=shapes, strict=False)
        torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(dict(job.metadata))})


def run_onnx(path: str) -> Run:
    """In onnxruntime on the CPU."""
    ort = needed('onnxruntime')
    session = ort.InferenceSession(path, providers=['CPUExecutionProvider'])
    return lambda images: session.run(None, {'images': images})


def run_openvino(path: str) -> Run:
    """In OpenVINO on the CPU, in float32."""
    openvino = needed('openvino')
    model = openvino.Core().compile_model(path, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})

    def run(images: np.ndarray) -> Sequence[np.ndarray]:
        found = model(images)
        return [found[i] for i in range(len(model.outputs))]

    return run


def _arrays(outputs: Any) -> Sequence[np.ndarray]:
    return [one.detach().numpy() for one in ([outputs] if isinstance(outputs, Tensor) else outputs)]


def run_torchscript(path: str) -> Run:
    """In torch, from the file alone."""
    model = torch.jit.load(path)
    return lambda images: _arrays(model(torch.from_numpy(images)))


def run_torch(path: str) -> Run:
    """In torch, from the file alone."""
    model = torch.export.load(path).module()
    return lambda images: _arrays(model(torch.from_numpy(images)))


WRITERS = dict(onnx=write_onnx, openvino=write_openvino, torch=write_torch, torchscript=write_torchscript)
RUNNERS: dict[str, Callable[[str], Run]] = dict(
    onnx=run_onnx, openvino=run_openvino, torch=run_torch, torchscript=run_torchscript
)
