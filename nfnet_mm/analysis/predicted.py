"""The variance of a network's signal, block by block, as it follows from the plan of its blocks: no weights, no images.

NF-ResNets, section 4, plans it: a block adds alpha^2, the first of a stage begins again at 1
(:attr:`~nfnet_mm.models.backbones.BlockSpec.out_variance`). That takes every branch to keep unit variance. The same
calculation goes on here where that does not hold: behind average pooling in a shortcut, which leaves a part of the
variance only; with SkipInit scalars that are not one; where the input of an activation is not at unit variance.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch

from nfnet_mm.models.backbones import BlockSpec
from nfnet_mm.models.layers.activations import Activation

_TIMM_EPS = 1e-5  # of timm's weight standardisation, which so leaves 1 / (1 + eps * fan-in) of the variance


def activated_variance(act: Activation, variance: float) -> float:
    """The variance of ``act(x)`` for x ~ N(0, variance).

    Example:
        >>> round(activated_variance(torch.relu, 2.0), 4), round(1 - 1 / torch.pi, 4)
        (0.6817, 0.6817)
    """
    z = torch.linspace(-9, 9, 9001, dtype=torch.float64)
    density = torch.exp(-z * z / 2)
    density /= density.sum()
    with torch.no_grad():
        try:
            y = act(z * variance**0.5)
        except RuntimeError:  # a callable with float32 parameters of its own
            y = act((z * variance**0.5).float()).double()
    return float((density * y * y).sum() - (density * y).sum() ** 2)


class Predicted(NamedTuple):
    """What a block's output, and the end of its branch before alpha and the SkipInit scalar, should have."""

    variance: float
    res_variance: float


def branch_fan_ins(spec: BlockSpec) -> list[int]:
    """Of the convs of a block's branch, in order."""
    inside = 9 * spec.width // spec.groups
    return [spec.in_channels, inside, *([inside] if spec.arch.extra_conv else []), spec.width]


def standardised_power(spec: BlockSpec, fan_in: int) -> float:
    """The sum of squares of a standardised kernel at initialisation, without its gain: 1, or timm's eps less."""
    return 1 / (1 + _TIMM_EPS * fan_in) if spec.arch.dialect == 'timm' else 1.0


def branch_variance(spec: BlockSpec, act: Activation, gain: float, entering: float) -> float:
    """The variance at the end of a normalizer-free block's branch, before alpha and the SkipInit scalar.

    Each standardised conv keeps the variance of what it reads; each scaled activation that of a unit Gaussian.
    Attention is taken to halve the signal, and its factor 2 to double it again.

    Args:
        spec: the block.
        act: its activation.
        gain: the gain that the activation should have.
        entering: variance of what its first conv reads, gain and beta included.
    """
    first, *others = branch_fan_ins(spec)
    variance = entering * standardised_power(spec, first)
    for fan_in in others:
        variance = gain**2 * activated_variance(act, variance) * standardised_power(spec, fan_in)
    return variance


def entering_variance(spec: BlockSpec, act: Activation, gain: float, variance: float) -> float:
    """The variance of beta * gamma * act(x) for a block's input x ~ N(0, variance): what its first convs read."""
    return (gain * spec.beta) ** 2 * activated_variance(act, variance)


def predict(
    plan: Sequence[BlockSpec],
    act: Activation,
    gain: float,
    first: float = 1.0,
    shares: Sequence[float] | None = None,
    scalars: Iterable[float] | None = None,
) -> Iterator[Predicted]:
    """What the blocks of a normalizer-free network should have at initialisation.

    Args:
        plan: its blocks.
        act: its activation.
        gain: of the activation.
        first: variance of the scaled activation of the first block's input; 1 for an image at unit variance.
        shares: of each block, what pooling in its shortcut leaves of the variance: 1 without, 1 / stride^2 for images
            of noise (pixels that have nothing to do with each other), more for others.
        scalars: of each block, the scalar that multiplies its branch beside alpha; 1 by default, as the papers plan.

    Example:
        >>> from nfnet_mm.models.backbones.arch import resolve_arch
        >>> from nfnet_mm.models.backbones import plan_blocks
        >>> from nfnet_mm.models.layers.activations import activation_gain, get_activation
        >>> plan = plan_blocks(resolve_arch('NFResNet', '26'))
        >>> found = predict(plan, get_activation('relu'), activation_gain('relu'))
        >>> [(round(one.variance, 2), round(spec.out_variance, 2)) for one, spec in zip(found, plan)][:4]
        [(1.04, 1.04), (1.08, 1.08), (1.04, 1.04), (1.08, 1.08)]
    """
    shares = [1.0] * len(plan) if shares is None else shares
    scalars = [1.0] * len(plan) if scalars is None else scalars
    variance = 1.0
    for i, (spec, share, scalar) in enumerate(zip(plan, shares, scalars)):
        entering = entering_variance(spec, act, gain, variance) if i else first
        branch = branch_variance(spec, act, gain, entering)
        shortcut = entering * share * standardised_power(spec, spec.in_channels) if spec.transition else variance
        variance = shortcut + (spec.alpha * scalar) ** 2 * branch
        yield Predicted(variance, branch)
