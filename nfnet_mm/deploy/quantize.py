"""Eight-bit integers: an ONNX file's convs and matrix products quantised after training, by pictures."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nfnet_mm.errors import UserError, check_exists, did_you_mean, write_atomically

from .export.formats import needed

OPERATORS = ('Conv', 'MatMul', 'Gemm')
# Where scales stand that a runtime makes use of. onnxruntime has a conv of integers only between two of them, and is
# quicker with a zero point; OpenVINO computes the activation that follows within the conv, and wants none between.
RUNTIMES: dict[str, dict[str, Any]] = dict(
    onnxruntime={}, openvino=dict(OpTypesToExcludeOutputQuantization=list(OPERATORS), ActivationSymmetric=True)
)


def quantize(source: str, target: str, batches: Iterable[np.ndarray], runtime: str = 'openvino') -> None:
    """Write a copy of an ONNX file with 8-bit integers: weights by output channel, activations by what pictures show.

    The scales stand in the graph as QuantizeLinear and DequantizeLinear, which every runtime computes rightly; which
    is faster for them is told by ``runtime``. Of detectors what selects boxes stays as it is.

    Args:
        source: the file, in float32, with an input named 'images'.
        target: the file to write, whole or not at all.
        batches: (N, 3, H, W) float32, normalised, as the network takes them.
        runtime: 'onnxruntime' or 'openvino', for which the scales are placed.

    Raises:
        UserError: no such file or runtime, no pictures, a missing package, or nowhere to write.
    """
    if runtime not in RUNTIMES:
        raise UserError(f'runtime={runtime!r} is none of {", ".join(RUNTIMES)}.{did_you_mean(runtime, RUNTIMES)}')
    check_exists(source, 'ONNX file')
    quantization = needed('onnxruntime.quantization')
    prepare = needed('onnxruntime.quantization.shape_inference').quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        left: Iterator[np.ndarray] = iter(batches)
        count = 0

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.left, None)
            self.count += batch is not None
            return None if batch is None else dict(images=batch)

    reader = Reader()
    kinds = quantization.QuantType
    with tempfile.TemporaryDirectory() as folder:
        prepared, written = f'{folder}/prepared.onnx', f'{folder}/int8.onnx'
        try:
            prepare(source, prepared, skip_symbolic_shape=True)
            quantization.quantize_static(
                prepared,
                written,
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=kinds.QInt8 if runtime == 'openvino' else kinds.QUInt8,
                weight_type=kinds.QInt8,
                op_types_to_quantize=list(OPERATORS),
                extra_options=RUNTIMES[runtime],
            )
        except ValueError:
            if reader.count:
                raise
            raise UserError('no pictures to calibrate with') from None
        content = Path(written).read_bytes()
        write_atomically(target, lambda file: file.write(content))
