"""A conv with scaled weight standardisation, which keeps little for its backward pass."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import _global_forward_pre_hooks

from nfnet_mm.errors import UserError

from .activations import Activation, is_named
from .convolution import conv_backward, conv_forward
from .padding import cut_same, pad_same
from .precision import autocast, autocast_dtype
from .standardize import (
    DIALECTS,
    as_rows,
    differentiable,
    differentiated_otherwise,
    like,
    needs_plain_operations,
    standardize_rows,
    standardize_rows_again,
    standardize_rows_backward,
    standardize_weight,
    wide_dtype,
)

PADDINGS = ('same', 'symmetric')


class Recompute(NamedTuple):
    """How a conv's input came about, so that it is computed again in the backward pass and not kept till then."""

    function: Activation
    source: Tensor
    result: Tensor  # function(source); an input that is another, as a subclass of the conv may make it, is kept


def conv_of_activation(
    conv: nn.Module,
    act: Activation,
    x: Tensor,
    recompute: bool,
    active: Tensor | None = None,
    scale: Tensor | float | None = None,
) -> Tensor:
    """``conv(act(x))``, in whose backward pass a standardised conv runs ``act`` again instead of keeping its output.

    It does if ``recompute`` says so; and where it would keep a padded copy, unless ``act`` is a caller's own, which
    might be random. Not if there is a forward pre-hook. ``active``: ``act(x)``, where it is known. ``scale`` multiplies
    the output, of a standardised conv for free.
    """
    active = act(x) if active is None else active
    if isinstance(conv, WSConv2d):
        kwargs: dict[str, Any] = {} if scale is None else dict(scale=scale)
        hooked = conv._forward_pre_hooks or _global_forward_pre_hooks  # which may change in place what the conv reads
        if not hooked and not needs_plain_operations() and (recompute or (conv.pad_same and is_named(act))):
            kwargs['recompute'] = Recompute(act, x, active)
        return conv(active, **kwargs)
    out = conv(active)  # one that was put in its place
    return out if scale is None else out * scale


class WSConv2d(nn.Conv2d):
    """Conv with scaled weight standardisation, a learned gain per output channel and an input scale for free.

    For the backward pass it keeps its input and two numbers per output channel; the standardised weight (but on a GPU
    under autocast) and a padded copy of the input are made again.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups: as in ``nn.Conv2d``, square only.
        input_scale: a constant that multiplies the input (gamma * beta of the activation that this conv reads, for
            instance); it is folded into the weights and costs no pass over the input.
        dialect: ``'authors'`` or ``'timm'``, see :func:`standardize_weight`.
        padding: ``'same'`` (TensorFlow's rule, as the authors') or ``'symmetric'`` (timm's).
        gain_init: initial value of the gain.

    Parameters: ``weight`` (O, I / groups, k, k), ``gain`` (O,), ``bias`` (O,).

    Shape: (N, I, H, W) -> (N, O, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        input_scale: float = 1.0,
        dialect: str = 'authors',
        padding: str = 'same',
        gain_init: float = 1.0,
    ):
        if dialect not in DIALECTS:
            raise UserError(f'dialect={dialect!r} is not one of {DIALECTS}')
        if padding not in PADDINGS:
            raise UserError(f'padding={padding!r} is not one of {PADDINGS}')
        # With stride 1 and an odd kernel both rules are the same fixed padding, known here and now.
        both = dilation * (kernel_size - 1) // 2
        super().__init__(in_channels, out_channels, kernel_size, stride, both, dilation, groups)
        self.pad_same = padding == 'same' and (stride > 1 or kernel_size % 2 == 0)
        self.dialect = dialect
        self.input_scale = input_scale
        self.gain = nn.Parameter(torch.full((out_channels,), float(gain_init)))

    def reset_parameters(self) -> None:
        """Weights from N(0, 1 / fan-in), bias zero (authors' code)."""
        nn.init.normal_(self.weight, std=self.weight[0].numel() ** -0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def standardized_weight(self, scale: Tensor | float = 1.0) -> Tensor:
        """The (O, I / groups, k, k) weight that the conv really applies; ``scale`` multiplies it for free."""
        return self._standardized(self.weight, self.gain * scale)

    def forward(self, x: Tensor, scale: Tensor | float | None = None, recompute: Recompute | None = None) -> Tensor:
        """The conv of ``x``.

        Args:
            x: (N, I, H, W).
            scale: a number or 0-d tensor that multiplies the whole output through gain and bias.
            recompute: what ``x`` was computed by, to be so again in the backward pass: ``x`` need not be kept then.
        """
        gain: Tensor = self.gain
        bias: Tensor | None = self.bias
        if scale is not None:
            gain, bias = gain * scale, bias if bias is None else bias * scale
        if needs_plain_operations() or x.dim() == 3:  # without a batch, as nn.Conv2d takes it, too
            return self._plain(x, self.weight, gain, bias)
        function = source = None
        if recompute is not None and recompute.result is x:
            function, source, _ = recompute
        return _WSConv.apply(x, self.weight, gain, bias, self, function, source)

    def _plain(self, x: Tensor, weight: Tensor, gain: Tensor, bias: Tensor | None) -> Tensor:
        """The conv in operations that can be differentiated at will."""
        x, padding = self.padded(x)
        weight = self._standardized(weight, gain)
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def _standardized(self, weight: Tensor, gain: Tensor) -> Tensor:
        return standardize_weight(weight, gain.to(wide_dtype(weight.dtype)) * self.input_scale, self.dialect)

    def padded(self, x: Tensor) -> tuple[Tensor, Sequence[int] | str]:
        """What to give to ``F.conv2d``: the input, padded if need be, and the padding that is left to do."""
        if self.pad_same:
            return pad_same(x, self.kernel_size[0], self.stride[0], self.dilation[0])
        return x, self.padding

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, input_scale={self.input_scale:.6g}, dialect={self.dialect}'


class _WSConv(torch.autograd.Function):
    """``WSConv2d._plain``, keeping its input, or what that is computed from, and two numbers per row of the weight."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        gain: Tensor,
        bias: Tensor | None,
        conv: WSConv2d,
        function: Activation | None,
        source: Tensor | None,
    ) -> Tensor:
        device = x.device.type
        ctx.cast = None if x.dtype == torch.float64 else autocast_dtype(device)
        ctx.conv, ctx.function = conv, function
        with autocast(device, None):
            standardized, mean, inverse, cast_bias = standardize_rows(
                as_rows(weight), gain, bias, conv.input_scale, conv.dialect, ctx.cast or weight.dtype, reuse=True
            )
            # On a GPU a copy in half precision is cheap beside the activations of a batch, and a launch is not.
            kept = standardized if ctx.cast and device == 'cuda' else None
            ctx.save_for_backward(x if function is None else source, weight, gain, bias, mean, inverse, kept)
            kernel = like(standardized, weight)
            x, padding = conv.padded(x.to(ctx.cast) if ctx.cast else x)
            return conv_forward(x, kernel, cast_bias, conv.stride, padding, conv.dilation, conv.groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        conv: WSConv2d = ctx.conv
        x, weight, gain, bias, mean, inverse, standardized = ctx.saved_tensors
        needed = ctx.needs_input_grad[:4]
        device = x.device.type
        with autocast(device, ctx.cast):
            if ctx.function is not None:
                x = ctx.function(x)
            if differentiated_otherwise(grad):
                return *differentiable(conv._plain, (x, weight, gain, bias), needed, grad), None, None, None
        of_kernel_needed = needed[1] or needed[2]
        of_weight = of_gain = None
        with autocast(device, None):
            rows, scale = as_rows(weight), conv.input_scale
            if standardized is None or standardized.dtype != grad.dtype:
                standardized = standardize_rows_again(rows, gain, scale, mean, inverse, grad.dtype, reuse=True)
            kernel = like(standardized, weight)
            padded, padding = conv.padded(x.to(grad.dtype))
            settings = conv.stride, padding, conv.dilation, conv.groups
            asked = (needed[0], of_kernel_needed, needed[3])
            of_x, of_kernel, of_bias = conv_backward(grad, padded, kernel, settings, asked)
            if of_kernel_needed:
                of_rows = as_rows(_laid_out(of_kernel, weight))
                cast = of_bias if needed[3] and bias.dtype == gain.dtype else None
                of_rows, of_gain, cast = standardize_rows_backward(
                    of_rows, rows, gain, cast, scale, mean, inverse, conv.dialect, reuse=True
                )
                of_bias = of_bias if cast is None else cast
                of_weight = like(of_rows, weight)
                if weight.is_contiguous():  # strides of a pointwise kernel differ in name only, but data parallel warns
                    of_weight = of_weight.as_strided(weight.shape, weight.stride())
        if needed[0]:
            of_x = cut_same(of_x, x, conv.kernel_size[0], conv.stride[0], conv.dilation[0]).to(x.dtype)
        if needed[3]:
            of_bias = of_bias.to(bias.dtype)
        return of_x, of_weight, of_gain, of_bias, None, None, None


def _laid_out(grad: Tensor, weight: Tensor) -> Tensor:
    """A gradient in the memory layout of its weight."""
    return grad.contiguous(memory_format=torch.contiguous_format if weight.is_contiguous() else torch.channels_last)
