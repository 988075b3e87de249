"""A detector as an ONNX file, whose height and width are free, and what it finds beside what torch finds."""

import tempfile
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from nfnet_mm.errors import UserError, is_integer, write_atomically

from .detector import ExportableDetector
from .optional import optional

OLDEST, NEWEST = 17, 20  # opsets; the newest that torch's exporter by tracing writes


def export_detector(
    net: ExportableDetector, target: str, opset: int = OLDEST, size: tuple[int, int] = (128, 160)
) -> None:
    """Write a detector as ONNX: images (1, 3, H, W) in, and what it returns out, by the names of its ``outputs``.

    There is one picture in a batch: the number of objects differs from picture to picture.

    Args:
        net: of a folded detector, best.
        target: the file to write, whole or not at all.
        opset: of the operators.
        size: height and width of the picture that the network is traced with.

    Raises:
        UserError: an opset that cannot be had, a missing package, or nowhere to write.
    """
    if not is_integer(opset) or not OLDEST <= opset <= NEWEST:
        raise UserError(f'opset={opset!r} must be an integer from {OLDEST} to {NEWEST}')
    optional('onnx')
    options: dict[str, Any] = dict(dynamo=False) if 'dynamo' in torch.onnx.export.__code__.co_varnames else {}
    axes = {name: {0: 'objects'} for name in net.outputs}
    if net.with_mask and net.paste:
        axes['masks'] = {0: 'objects', 1: 'height', 2: 'width'}
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter('ignore')  # that sizes are constants, of those that are
        images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        torch.onnx.export(
            net,
            (images,),
            f'{folder}/detector.onnx',
            opset_version=opset,
            input_names=['images'],
            output_names=list(net.outputs),
            dynamic_axes={'images': {2: 'height', 3: 'width'}, **axes},
            **options,
        )
        content = Path(folder, 'detector.onnx').read_bytes()
    write_atomically(target, partial(_write, content=content))


def _write(file: BinaryIO, content: bytes) -> None:
    file.write(content)


class OnnxDetector:
    """An exported detector in onnxruntime, on the CPU.

    Args:
        path: the file.
        threads: how many to compute with; by default as many as there are cores.
    """

    def __init__(self, path: str, threads: int = 0):
        runtime = optional('onnxruntime')
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = runtime.InferenceSession(path, options, providers=['CPUExecutionProvider'])

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """What is found in a picture (1, 3, H, W), as of :class:`ExportableDetector`."""
        return tuple(map(torch.from_numpy, self.session.run(None, {'images': np.ascontiguousarray(images.numpy())})))


def compare_detections(found: Sequence[Tensor], expected: Sequence[Tensor]) -> dict[str, float]:
    """How far two runtimes' objects of one picture lie apart.

    Objects are pairs if they have one label, and are each other's nearest box. Near a threshold a rounding error
    decides whether there is an object; those are counted, and not compared.

    Returns: ``unpaired``, how many there are in only one of the two; and the largest difference of the pairs' ``boxes``
    (in pixels), ``scores`` and, if there are any, ``masks``.

    Example:
        >>> box, score, label = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([0.5]), torch.tensor([1])
        >>> compare_detections((box + 0.25, score, label), (box, score, label))
        {'unpaired': 0, 'boxes': 0.25, 'scores': 0.0}
    """
    far = (found[0][:, None] - expected[0]).abs().amax(-1).masked_fill(found[2][:, None] != expected[2], float('inf'))
    pairs = []
    if far.numel():
        nearest, back = far.argmin(1), far.argmin(0)
        pairs = [(i, int(j)) for i, j in enumerate(nearest) if back[j] == i and far[i, j] < float('inf')]
    mine, theirs = [i for i, _ in pairs], [j for _, j in pairs]
    told: dict[str, float] = dict(unpaired=far.shape[0] + far.shape[1] - 2 * len(pairs))
    for name, one, other in zip(('boxes', 'scores', 'labels', 'masks'), found, expected):
        if name != 'labels':
            told[name] = float((one[mine] - other[theirs]).abs().max()) if pairs else 0.0
    return told
