"""Multi-scale deformable attention (Zhu et al., 2021), which mmcv computes by an operator on accelerators only."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .precision import widen


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Weighted sums of values at real places of several feature maps.

    Args:
        value: (N, S, M, D): S positions of all maps, M heads of D channels.
        value_spatial_shapes: (L, 2) heights and widths of the maps.
        value_level_start_index: unused: the maps follow one another.
        sampling_locations: (N, Q, M, L, P, 2) places x, y from 0 to 1; values outside a map are zero.
        attention_weights: (N, Q, M, L, P).
        im2col_step: unused.

    Returns: (N, Q, M * D).
    """
    return _attend(widen(value), value_spatial_shapes, widen(sampling_locations), widen(attention_weights)).to(value)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Add the gradients to those of the values, places and weights; the rest as in the forward function."""
    inputs = [widen(t).detach().requires_grad_() for t in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = _attend(inputs[0], value_spatial_shapes, inputs[1], inputs[2])
    found = torch.autograd.grad(output, inputs, widen(grad_output))
    for grad, one in zip((grad_value, grad_sampling_loc, grad_attn_weight), found):
        grad.add_(one)


def _attend(value: Tensor, shapes: Tensor, places: Tensor, weights: Tensor) -> Tensor:
    batch, _, heads, depth = value.shape
    queries, sizes = places.shape[1], [(int(h), int(w)) for h, w in shapes.tolist()]
    maps = value.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in sizes], dim=-1)
    grid = (2 * places - 1).transpose(1, 2).flatten(0, 1)  # (N M, Q, L, P, 2)
    sampled = [
        grid_sample(one.unflatten(-1, size), grid[:, :, level], padding_mode='zeros', align_corners=False)
        for level, (one, size) in enumerate(zip(maps, sizes))
    ]
    weight = weights.transpose(1, 2).flatten(0, 1).flatten(2)[:, None]  # (N M, 1, Q, L P)
    total = (torch.cat(sampled, dim=-1) * weight).sum(-1)  # (N M, D, Q)
    return total.view(batch, heads * depth, queries).transpose(1, 2).contiguous()
