"""Training steps of whole detectors, by their configs."""

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from nfnet_mm.named_configs import find_config
from nfnet_mm.training_cost import compare

from .subject import Unmeasured

# The same optimizer for all, without clipping, which the paper does not mention for COCO. The constructor keeps a
# detector's boxes in float32 under bfloat16.
_CONFIG = """\
_base_ = {base!r}
optim_wrapper = dict(
    _delete_=True, type={wrapper!r}, constructor='nfnet_mm.NFOptimWrapperConstructor', **{half!r},
    optimizer=dict(type='SGD', lr=1e-4, momentum=0.9, nesterov=True))
"""


def detector_seconds(names: Sequence[str], batch: int, size: int, dtype: str, pairs: int) -> list[list[float]]:
    """Seconds of training steps of detectors' configs, in turns, each in a process of its own.

    Args:
        names: of configs.
        batch, size, dtype: images of a step, their side in pixels, and a key of ``DTYPES``.
        pairs: steps of each.

    Raises:
        Unmeasured: mmdet is not installed, or a step failed.
    """
    if find_spec('mmdet') is None:
        raise Unmeasured('mmdet is not installed')
    half = {} if dtype == 'float32' else dict(dtype=dtype)
    if half and not torch.cuda.is_available():
        raise Unmeasured(f"mmengine's mixed precision needs a GPU, and dtype is {dtype}")
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, name in enumerate(names):
            files.append(Path(folder, f'{i}.py'))
            wrapper = 'AmpOptimWrapper' if half else 'OptimWrapper'
            base = str(find_config(name).path.resolve())
            files[-1].write_text(_CONFIG.format(base=base, wrapper=wrapper, half=half))
        results = compare([str(file) for file in files], batch, (size, size), pairs)
    for name, result in zip(names, results):
        if result.failure:
            raise Unmeasured(f'{name}: {result.failure}')
    return [result.seconds for result in results]
