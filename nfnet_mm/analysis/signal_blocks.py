"""The residual blocks of a backbone, ours or another package's, and what is seen of each in a forward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones import BlockSpec, plan_blocks
from nfnet_mm.models.backbones.base import Backbone, NFBackbone
from nfnet_mm.models.backbones.block import NFBlock
from nfnet_mm.models.layers import SameConv2d, WSConv2d

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_DROPPED = ('Dropout', 'DropPath', 'StochasticDepth', 'DropBlock')
# Ends of the branch of a ResNet's block, the last that it has: ours, torchvision's, the OpenMMLab packages'.
_ENDS = ('norm3', 'bn3', 'norm2', 'bn2')


@dataclass
class Block:
    """One block: where it is, and its place in the plan if the network has one."""

    name: str
    stage: int
    index: int  # in its stage
    module: nn.Module
    spec: BlockSpec | None = None


@dataclass
class Call:
    """A call of a module."""

    inputs: tuple[Any, ...]
    options: dict[str, Any]
    output: Any


@dataclass
class Seen:
    """What a block read and gave, and the calls of the modules in it that were asked for, by name."""

    block: Block
    x: Tensor
    y: Tensor
    calls: dict[str, Call] = field(default_factory=dict)

    def output(self, name: str) -> Tensor | None:
        """What a module in it gave; None if it was not called."""
        return tensor_of(self.calls[name].output) if name in self.calls else None


def tensor_of(value: Any) -> Tensor | None:
    """The first tensor of what a module takes or gives, which may be in tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return value
    values = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return next((found for one in values if (found := tensor_of(one)) is not None), None)


def find_blocks(backbone: nn.Module) -> list[Block]:
    """The residual blocks of a backbone, in order.

    Of one of ours those of its plan; of another the innermost modules in lists or sequences that hold two weights or
    more: the bottlenecks of a ResNet, the blocks of a transformer.

    Raises:
        UserError: it has none.

    Example:
        >>> from nfnet_mm.models.backbones import NFNet
        >>> [block.name for block in find_blocks(NFNet('nano'))]
        ['stages.0.0', 'stages.1.0', 'stages.2.0', 'stages.3.0']
    """
    if isinstance(backbone, Backbone):
        alpha = backbone.alpha if isinstance(backbone, NFBackbone) else 1.0
        plan = plan_blocks(backbone.arch, alpha, backbone.drop_path_rate, backbone.strides, backbone.dilations)
        return [
            Block(f'stages.{spec.stage}.{spec.index}', spec.stage, spec.index, one, spec)
            for spec in plan[: sum(map(len, backbone.stages))]  # type: ignore[arg-type]
            for one in [backbone.stages[spec.stage][spec.index]]  # type: ignore[index]
        ]
    found = list(_foreign(backbone, ''))
    if not found:
        what = 'has no blocks: no module in a list or sequence that holds two convs or linear layers'
        raise UserError(f'{type(backbone).__name__} {what}')
    stages: dict[str, int] = {}
    blocks: list[Block] = []
    for name, module in found:
        stage = stages.setdefault(name.rpartition('.')[0], len(stages))
        blocks.append(Block(name, stage, sum(one.stage == stage for one in blocks), module))
    return blocks


def _foreign(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        inside = list(_foreign(child, f'{prefix}{name}.'))
        composite = not isinstance(child, (nn.Sequential, nn.ModuleList)) and _weights(child) > 1
        if not inside and composite and isinstance(module, (nn.Sequential, nn.ModuleList)):
            inside = [(f'{prefix}{name}', child)]
        yield from inside


def _weights(module: nn.Module) -> int:
    return sum(isinstance(one, _WEIGHTED) for one in module.modules())


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """All modules in training mode, or in evaluation, and each as it was afterwards.

    ``train()`` would not do: under ``norm_eval`` it leaves BatchNorms in evaluation.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = training
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run a model without a trace: no gradients, dropout or stochastic depth; averages, mode and RNG restored after.

    BatchNorm does as the mode of the model says: in training mode it takes the batch's statistics, in eval mode its
    averages.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    averages = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    training = [norm for norm in norms if norm.training]
    devices = sorted({p.device.index for p in model.parameters() if p.is_cuda and p.device.index is not None})
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices), in_mode(model, False):
            for norm in training:
                norm.training = True
            yield
    finally:
        with torch.no_grad():
            for buffer, value in averages:
                buffer.copy_(value)


@contextmanager
def open_branches(model: nn.Module) -> Iterator[None]:
    """Let SkipInit scalars, and gains of last convs and BatchNorms that begin at zero, be 1, as the papers plan it.

    What is not zero stays as it is; all is as before in the end.
    """
    closed = []
    for module in model.modules():
        skip = getattr(module, 'skip_gain', None)
        closed += [skip] if isinstance(skip, Tensor) and not skip.any() else []
        last = getattr(module, 'conv2', None)
        if skip is None and isinstance(module, NFBlock) and isinstance(last, WSConv2d) and not last.gain.any():
            closed.append(last.gain)
        if isinstance(module, _BatchNorm) and module.weight is not None and not module.weight.any():
            closed.append(module.weight)  # zero_init_residual
    with torch.no_grad():
        for one in closed:
            one.fill_(1)
        try:
            yield
        finally:
            for one in closed:
                one.zero_()


@contextmanager
def circular_padding(model: nn.Module) -> Iterator[None]:
    """Let convs pad with the other side of the image in place of zeros, which take variance away at the borders.

    How far a network is from its plan is then to be seen in images of any size. Those of the papers' baselines, which
    have no plan, pad as ever.
    """

    def pad(conv: nn.Conv2d, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, *others = inputs
        for axis, (kernel, stride, dilation) in enumerate(zip(conv.kernel_size, conv.stride, conv.dilation), -2):
            size = x.shape[axis]
            reach = (kernel - 1) * dilation
            length = (-(-size // stride) - 1) * stride + reach + 1
            before = max(length - size, 0) // 2
            places = (torch.arange(length, device=x.device) - before) % size
            x = x.index_select(axis, places)
        return x, *others

    with ExitStack() as stack:
        for conv in model.modules():
            if isinstance(conv, nn.Conv2d) and max(conv.kernel_size) > 1 and not isinstance(conv, SameConv2d):
                kept = {name: getattr(conv, name) for name in ('padding', 'pad_same') if hasattr(conv, name)}
                stack.callback(vars(conv).update, kept)
                conv.padding = (0, 0)
                if 'pad_same' in kept:
                    conv.pad_same = False  # type: ignore[assignment]
                stack.callback(conv.register_forward_pre_hook(pad).remove)
        yield


@contextmanager
def watched(
    blocks: Sequence[Block], observe: Callable[[Seen], None], inside: Callable[[Block], Sequence[str]]
) -> Iterator[None]:
    """Call ``observe`` with what is seen of each block, as it has been run; nothing is kept after that.

    Args:
        blocks: of one model.
        observe: what to do.
        inside: the names of the modules in a block whose calls are to be seen.
    """
    with ExitStack() as stack:
        for block in blocks:
            _watch(block, observe, inside(block), stack)
        yield


def _watch(block: Block, observe: Callable[[Seen], None], names: Sequence[str], stack: ExitStack) -> None:
    calls: dict[str, Call] = {}
    read: list[Tensor] = []
    foreign = block.spec is None  # whose operations may write over what they read

    def begin(module: nn.Module, inputs: Any, options: Any) -> None:
        calls.clear()
        x = tensor_of((inputs, options))
        read[:] = [] if x is None else [x.clone() if foreign else x]

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, options: Any, output: Any) -> None:
            calls[name] = Call(inputs, options, output.clone() if foreign and isinstance(output, Tensor) else output)

        return hook

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        y = tensor_of(output)
        if read and y is not None:
            observe(Seen(block, read[0], y, dict(calls)))
        calls.clear()
        read.clear()

    stack.callback(block.module.register_forward_pre_hook(begin, with_kwargs=True).remove)
    for name in names:
        module = block.module.get_submodule(name)
        stack.callback(module.register_forward_hook(note(name), with_kwargs=True).remove)
    stack.callback(block.module.register_forward_hook(end).remove)


def branch_names(block: Block) -> list[str]:
    """The modules in a block that its residual branch, and the shortcut, are told from."""
    children = dict(block.module.named_children())
    names = [name for name in ('attention', 'conv_shortcut') if name in children]
    if block.spec is not None:
        post = block.spec.arch.method == 'bn' and not block.spec.arch.preact
        return [*names, 'bn2' if post else 'conv2']
    ends = [name for name in (_end_of(block.module, one) for one in _ENDS) if name is not None]
    plugins = [name for name in children if name == 'after_conv3_plugins' or name == 'drop_path']
    return [*names, *ends[:1], *plugins]


def _end_of(module: nn.Module, name: str) -> str | None:
    """The name of a child that is called so, or that an attribute of that name is, as in mmdet's ResNets."""
    if not hasattr(module, 'downsample') and not hasattr(module, 'shortcut'):
        return None
    one = getattr(module, name, None)
    return next((child for child, found in module.named_children() if found is one), None) if one is not None else None


def branch_of(seen: Seen) -> Tensor | None:
    """The end of the residual branch, before what scales it (alpha, SkipInit); None if it cannot be told.

    That is behind attention, and behind FixUp's scale, as in the authors' code.
    """
    block, spec = seen.block, seen.block.spec
    if spec is None:
        for name in reversed(branch_names(block)):
            if (found := seen.output(name)) is not None and found.shape == seen.y.shape:
                return found
        return seen.y - seen.x if seen.x.shape == seen.y.shape else None
    out = seen.output('bn2') if 'bn2' in seen.calls else seen.output('conv2')
    if out is None:
        return None
    if spec.arch.method == 'nf':
        call = seen.calls['conv2']
        scale = call.options.get('scale')
        if scale is not None and float(scale) == 0:  # a SkipInit scalar of zero in the conv
            out = block.module.conv2.forward(*call.inputs)  # type: ignore[union-attr, operator]
        elif scale is not None:
            out = out / scale
    if spec.arch.method == 'fixup':
        out = out * block.module.scale  # type: ignore[operator]
    gate = seen.output('attention')
    if gate is not None and not (spec.arch.method == 'nf' and spec.arch.inverted_bottleneck):
        out = out * gate * (2 if spec.arch.method == 'nf' else 1)
    return out
