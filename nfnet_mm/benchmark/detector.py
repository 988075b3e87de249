"""Training steps of whole detectors, by their configs."""

import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch

from nfnet_mm.named_configs import find_config

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
    if dtype != 'float32' and not torch.cuda.is_available():
        raise Unmeasured(f"mmengine's mixed precision needs a GPU, and dtype is {dtype}")
    from nfnet_mm.training_cost import compare  # which needs a newer torch than all else here

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f'{i}.py') for i in range(len(names))]
        for name, file in zip(names, files):
            file.write_text(config_text(name, dtype))
        results = compare([str(file) for file in files], batch, (size, size), pairs)
    for name, result in zip(names, results):
        if result.failure:
            raise Unmeasured(f'{name}: {result.failure}')
    return [result.seconds for result in results]


def config_text(name: str, dtype: str) -> str:
    """A config that inherits one and has the optimizer that all are measured with."""
    base = str(find_config(name).path.resolve())
    if dtype == 'float32':
        return _CONFIG.format(base=base, wrapper='OptimWrapper', half={})
    return _CONFIG.format(base=base, wrapper='AmpOptimWrapper', half=dict(dtype=dtype))
