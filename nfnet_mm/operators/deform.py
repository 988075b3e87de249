"""Deformable convs (Dai et al., 2017; with a mask: Zhu et al., 2019) by torchvision's operator.

One difference is taken out: at a place exactly one pixel outside the image, as the offsets of a new layer make them,
torchvision gives the offset a gradient and mmcv gives it none.
"""

from collections.abc import Sequence

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from nfnet_mm.errors import UserError

from .precision import widen

Pair = tuple[int, int]  # height, width


def _forward(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, layout: Sequence[int]
) -> Tensor:
    """``layout``: strides, paddings and dilations (height, width each), groups, groups of the offsets."""
    input, weight, offset = widen(input), widen(weight), widen(offset)
    bias = input.new_zeros(len(weight)) if bias is None else widen(bias)
    some = input.new_zeros(len(input), 1) if mask is None else widen(mask)
    conv = torch.ops.torchvision.deform_conv2d
    return conv(input, weight, offset, some, bias, *layout, mask is not None)


def _backward(
    grad: Tensor, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, layout: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of input, weight, offset, mask and bias."""
    grad, input, weight, offset = (widen(t).contiguous() for t in (grad, input, weight, offset))
    some = input.new_zeros(len(input), 1) if mask is None else widen(mask).contiguous()
    found = torch.ops.torchvision._deform_conv2d_backward(
        grad, input, weight, offset, some, input.new_zeros(len(weight)), *layout, mask is not None
    )
    kernel: Pair = (weight.shape[2], weight.shape[3])
    outside = _one_pixel_outside(offset, kernel, layout)
    return (*found[:2], found[2].masked_fill(outside, 0), *found[3:])


def _one_pixel_outside(offset: Tensor, kernel: Pair, layout: Sequence[int]) -> Tensor:
    """Where a place lies exactly at row or column -1: a mask of the offsets' shape, both coordinates alike."""
    split = offset.unflatten(1, (-1, *kernel, 2))  # (N, groups, kernel height, kernel width, 2, height, width)
    places = []
    for axis in (0, 1):
        stride, padding, dilation = (layout[i + axis] for i in (0, 2, 4))
        first = torch.arange(split.shape[5 + axis], device=offset.device) * stride - padding
        first = first[:, None] if axis == 0 else first
        tap = torch.arange(kernel[axis], device=offset.device) * dilation
        tap = tap.view(-1, 1, 1, 1) if axis == 0 else tap.view(-1, 1, 1)
        places.append((first + tap) + split[:, :, :, :, axis])
    outside = (places[0] == -1) | (places[1] == -1)
    return outside.unsqueeze(4).expand(split.shape).reshape(offset.shape)


def _as_read(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Offsets or a mask of the (height, width) of the output.

    mmcv reads larger ones, such as mmdet's DyHead gives of another level, as if they were of that size: each image's
    numbers from the first on, in the order of its memory.
    """
    if tensor.shape[2:] == torch.Size(size):
        return tensor
    images, channels = tensor.shape[:2]
    needed, there = channels * size[0] * size[1], tensor[0].numel()
    if needed > there:
        what = f'offsets or a mask of {tuple(tensor.shape[2:])} for an output of {tuple(size)}'
        raise UserError(f'modulated_deform_conv: {what}, past the end of which mmcv would read')
    return tensor.contiguous().view(images, there)[:, :needed].view(images, channels, *size)


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """A conv that reads each tap of its kernel at an offset.

    Args:
        input: (N, C, H, W).
        weight: (O, C / group, kH, kW).
        offset: (N, deformable_group * 2 kH kW, H', W'), y before x.
        output: (N, O, H', W'), receives the result.
        columns: unused.
        ones: unused.
        kW, kH: the kernel.
        dW, dH: strides.
        padW, padH: zeros around the input.
        dilationW, dilationH: steps between taps.
        group: groups of channels.
        deformable_group: groups of channels that share offsets.
        im2col_step: unused.
    """
    layout = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_forward(input, weight, offset, None, None, layout))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Add to the input's gradient, and write the offset's; arguments as in the forward function."""
    layout = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    found = _backward(gradOutput, input, weight, offset, None, layout)
    gradInput.add_(found[0])
    gradOffset.copy_(found[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the weight's gradient to ``gradWeight``; arguments as in the forward function."""
    layout = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    found = _backward(gradOutput, input, torch.zeros_like(gradWeight), offset, None, layout)
    gradWeight.add_(found[1], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """As :func:`deform_conv_forward`, with each tap multiplied by a mask.

    Args:
        input: (N, C, H, W).
        weight: (O, C / group, kernel_h, kernel_w).
        bias: (O,) if ``with_bias``.
        ones: unused.
        offset: (N, deformable_group * 2 kernel_h kernel_w, H', W').
        mask: (N, deformable_group * kernel_h kernel_w, H', W').
        output: (N, O, H', W'), receives the result.
        columns: unused.
        kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w: as in a conv.
        group: groups of channels.
        deformable_group: groups of channels that share offsets and mask.
        with_bias: whether there is a bias.
    """
    layout = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    offset, mask = (_as_read(tensor, output.shape[2:]) for tensor in (offset, mask))
    output.copy_(_forward(input, weight, offset, mask, bias if with_bias else None, layout))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Add to the gradients of input, weight and bias, and write those of offset and mask."""
    layout = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    size = grad_output.shape[2:]
    found = _backward(grad_output, input, weight, _as_read(offset, size), _as_read(mask, size), layout)
    grad_input.add_(found[0])
    grad_weight.add_(found[1])
    for gradient, part in ((grad_offset, found[2]), (grad_mask, found[3])):
        unread = gradient[0].numel() - part[0].numel()
        gradient.copy_(torch.nn.functional.pad(part.flatten(1), (0, unread)).view(gradient.shape))
    if with_bias:
        grad_bias.add_(found[4])
