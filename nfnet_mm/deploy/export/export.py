"""Write a model in a format, and hold the file against the model before it stands under its name."""

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nfnet_mm import __version__
from nfnet_mm.errors import UserError, check_positive

from ..fold import fold, is_standardised
from .detections import check_pairs
from .formats import AXES, RUNNERS, WRITERS, Job, check_format, check_opset, needed
from .graph import operators
from .outputs import stride_of

BOUND = 1e-5  # of the relative difference of an output, in the Euclidean norm


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: str
    format: str
    names: tuple[str, ...]  # of the outputs
    differences: dict[tuple[int, ...], float] = field(default_factory=dict)  # {shape of the images: relative, worst}
    operators: Counter[str] = field(default_factory=Counter)  # of an ONNX graph

    @property
    def worst(self) -> float:
        """The worst relative difference of any output at any shape."""
        return max(self.differences.values(), default=0.0)

    def __str__(self) -> str:
        if not self.differences:
            return f'{self.path}: {", ".join(self.names)} in half precision, not compared: --metric scores the file'
        shapes = ', '.join('x'.join(map(str, shape)) for shape in self.differences)
        return f'{self.path}: worst relative difference {self.worst:.1e} of {", ".join(self.names)} at {shapes}'


def check_target(path: str) -> None:
    """Say before the work what would go wrong with the file in the end.

    Raises:
        UserError: its folder does not exist or cannot be written, or it is a folder itself.
    """
    folder = os.path.dirname(path) or '.'
    if not os.path.isdir(folder):
        raise UserError(f'the folder {folder!r} to write {os.path.basename(path)!r} to does not exist')
    if os.path.isdir(path):
        raise UserError(f'{path!r} is a folder, not a file to write')
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f'the folder {folder!r} cannot be written')


def export_model(
    model: nn.Module,
    path: str | os.PathLike,
    format: str | None = None,
    opset: int | None = None,
    size: Sequence[int] = (128, 160),
    names: Sequence[str] | None = None,
    metadata: Mapping[str, str] | None = None,
    bound: float = BOUND,
) -> Exported:
    """Write a model as a file for another runtime: of images of any number and size, in plain convs.

    Standardised convs are folded first. The file is run at five shapes of images, odd and non-square ones and several
    batches among them, and stands under its name only if it agrees with the model.

    Args:
        model: takes images (N, C, H, W) in float32 and gives a tensor or several; :func:`deployed` makes one of a
            framework's model.
        path: of the file; its suffix tells the format: .onnx, .xml (OpenVINO), .pt2 (torch.export), .pt (TorchScript).
        format: 'onnx', 'openvino', 'torch' or 'torchscript', where the suffix does not tell.
        opset: of ONNX and OpenVINO files, at least 17.
        size: (height, width) of the images to trace with; the shapes to check are near it.
        names: of the outputs; by default the model's ``names``, or output0, output1, ...
        metadata: texts that the file is to hold.
        bound: of the relative difference.

    Raises:
        UserError: a package is missing, an argument is out of range, the file cannot be written, or disagrees.
    """
    path = os.fspath(path)
    kind = check_format(path, format)
    if kind == 'checkpoint':
        raise UserError(f'{path!r} is of a checkpoint; nfnet_mm.deploy.save_folded writes it')
    check_target(path)
    opset = check_opset(opset)
    for package in dict(onnx=('onnx', 'onnxruntime'), openvino=('onnx', 'openvino')).get(kind, ()):
        needed(package)
    height, width = _check_size(model, size)
    if is_standardised(model):
        model = fold(model)
    model = model.eval().cpu()
    if not getattr(model, 'in_half_precision', False):
        model = model.float()
    one_image, bound = getattr(model, 'one_image', False), max(bound, getattr(model, 'bound', 0.0))
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    images = _images(model, (1 if one_image else 2, channels, height, width))
    with torch.no_grad():
        outputs = _tensors(model(images))
    names = tuple(names or getattr(model, 'names', None) or (f'output{i}' for i in range(len(outputs))))
    if len(names) != len(outputs):
        raise UserError(f'names={names} are not those of {len(outputs)} outputs')
    axes = {'images': {axis: name for axis, name in AXES.items() if axis or not one_image}}
    axes.update(getattr(model, 'axes', None) or {name: {0: 'batch'} for name in names})
    told = {'nfnet_mm_version': __version__, **(metadata or {})}
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path) or '.', prefix='.export.') as folder:
        written = os.path.join(folder, os.path.basename(path))
        job = Job(model, images, names, told, opset, axes)
        WRITERS[kind](job, written)
        counted = operators(needed('onnx').load(written).graph) if kind == 'onnx' else Counter()
        if one_image and getattr(model, 'in_half_precision', False):
            differences = {}  # which of many near objects there are is another in each runtime
        elif one_image:
            differences = _differences_of_objects(job, os.path.basename(path), kind, bound)
        else:
            differences = _differences(model, written, kind, names, images.shape, bound)
        for file in sorted(Path(folder).iterdir()):
            os.replace(file, Path(path).with_name(file.name))
    return Exported(path, kind, names, differences, counted)


def _check_size(model: nn.Module, size: Sequence[int]) -> tuple[int, int]:
    height, width = (check_positive('size', one) for one in (size if len(size) == 2 else (*size, *size)))
    stride = stride_of(model)
    if min(height, width) < stride:
        raise UserError(f"size={height}x{width} is under the network's stride: height and width are at least {stride}")
    return height, width


def _images(model: nn.Module, shape: Sequence[int]) -> Tensor:
    """Random images of zero mean and unit variance, once the model has normalised them if it does."""
    images = torch.from_numpy(np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32))
    mean, std = getattr(model, 'mean', None), getattr(model, 'std', None)
    return images if mean is None or std is None else images * std + mean


def _tensors(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _shapes(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Five shapes of images: even, odd, non-square, of one, two and three images."""
    n, c, h, w = shape
    return [(n, c, h, w), (1, c, h + 1, w + 1), (3, c, h + 2, w + 3), (1, c, h + 17, w), (2, c, h + 6, w + 31)]


def _differences_of_objects(job: Job, file: str, kind: str, bound: float) -> dict[tuple[int, ...], float]:
    """Of a second file of a detector, that finds something in random numbers."""
    model: Any = job.model
    with tempfile.TemporaryDirectory() as folder, model.finding(job.images):
        WRITERS[kind](job, os.path.join(folder, file))
        return _differences(model, os.path.join(folder, file), kind, job.names, job.images.shape, bound)


def _differences(
    model: nn.Module, path: str, kind: str, names: Sequence[str], shape: Sequence[int], bound: float
) -> dict[tuple[int, ...], float]:
    run, found = RUNNERS[kind](path), {}
    one_image = getattr(model, 'one_image', False)
    for one in _shapes(shape):
        images = _images(model, (1, *one[1:]) if one_image else one)
        with torch.no_grad():
            expected: Any = [tensor.numpy() for tensor in _tensors(model(images))]
        worst, given = 0.0, run(images.numpy())
        if one_image:
            expected, given = check_pairs(expected, given)
        for name, ours, theirs in zip(names, expected, given, strict=True):
            if ours.shape != theirs.shape:
                raise UserError(
                    f'the {kind} file makes {theirs.shape} of images {one}, the model {ours.shape} ({name})'
                )
            norm = max(float(np.linalg.norm(ours)), 1e-30)
            difference = float(np.linalg.norm(ours - theirs)) / norm
            if not difference <= bound:
                raise UserError(
                    f'the {kind} file is {difference:.1e} from the model at {one} ({name}), over {bound:.0e}'
                )
            worst = max(worst, difference)
        found[tuple(images.shape)] = worst
    return found
