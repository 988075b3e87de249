"""Which block's variance leaves the plan before a network is trained, and what usually causes it.

Each block is held against what the plan makes of its own input, so that the one with the mistake is named and not all
behind it. Zeros at borders are no mistake: convs pad circularly here. Numbers that follow from the plan (gains, beta,
alpha) are compared as they are.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nfnet_mm.errors import UserError, short
from nfnet_mm.models.backbones import BlockSpec
from nfnet_mm.models.backbones.base import NFBackbone
from nfnet_mm.models.layers import WSConv2d, activation_gain, avg_pool2d_same

from .predicted import activated_variance, branch_variance, standardised_power
from .signal_blocks import Seen, circular_padding, find_blocks, in_mode, open_branches, undisturbed, watched
from .signal_propagation import channel_statistics, signal_propagation

# A branch, or a shortcut, may be off by this factor: a choice, wider than what random weights of narrow networks do.
TOLERANCE = 1.35
_EXACT = 0.01  # of numbers that the plan states
_NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True)
class Finding:
    """A place that leaves the plan: what is seen there, and what usually causes that."""

    block: str
    seen: str
    cause: str

    def __str__(self) -> str:
        return f'{self.block}: {self.seen}; {self.cause}'


def check_signal(backbone: nn.Module, images: Tensor) -> list[Finding]:
    """Hold a normalizer-free backbone with random weights against its plan; another against explosion and vanishing.

    The backbone is as it was afterwards.

    Args:
        backbone: freshly built.
        images: (N, 3, H, W) of N(0, 1); 16 of 64 px are enough.

    Returns:
        one finding for each place that leaves the plan, in order; none where all is as planned.

    Raises:
        UserError: it does not run on such images.
    """
    if not isinstance(backbone, NFBackbone):
        return list(_foreign(backbone, images))
    blocks, found = find_blocks(backbone), list(_stem(backbone))

    def observe(seen: Seen) -> None:
        found.extend(_block(backbone, seen))

    def inside(block: Any) -> list[str]:
        return [name for name, module in block.module.named_children() if not isinstance(module, nn.ModuleList)]

    with undisturbed(backbone), open_branches(backbone), circular_padding(backbone), watched(blocks, observe, inside):
        try:
            backbone(images.to(next(backbone.parameters()).device))
        except UserError:
            raise
        except Exception as error:  # of a block that a user wrote
            raise UserError(f'{type(backbone).__name__} does not run: {short(error)}') from error
    return found


def _block(backbone: NFBackbone, seen: Seen) -> Iterator[Finding]:
    """What is wrong in a block: by its numbers, by its variances, in training."""
    spec, module = seen.block.spec, seen.block.module
    assert spec is not None
    act, gain = backbone.act, backbone.act_gain
    active = act(seen.x)
    entering = (gain * spec.beta) ** 2 * channel_statistics(active)[1]
    shortcut = seen.output('conv_shortcut') if spec.transition else seen.x
    said: list[str] = []
    causes = [*_structure(backbone, spec, module)]
    if shortcut is None or shortcut.shape != seen.y.shape:
        shortcut, said = seen.y, [*said, 'its shortcut cannot be told from its branch']
    if spec.transition and shortcut is not seen.y:
        pooled = avg_pool2d_same(active, spec.stride) if spec.arch.shortcut_pool and spec.stride > 1 else active
        expected = (gain * spec.beta) ** 2 * channel_statistics(pooled)[1] * standardised_power(spec, spec.in_channels)
        said += _off('its shortcut', channel_statistics(shortcut)[1], expected)
    branch = channel_statistics(seen.y - shortcut)[1] / spec.alpha**2
    ratio = branch / (branch_variance(spec, act, gain, entering) or math.nan)
    off = _off('its branch', ratio, 1.0)
    said += off
    causes += list(_activations(backbone, seen))
    if off and not causes:
        causes.append(_guess(spec, module, ratio))
    dropped = _drop_path(seen, shortcut)
    if dropped is not None and abs(dropped - 1) > 1e-3:
        said.append(f'in training its branch is {dropped:.3g} times that of evaluation')
        keep = 1 - getattr(module, 'drop_path_rate', spec.drop_path_rate)
        usual = abs(dropped * keep - 1) < 1e-2
        causes.append(
            'stochastic depth divides what it keeps by the probability to keep it: normalizer-free networks do not'
            if usual
            else 'something in it acts in training only'
        )
    if said or causes:
        yield Finding(
            seen.block.name,
            ', '.join(said) or 'its numbers are not those of the plan',
            '; '.join(dict.fromkeys(causes)) or 'see what its convs read and what multiplies its branch',
        )


def _off(what: str, measured: float, expected: float) -> list[str]:
    """In words, if a variance is not what it should be."""
    ratio = measured / (expected or math.nan)
    if ratio == ratio and 1 / TOLERANCE < ratio < TOLERANCE:
        return []
    return [f'the variance of {what} is {ratio:.3g} times the planned one']


def _structure(backbone: NFBackbone, spec: BlockSpec, module: nn.Module) -> Iterator[str]:
    """What differs from the plan in a block's modules and numbers."""
    gain = backbone.act_gain
    for name, one in module.named_modules():
        if name.startswith('attention'):
            continue
        if isinstance(one, _NORMS):
            yield f'{name} ({type(one).__name__}) normalises what alpha and beta already scale: leave it out'
        elif isinstance(one, nn.modules.conv._ConvNd) and not isinstance(one, WSConv2d):
            kind = f'{name} ({type(one).__name__}) has no scaled weight standardisation'
            yield f'{kind}, so that nothing keeps its output at unit variance: make it a WSConv2d'
        elif isinstance(one, WSConv2d):
            yield from _scale(backbone, spec, name, one)
    act = getattr(module, 'act', backbone.act)
    if act is not backbone.act and not _same_function(act, backbone.act):
        try:
            needed = f'{activation_gain(act):.4g}'
        except UserError:
            needed = 'another gain'
        said = f'its activation is not that of the plan and needs the gain {needed}, not {gain:.4g}'
        yield f'{said}: give act to the backbone'
    alpha = getattr(module, 'alpha', spec.alpha)
    if isinstance(alpha, (int, float)) and abs(alpha / spec.alpha - 1) > _EXACT:
        yield f'its alpha is {alpha:.4g}, and the betas of the blocks behind it were planned with {spec.alpha:.4g}'


def _same_function(one: Any, other: Any) -> bool:
    x = torch.linspace(-4, 4, 401)
    with torch.no_grad():
        return torch.allclose(one(x), other(x), atol=1e-3)


def _scale(backbone: NFBackbone, spec: BlockSpec, name: str, conv: WSConv2d) -> Iterator[str]:
    """What is wrong with the constants of a standardised conv."""
    gain = backbone.act_gain
    reads_input = name in ('conv0', 'conv_shortcut')
    planned = gain * spec.beta if reads_input else gain
    if name.startswith('conv') and abs(conv.input_scale / planned - 1) > _EXACT:
        beta = spec.beta if reads_input else 1.0
        if abs(spec.beta - 1) > _EXACT and reads_input and abs(conv.input_scale / gain - 1) < _EXACT:
            yield f'{name} scales what it reads by gamma alone, {gain:.4g}: beta, {spec.beta:.4g}, is left out'
        else:
            yield (
                f'{name} scales what it reads by {conv.input_scale / beta:.4g} and not by gamma = {gain:.4g}: '
                'the gain is of another activation, as after act was changed'
            )
    size = float(conv.gain.detach().double().square().mean()) ** 0.5
    if size == 0:
        yield f'the gains of {name} are zero, so that its branch gives nothing'
    elif abs(size - 1) > 0.05:
        yield f'the gains of {name} are {size:.3g} and not 1, as in weights that were trained or are of another dialect'
    if conv.dialect != spec.arch.dialect:
        yield f'{name} standardises in the dialect {conv.dialect!r}, the network in {spec.arch.dialect!r}'


def _activations(backbone: NFBackbone, seen: Seen) -> Iterator[str]:
    """Whether each conv of the branch reads the activation of what the conv before it gave, once."""
    before = seen.x
    for name in ('conv0', 'conv1', 'conv1b', 'conv2'):
        if name not in seen.calls or not seen.calls[name].inputs:
            continue
        read, act = seen.calls[name].inputs[0], backbone.act
        inside = name == 'conv2' and seen.block.spec is not None and seen.block.spec.arch.inverted_bottleneck
        top, left = ((r - b) // 2 for r, b in zip(read.shape[-2:], before.shape[-2:]))  # that circular padding added
        if min(top, left) >= 0 and read.shape[:2] == before.shape[:2] and not (inside and 'attention' in seen.calls):
            read = read[..., top : top + before.shape[-2], left : left + before.shape[-1]]
            once = act(before)
            if not torch.allclose(read, once, atol=1e-4) and torch.allclose(read, act(once), atol=1e-4):
                yield f'{name} reads an activation of an activation'
            elif not torch.allclose(read, once, atol=1e-4) and torch.allclose(read, before, atol=1e-4):
                yield f'{name} reads its input without an activation'
        output = seen.output(name)
        before = before if output is None else output


def _guess(spec: BlockSpec, module: nn.Module, ratio: float) -> str:
    """What usually causes a branch to be off by such a factor, where nothing else is to be seen."""
    if spec.arch.attention is not None and 0.15 < ratio < 0.4:
        return 'attention halves the signal: its gate is usually to be multiplied by 2'
    if spec.arch.attention is not None and 2.5 < ratio < 6:
        return 'usually the factor 2 of attention, which is there twice'
    if ratio < 1e-6:
        return 'its branch gives nothing: usually a gate that begins at zero beside the SkipInit scalar'
    name = type(module).__name__
    return (
        f'usually a factor too many or too few in what {name} multiplies its branch by, or a gain of another activation'
    )


def _drop_path(seen: Seen, shortcut: Tensor) -> float | None:
    """By what training multiplies a branch that stochastic depth keeps; None if it cannot be told, or drops none."""
    module, spec = seen.block.module, seen.block.spec
    if spec is None or not getattr(module, 'drop_path_rate', spec.drop_path_rate):
        return None
    still = [one for one in module.modules() if not isinstance(one, _BatchNorm)]
    x, shortcut, y = seen.x[:4], shortcut[:4], seen.y[:4]
    try:
        for one in still:
            one.training = True
        trained = module.forward(x) - shortcut
    finally:
        for one in still:
            one.training = False
    sizes = torch.linalg.vector_norm(trained.flatten(1), dim=1) / torch.linalg.vector_norm(
        (y - shortcut).flatten(1), dim=1
    )
    kept = sizes[sizes > 1e-3]
    return float(kept.max()) if len(kept) else None


def _stem(backbone: NFBackbone) -> Iterator[Finding]:
    """What is wrong with the constants before the first stage, and with the network's own activation."""
    causes = []
    for i in range(backbone.stem.num_convs):
        conv, planned = backbone.stem.get_submodule(f'conv{i}'), backbone.act_gain
        if i == 0 and not backbone.arch.gain_in_conv:
            planned = 1.0
        if not isinstance(conv, WSConv2d):
            causes.append(f'conv{i} ({type(conv).__name__}) has no scaled weight standardisation: make it a WSConv2d')
        elif abs(conv.input_scale / planned - 1) > _EXACT:
            causes.append(f'conv{i} scales what it reads by {conv.input_scale:.4g} and not by {planned:.4g}')
    if causes:
        yield Finding('stem', 'its numbers are not those of the plan', '; '.join(causes))
    variance = activated_variance(backbone.act, 1.0) * backbone.act_gain**2
    if abs(variance - 1) > 2 * _EXACT:
        needed = f'{variance**-0.5 * backbone.act_gain:.4g}'
        cause = f'the gain is {backbone.act_gain:.4g} and its activation needs {needed}, as after act was changed'
        yield Finding('act', f'a scaled activation has the variance {variance:.3g} and not 1', cause)


def _foreign(backbone: nn.Module, images: Tensor) -> Iterator[Finding]:
    """Blocks where the variance of a network without a plan explodes or vanishes."""
    with in_mode(backbone, True), open_branches(backbone):  # averages are none yet
        rows = signal_propagation(backbone, images)
    before = rows[0].avg_var
    for row in rows:
        if not math.isfinite(row.avg_var) or row.avg_var > 1e3 * before or row.avg_var < 1e-3 * before:
            cause = 'usually a network without normalisation whose weights begin at the wrong scale'
            yield Finding(
                row.block, f'the variance goes from {before:.3g} at the first block to {row.avg_var:.3g}', cause
            )
            return
