"""Parameters and multiply-adds of every variant, counted without computing anything."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones.arch import FAMILIES, Network, resolve_arch
from nfnet_mm.models.backbones.plan import NFArch
from nfnet_mm.recipes import setting
from nfnet_mm.registry import MODELS

try:
    from torch.utils.flop_counter import flop_registry
except ImportError:  # before torch 2.2, whose formulas take shapes
    from torch.utils.flop_counter import flop_mapping, get_shape  # type: ignore[attr-defined]

    def _of_shapes(formula: Callable[..., int], *args: Any, out_val: Any, **kwargs: Any) -> int:
        args, kwargs, out_shape = tree_map(get_shape, (args, kwargs, out_val))
        return formula(*args, **kwargs, out_shape=out_shape)

    flop_registry = {name: functools.partial(_of_shapes, formula) for name, formula in flop_mapping.items()}

CLASSES = 1000


@dataclass(frozen=True)
class Cost:
    """What a classifier costs."""

    parameters: int
    macs: int  # multiply-adds of the convs and linear layers for one image; "FLOPs" in the papers and in OpenMMLab


def cost(family: str, arch: str | NFArch, size: int | None = None) -> Cost:
    """What a classifier of 1000 classes costs, counted on the meta device; the papers' baselines too.

    Args:
        family: a key of ``FAMILIES``.
        arch: a variant of it.
        size: of the square image, in pixels; by default a network of the table has its test size.

    Example:
        >>> cost('NFNet', 'F0')
        Cost(parameters=71489284, macs=12384198656)
    """
    row = resolve_arch(family, arch)
    if size is None:
        if arch not in FAMILIES[family][1]:
            raise UserError(f'{family} arch={arch!r} is no key of the table: give the size of the image')
        size = setting(Network(family, str(arch))).test_size
    return _cost(family, row, size)


@functools.cache
def _cost(family: str, row: NFArch, size: int) -> Cost:
    # All blocks of a stage but the first are alike, so two of each are enough.
    short = dataclasses.replace(row, depths=tuple(min(depth, 2) for depth in row.depths))
    with torch.device('meta'):
        # Activations count nothing, and would take a third of the time.
        cfg = dict(type=f'nfnet_mm.{family}', arch=short, act='identity', out_indices=(0, 1, 2, 3, 4))
        net = MODELS.build(cfg)
        image = torch.empty(1, 3, size, size)
    parameters, (macs, outs) = _parameters(net), _macs(net.eval(), image)
    for depth, stage, out in zip(row.depths, net.stages, outs):
        if depth > 2:
            block = stage.get_submodule('1')
            parameters += (depth - 2) * _parameters(block)
            macs += (depth - 2) * _macs(block, out)[0]
    features = net.out_channels[-1]
    return Cost(parameters + (features + 1) * CLASSES, macs + features * CLASSES)


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _macs(module: nn.Module, x: torch.Tensor) -> tuple[int, Any]:
    with MacCounter() as counter, torch.no_grad():
        out = module(x)
    return counter.macs, out


class MacCounter(TorchDispatchMode):
    """Counts as ``FlopCounterMode`` does, several times faster: that takes every elementwise operation apart."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        flops = flop_registry.get(func._overloadpacket)
        if flops is not None:
            self.macs += flops(*args, **kwargs, out_val=out) // 2
        return out
