"""Networks in half precision, and how far they are from themselves in float32."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nfnet_mm.errors import UserError, did_you_mean

from .detector import ExportableDetector
from .fold import fold, is_standardised

DTYPES = dict(bf16=torch.bfloat16, fp16=torch.float16)


class HalfPrecision(nn.Module):
    """A model that computes in another precision, and takes and gives float32.

    Args:
        model: takes images (N, 3, H, W); converted as it is.
        dtype: to compute in.
    """

    in_half_precision = True
    bound = 0.02  # of the relative difference that a runtime may have which rounds elsewhere

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.model, self.dtype, self.names = model.to(dtype), dtype, getattr(model, 'names', None)
        self.eval()

    def forward(self, images: Tensor) -> Any:
        """The model's outputs, in float32."""
        return _wide(self.model(images.to(self.dtype)))


def _wide(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    return tuple(_wide(one) for one in outputs)


def half(model: nn.Module, name: str) -> nn.Module:
    """A folded copy of a model that computes in half precision; weights are standardised in float32 before.

    Of an :class:`ExportableDetector` that is the backbone and the neck: places of boxes need more than 11 bits.

    Args:
        model: a backbone, classifier, segmentor or :class:`ExportableDetector`, or what :func:`deployed` makes of one;
            folded or not.
        name: 'bf16' or 'fp16'.

    Returns: a module that takes images (N, 3, H, W) and gives what the model gives, both in float32.

    Raises:
        UserError: no such precision.

    Example:
        >>> from nfnet_mm.models import NFNet
        >>> net, x = NFNet('nano').eval(), torch.randn(1, 3, 64, 64)
        >>> worst_difference(half(net, 'bf16')(x), net(x)) < 0.03
        True
    """
    if name not in DTYPES:
        raise UserError(f'half={name!r} is none of {", ".join(DTYPES)}.{did_you_mean(name, DTYPES)}')
    model = fold(model) if is_standardised(model) else copy.deepcopy(model).eval()
    net: Any = model
    detectors = [part for part in model.modules() if isinstance(part, ExportableDetector)]
    for detector in detectors:
        detector.compute_in(DTYPES[name])
        net.in_half_precision = True
    return model if detectors else HalfPrecision(model, DTYPES[name])


def worst_difference(found: Any, expected: Any) -> float:
    """The largest of the outputs' differences, each relative to the norm of what was expected of it.

    >>> worst_difference((torch.tensor([3.0, 4.0]),), (torch.tensor([3.0, 5.0]),)) == 1 / 34**0.5
    True
    """
    pairs = [(one.double(), other.double()) for one, other in zip(_flat(found), _flat(expected))]
    return max(float((one - other).norm() / other.norm().clamp(min=1e-30)) for one, other in pairs)


def _flat(outputs: Any) -> Sequence[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [one for part in outputs for one in _flat(part)]
