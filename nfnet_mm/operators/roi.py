"""Features of regions of interest: RoIAlign (He et al., 2017) and RoIPool (Girshick, 2015).

RoIAlign's average is torchvision's operator. Its maximum, and RoIPool (torchvision's rounds regions to whole pixels,
mmcv's does not), are plain torch.
"""

from collections.abc import Iterator

import torch
import torchvision  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import single, widen


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """The average or the maximum of bilinear samples in each bin of each region.

    Args:
        input: (N, C, H, W).
        rois: (K, 5): number of the picture, x1, y1, x2, y2.
        output: (K, C, aligned_height, aligned_width), receives the result.
        argmax_y: of the output's shape for the maximum, else empty; receives the row of the best sample in the grid of
            its bin, -1 for none, which any precision holds exactly (mmcv puts its coordinate there, and only its
            backward function reads it).
        argmax_x: the same, the column.
        aligned_height: bins of a region from top to bottom.
        aligned_width: bins of a region from left to right.
        spatial_scale: from coordinates of the regions to those of the input.
        sampling_ratio: samples of a bin along each axis; 0 for one per pixel.
        pool_mode: 0 for the maximum, 1 for the average.
        aligned: whether the centre of a pixel is at one half.

    Raises:
        RuntimeError: as mmcv's CPU operator does, for a region of negative size on the CPU, if ``aligned``.
    """
    features, boxes, spatial_scale = widen(input), rois.to(widen(input).dtype), single(spatial_scale)
    _check(boxes, spatial_scale, aligned)
    size = (aligned_height, aligned_width)
    if pool_mode == 1:
        align = torch.ops.torchvision.roi_align
        output.copy_(align(features, boxes, spatial_scale, *size, sampling_ratio, aligned))
        return
    flat = features.flatten(2)
    for chosen, picture, grid, rows, columns in _grids(boxes, size, spatial_scale, sampling_ratio, aligned):
        # the values that mmcv's two kernels start from
        least = -10000.0 if input.device.type == 'cpu' else torch.finfo(torch.float32).min
        best = features.new_full((len(chosen), features.shape[1], *size), least)
        at_y, at_x = torch.full_like(best, -1), torch.full_like(best, -1)
        for iy in range(grid[0]):
            for ix in range(grid[1]):
                value = torch.zeros_like(best)
                for index, weight in _corners(rows[iy], columns[ix], features.shape[2:]):
                    value += weight[:, None] * flat[picture[:, None, None], :, index].movedim(-1, 1)
                better = value > best
                best = value.where(better, best)
                at_y, at_x = at_y.masked_fill(better, iy), at_x.masked_fill(better, ix)
        output[chosen] = best.to(output.dtype)
        argmax_y[chosen], argmax_x[chosen] = at_y.to(argmax_y.dtype), at_x.to(argmax_x.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add to the input's gradient; arguments as in the forward function."""
    grad, boxes, spatial_scale = widen(grad_output), rois.to(widen(grad_output).dtype), single(spatial_scale)
    _check(boxes, spatial_scale, aligned)
    size, shape = (aligned_height, aligned_width), grad_input.shape
    if pool_mode == 1:
        back = torch.ops.torchvision._roi_align_backward
        grad_input.add_(back(grad, boxes, spatial_scale, *size, *shape, sampling_ratio, aligned))
        return
    total = grad.new_zeros(shape[0], shape[1], shape[2] * shape[3])
    channel = torch.arange(shape[1], device=grad.device)[:, None, None]
    for chosen, picture, grid, rows, columns in _grids(boxes, size, spatial_scale, sampling_ratio, aligned):
        if not all(grid):
            continue
        at_y, at_x = argmax_y[chosen].long(), argmax_x[chosen].long()
        y = rows.movedim(0, -1)[:, None, :, None].expand(*at_y.shape, -1).gather(-1, at_y.clamp(min=0)[..., None])
        x = columns.movedim(0, -1)[:, None, None].expand(*at_x.shape, -1).gather(-1, at_x.clamp(min=0)[..., None])
        part = grad[chosen].masked_fill(at_y < 0, 0)
        for index, weight in _corners(y[..., 0], x[..., 0], shape[2:], paired=True):
            total.index_put_((picture[:, None, None, None], channel, index), part * weight, accumulate=True)
    grad_input.add_(total.view(shape))


def _check(rois: Tensor, scale: float, aligned: bool) -> None:
    if aligned and rois.device.type == 'cpu':
        ends = rois[:, 1:] * scale - 0.5
        if not bool((ends[:, 2:] - ends[:, :2] >= 0).all()):
            raise RuntimeError('RoIAlign: a region has a negative size')


def _grids(
    rois: Tensor, size: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
) -> Iterator[tuple[Tensor, Tensor, tuple[int, int], Tensor, Tensor]]:
    """The regions in groups with as many samples in a bin.

    Yields: the regions' indices (k,), their pictures (k,), the grid of samples in a bin (rows, columns), the samples'
        rows (grid rows, k, bins) and columns (grid columns, k, bins).
    """
    starts, lengths, counts = [], [], []
    for axis in (0, 1):  # y, x
        low, high = (rois[:, i - axis] * scale - (0.5 if aligned else 0.0) for i in (2, 4))
        length = high - low if aligned else (high - low).clamp(min=1)
        starts.append(low)
        lengths.append(length / size[axis])
        fixed = torch.full_like(low, sampling_ratio)
        counts.append((fixed if sampling_ratio > 0 else (length / size[axis]).ceil()).clamp(min=0).long())
    groups, member = torch.stack(counts, 1).unique(dim=0, return_inverse=True)
    for number, counted in enumerate(groups.tolist()):
        chosen = (member == number).nonzero()[:, 0]
        places = []
        for axis, count in enumerate(counted):
            start, bin_size = starts[axis][chosen][:, None], lengths[axis][chosen][:, None]
            bins = torch.arange(size[axis], device=rois.device).to(rois.dtype)
            steps = torch.arange(count, device=rois.device).to(rois.dtype)[:, None, None] + 0.5
            places.append(start + bins * bin_size + steps * bin_size / max(count, 1))
        yield chosen, rois[chosen, 0].long(), (counted[0], counted[1]), places[0], places[1]


def _corners(
    y: Tensor, x: Tensor, shape: tuple[int, ...] | torch.Size, paired: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """The four pixels around places and their bilinear weights; of a place more than a pixel outside, weights of zero.

    Args:
        y: rows (k, bins).
        x: columns (k, bins).
        shape: height and width of the features.
        paired: take y and x, of one shape, as the coordinates of places, instead of as the rows and columns of a grid.

    Yields: index into the flattened pixels, and weight, of shape (k, bins, bins), or y's if ``paired``.
    """
    height, width = shape
    inside_y, inside_x = (y >= -1) & (y <= height), (x >= -1) & (x <= width)
    (top, bottom, down), (left, right, along) = _neighbours(y, height), _neighbours(x, width)
    if not paired:
        inside_y, top, bottom, down = (t[:, :, None] for t in (inside_y, top, bottom, down))
        inside_x, left, right, along = (t[:, None] for t in (inside_x, left, right, along))
    inside = inside_y & inside_x
    for row, a in ((top, 1 - down), (bottom, down)):
        for column, b in ((left, 1 - along), (right, along)):
            yield row * width + column, (a * b).masked_fill(~inside, 0)


def _neighbours(place: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and after a place, and how far it is from the first, all of it inside."""
    place = place.clamp(0, length - 1)
    low = place.floor()
    return low.long(), (low.long() + 1).clamp(max=length - 1), place - low


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """The maximum of the pixels in each bin of each region.

    Args:
        input: (N, C, H, W).
        rois: (K, 5): number of the picture, x1, y1, x2, y2, both ends inclusive.
        output: (K, C, pooled_height, pooled_width), receives the result; zero of an empty bin.
        argmax: int32, of the output's shape, receives the flat index of the best pixel; -1 of an empty bin.
        pooled_height: bins of a region from top to bottom.
        pooled_width: bins of a region from left to right.
        spatial_scale: from coordinates of the regions to those of the input.
    """
    features, boxes, spatial_scale = widen(input), rois.to(widen(input).dtype).cpu(), single(spatial_scale)
    size, (height, width) = (pooled_height, pooled_width), input.shape[2:]
    starts = boxes[:, 1:3] * spatial_scale
    lengths = (boxes[:, 3:] + 1) * spatial_scale - starts
    edges = []  # of the bins, y then x: first pixel, and the one after the last, (K, bins)
    for axis, limit in ((1, height), (0, width)):
        bins = torch.arange(size[1 - axis]).to(boxes.dtype)
        bin_size = lengths[:, axis, None] / len(bins)
        first = (bins * bin_size + starts[:, axis, None]).floor().clamp(0, limit).long()
        last = ((bins + 1) * bin_size + starts[:, axis, None]).ceil().clamp(0, limit).long()
        edges.append((first, last))
    least = torch.finfo(torch.float32).min
    for k in (lengths > 0).all(1).nonzero()[:, 0].tolist():  # mmcv leaves the output of the others as it is
        (top, bottom), (left, right) = ((first[k], last[k]) for first, last in edges)
        rows = top[:, None] + torch.arange(max(int((bottom - top).max()), 1))
        columns = left[:, None] + torch.arange(max(int((right - left).max()), 1))
        valid = (rows < bottom[:, None])[:, None, :, None] & (columns < right[:, None])[None, :, None]
        index = rows.clamp(max=height - 1)[:, None, :, None] * width + columns.clamp(max=width - 1)[None, :, None]
        index, valid = index.flatten(2).to(input.device), valid.flatten(2).to(input.device)  # (bins, bins, pixels)
        pixels = features[int(boxes[k, 0])].flatten(1)[:, index].masked_fill(~valid, least)
        best, at = pixels.max(-1)
        empty = ~valid.any(-1)
        output[k] = best.masked_fill(empty, 0).to(output.dtype)
        where = index.expand(len(at), *index.shape).gather(-1, at[..., None])[..., 0]
        argmax[k] = where.masked_fill(empty | (best <= least), -1).to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add to the input's gradient; arguments as in the forward function."""
    grad, at = widen(grad_output).flatten(2), argmax.long().flatten(2)
    total = grad.new_zeros(*grad_input.shape[:2], grad_input.shape[2] * grad_input.shape[3])
    channel = torch.arange(grad_input.shape[1], device=grad.device)[:, None]
    picture = rois[:, 0].long()[:, None, None]
    total.index_put_((picture, channel, at.clamp(min=0)), grad.masked_fill(at < 0, 0), accumulate=True)
    grad_input.add_(total.view(grad_input.shape))
