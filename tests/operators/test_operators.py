"""The operators against numbers worked out by hand, other operators of torch, and plain formulas in float64."""

import math

import pytest
import torch
from torch.nn import functional

from nfnet_mm.errors import UserError
from nfnet_mm.operators import attention, deform, focal, nms, roi
from nfnet_mm.operators.table import OPERATORS, missing

from . import cases

HALVES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10]])  # the first two overlap by one half
SCORES = torch.tensor([0.8, 0.9, 0.1])


# ---- Boxes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'threshold, offset, kept',
    [
        (0.5, 0, [1, 0, 2]),  # only what overlaps more than the threshold is dropped
        (0.49, 0, [1, 2]),
        (0.5, 1, [1, 2]),  # 11 x 6 of 11 x 11 pixels: 0.545
        (0.55, 1, [1, 0, 2]),
    ],
)
def test_nms(threshold, offset, kept):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert nms.nms(HALVES.to(dtype), SCORES.to(dtype), threshold, offset).tolist() == kept


def test_nms_compares_with_the_threshold_as_a_float32():
    """0.3 is 0.300000012 in float32, and so is 3 / 10: an overlap of 3 / 10 is not more than 0.3."""
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 3, 1]])
    assert nms.nms(boxes, SCORES[:2], 0.3, 0).tolist() == [1, 0]
    assert nms.nms_match(torch.cat([boxes, SCORES[:2, None]], 1), 0.3) == [[1, 0]]


@pytest.mark.parametrize(
    'method, score', [(0, None), (1, 0.8 * 0.5), (2, 0.8 * math.exp(-0.25 / 0.5))], ids=('naive', 'linear', 'gaussian')
)
def test_softnms(method, score):
    dets = torch.zeros(3, 5)
    index = nms.softnms(HALVES, SCORES, dets, 0.3, 0.5, 1e-3, method, 0)
    rest = [] if score is None else [0]
    assert index.tolist() == [1, *rest, 2]
    assert dets[: len(index), :4].tolist() == HALVES[index].tolist()
    assert dets[: len(index), 4].tolist() == pytest.approx([0.9, *([score] if rest else []), 0.1])


def test_nms_match():
    dets = torch.cat([HALVES, SCORES[:, None]], 1)
    assert nms.nms_match(dets, 0.5) == [[1, 0], [2]]
    assert nms.nms_match(dets, 0.6) == [[1], [0], [2]]


def test_bbox_overlaps():
    ious = torch.zeros(3, 2)
    nms.bbox_overlaps(HALVES, HALVES[:2], ious, 0, False, 0)
    assert ious.tolist() == [[1, 0.5], [0.5, 1], [0, 0]]
    pairs = torch.zeros(2)
    nms.bbox_overlaps(HALVES[:2], HALVES[[1, 0]], pairs, 1, True, 0)  # over the first box's area
    assert pairs.tolist() == [0.5, 1]


def test_no_boxes():
    assert nms.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0).tolist() == []
    assert nms.softnms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 5), 0.5, 0.5, 0.1, 1, 0).tolist() == []


# ---- Regions --------------------------------------------------------------------------------------------------------


def plane(height, width, dtype=torch.float64):
    """Two pictures of two channels: 2 y + x + 1 at row y and column x, and minus that; the second picture 100 more."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    one = (2 * y + x + 1).to(dtype)
    return torch.stack([torch.stack([one, -one]), torch.stack([one, -one]) + 100])


def align(input, rois, mode, ratio=2, scale=0.5, size=(2, 2), aligned=True):
    output = input.new_zeros(len(rois), input.shape[1], *size)
    best = [output.clone(), output.clone()] if mode == 0 else [output.new_zeros(0)] * 2
    options = dict(aligned_height=size[0], aligned_width=size[1], spatial_scale=scale, sampling_ratio=ratio)
    options.update(pool_mode=mode, aligned=aligned)
    roi.roi_align_forward(input, rois, output, *best, **options)
    return output, best, options


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_roi_align_samples_a_plane_exactly(dtype):
    """A region from 2 to 10 at scale 1/2 is 4 wide from 1 to 5, and 0.5 to 4.5 in pixels' centres.

    Its bins are 2 wide, centred at 1.5 and 3.5, their samples half a pixel to each side: the average of a plane is its
    value at the centre, the maximum of the first channel that at the last sample, of the second that at the first.
    """
    rois = torch.tensor([[1.0, 2, 2, 10, 10]], dtype=dtype)
    centre = torch.tensor([[2 * y + x + 1 for x in (1.5, 3.5)] for y in (1.5, 3.5)])
    for memory in (torch.contiguous_format, torch.channels_last):
        input = plane(8, 9, dtype).contiguous(memory_format=memory)
        average = align(input, rois, mode=1)[0]
        assert average[0].tolist() == torch.stack([centre + 100, 100 - centre]).tolist()
        most, (at_y, at_x), _ = align(input, rois, mode=0)
        assert most[0].tolist() == torch.stack([centre + 101.5, 101.5 - centre]).tolist()
        assert at_y[0].unique().tolist() == at_x[0].unique().tolist() == [0, 1]
        assert at_y[0, 0].tolist() == [[1, 1], [1, 1]] and at_x[0, 1].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize('mode', [0, 1])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [False, True])
def test_roi_align_backward_is_the_transpose(mode, ratio, aligned):
    """The result is linear in the input, piecewise for the maximum: gradient times input is result times weights."""
    random = torch.Generator().manual_seed(mode)
    input = torch.randn(2, 3, 7, 9, generator=random, dtype=torch.float64)
    rois = torch.tensor([[0.0, -3, 1, 9, 11], [1, 2, 3, 20, 6], [0, 5, 5, 5.5, 6]], dtype=torch.float64)
    output, best, options = align(input, rois, mode, ratio, size=(3, 2), aligned=aligned)
    weights, grad = torch.randn(output.shape, generator=random, dtype=torch.float64), torch.zeros_like(input)
    roi.roi_align_backward(weights, rois, *best, grad, **options)
    assert (output * weights).sum().item() == pytest.approx((grad * input).sum().item(), rel=1e-12)
    assert grad.abs().sum() > 1


def test_roi_align_of_nothing_and_of_negative_size():
    output, best, options = align(plane(4, 4), torch.zeros(0, 5, dtype=torch.float64), mode=0)
    assert output.shape == (0, 2, 2, 2)
    grad = torch.zeros(2, 2, 4, 4, dtype=torch.float64)
    roi.roi_align_backward(output, torch.zeros(0, 5, dtype=torch.float64), *best, grad, **options)
    assert not grad.any()
    inside_out = torch.tensor([[0.0, 5, 5, 2, 2]], dtype=torch.float64)
    with pytest.raises(RuntimeError, match='negative size'):
        align(plane(4, 4), inside_out, mode=1)
    # one pixel wide, from 2.5: its two bins are centred at 2.75 and 3.25 of pixels whose last is 3
    wide = align(plane(4, 4), inside_out, mode=1, aligned=False)[0]
    assert wide[0, 0].tolist() == [[1 + 3 * c for c in (2.75,)] + [1 + 2 * 2.75 + 3], [1 + 6 + 2.75, 1 + 9]]


def test_roi_pool():
    """A region of columns 1-4 and rows 0-2, ends included: 4 wide, 3 high, so bins of 2 x 1.5 pixels."""
    input, rois = plane(6, 7, torch.float32), torch.tensor([[0.0, 1, 0, 4, 2], [1, 90, 90, 95, 95], [0, 4, 4, 2, 2]])
    output, at = torch.zeros(3, 2, 2, 2), torch.zeros(3, 2, 2, 2, dtype=torch.int)
    roi.roi_pool_forward(input, rois, output, at, 2, 2, 1.0)
    rows, columns = (1, 2), (2, 4)  # the last of each bin: rows 0-1 and 1-2, columns 1-2 and 3-4
    assert output[0, 0].tolist() == [[2 * y + x + 1 for x in columns] for y in rows]
    assert at[0, 0].tolist() == [[7 * y + x for x in columns] for y in rows]
    assert output[0, 1].tolist() == [[-(2 * y + x + 1) for x in (1, 3)] for y in (0, 1)]
    assert not output[1].any() and (at[1] == -1).all()  # outside
    assert not output[2].any() and not at[2].any()  # of no size: mmcv leaves it as it was
    grad, weights = torch.zeros_like(input), torch.tensor([1.0, 2, 4, 8]).view(2, 2).expand(1, 2, 2, 2)
    roi.roi_pool_backward(weights, rois[:1], at[:1], grad, 2, 2, 1.0)
    assert grad[0, 0, 1].tolist() == [0, 0, 1, 0, 2, 0, 0] and grad[0, 0, 2].tolist() == [0, 0, 4, 0, 8, 0, 0]
    assert grad[0, 1].sum() == 15 and not grad[1].any()


def test_roi_pool_takes_the_first_of_equal_pixels():
    output, at = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1, dtype=torch.int)
    roi.roi_pool_forward(torch.zeros(1, 1, 5, 5), torch.tensor([[0.0, 1, 2, 3, 4]]), output, at, 1, 1, 1.0)
    assert at.item() == 2 * 5 + 1


# ---- Losses ---------------------------------------------------------------------------------------------------------


def test_sigmoid_focal_loss():
    """As torchvision computes it of one-hot targets, and as autograd differentiates that."""
    from torchvision.ops import sigmoid_focal_loss

    logits = torch.linspace(-6, 6, 40, dtype=torch.float64).view(8, 5).requires_grad_()
    target, weight = torch.tensor([0, 1, 2, 3, 4, 0, 4, 2]), torch.tensor([1.0, 2, 0.5, 3, 0], dtype=torch.float64)
    known = sigmoid_focal_loss(logits, functional.one_hot(target, 5).double(), alpha=0.25, gamma=1.5)
    output, grad = torch.zeros(8, 5, dtype=torch.float64), torch.zeros(8, 5, dtype=torch.float64)
    for factor, by in ((torch.ones(8, 1), torch.zeros(0)), (weight[target][:, None], weight)):
        slope = torch.autograd.grad((known * factor).sum(), logits, retain_graph=True)[0]
        focal.sigmoid_focal_loss_forward(logits.detach(), target, by, output, gamma=1.5, alpha=0.25)
        torch.testing.assert_close(output, known.detach() * factor, rtol=1e-9, atol=1e-12)
        focal.sigmoid_focal_loss_backward(logits.detach(), target, by, grad, gamma=1.5, alpha=0.25)
        torch.testing.assert_close(grad, slope, rtol=1e-9, atol=1e-12)
    background = torch.full((8,), 5)
    focal.sigmoid_focal_loss_forward(logits.detach(), background, torch.zeros(0), output, gamma=1.5, alpha=0.25)
    none = sigmoid_focal_loss(logits.detach(), torch.zeros_like(logits), alpha=0.25, gamma=1.5)
    torch.testing.assert_close(output, none, rtol=1e-9, atol=1e-12)
    with pytest.raises(UserError, match='target 5 of a focal loss of 5 classes: with class weights'):
        focal.sigmoid_focal_loss_forward(logits.detach(), background, weight, output, gamma=1.5, alpha=0.25)


def test_softmax_focal_loss():
    random = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(6, 4, generator=random, dtype=torch.float64)).requires_grad_()
    target, weight = torch.tensor([0, 1, 2, 3, 3, -1]), torch.tensor([1.0, 2, 0.5, 3], dtype=torch.float64)
    log_p = logits.log_softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    for factor, by in ((torch.ones(6), torch.zeros(0)), (weight[target], weight)):
        known = -0.25 * (1 - log_p.exp()) ** 2.5 * log_p * factor * (target >= 0)
        output, grad, buff = torch.zeros_like(known), torch.zeros_like(logits), torch.zeros_like(known)
        p = logits.detach().softmax(1)
        focal.softmax_focal_loss_forward(p, target, by, output, gamma=2.5, alpha=0.25)
        torch.testing.assert_close(output, known.detach(), rtol=1e-9, atol=1e-12)
        focal.softmax_focal_loss_backward(p, target, by, buff, grad, gamma=2.5, alpha=0.25)
        slope = torch.autograd.grad(known.sum(), logits, retain_graph=True)[0]
        torch.testing.assert_close(grad, slope, rtol=1e-9, atol=1e-12)
    with pytest.raises(UserError, match='target 4 of a focal loss of 4 classes'):
        focal.softmax_focal_loss_forward(p, torch.full((6,), 4), weight[:0], output, gamma=2.5, alpha=0.25)


# ---- Deformable convs and attention ---------------------------------------------------------------------------------


def conv(input, weight, offset, mask=None, bias=None):
    output = input.new_zeros(len(input), len(weight), *offset.shape[2:])
    nothing = input.new_zeros(0)
    sizes = dict(kernel_h=3, kernel_w=3, stride_h=1, stride_w=1, pad_h=1, pad_w=1, dilation_h=1, dilation_w=1)
    sizes.update(group=1, deformable_group=1, with_bias=bias is not None)
    bias = nothing if bias is None else bias
    deform.modulated_deform_conv_forward(input, weight, bias, nothing, offset, mask, output, nothing, **sizes)
    return output, dict(sizes)


def test_deformable_conv_without_offsets_is_a_conv():
    random = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_()

    input, weight, bias = draw(2, 4, 6, 7), draw(3, 4, 3, 3), draw(3)
    offset, mask = torch.zeros(2, 18, 6, 7, dtype=torch.float64), torch.full((2, 9, 6, 7), 0.5, dtype=torch.float64)
    known = functional.conv2d(input, 0.5 * weight, bias, padding=1)
    plain = [t.detach() for t in (input, weight, bias)]
    output, sizes = conv(plain[0], plain[1], offset, mask, plain[2])
    torch.testing.assert_close(output, known.detach())
    grad = torch.randn(known.shape, generator=random, dtype=torch.float64)
    found = [torch.zeros_like(t) for t in (*plain, offset, mask)]
    nothing = torch.zeros(0, dtype=torch.float64)
    arguments = (plain[0], plain[1], plain[2], nothing, offset, mask, nothing, *found, grad)
    deform.modulated_deform_conv_backward(*arguments, **sizes)
    for one, other in zip(found, torch.autograd.grad(known, [input, weight, bias], grad)):
        torch.testing.assert_close(one, other)
    # the taps one pixel outside, as mmcv has it: their offsets and masks get no gradient
    taps = found[3].view(2, 3, 3, 2, 6, 7)
    assert not taps[:, 0, :, :, 0].any() and not taps[:, :, 0, :, :, 0].any() and taps[:, 1:, 1:, :, 0, 0].all()


def test_deformable_conv_reads_at_its_offsets():
    """Offsets of one pixel down and half a pixel right, everywhere: a conv of the input so moved."""
    random = torch.Generator().manual_seed(0)
    input, weight = torch.randn(1, 2, 9, 9, generator=random), torch.randn(3, 2, 3, 3, generator=random)
    offset = torch.tensor([1.0, 0.5]).repeat(9).view(1, 18, 1, 1).expand(1, 18, 9, 9).contiguous()
    moved = (input[:, :, 1:, :-1] + input[:, :, 1:, 1:]) / 2
    inner = functional.conv2d(moved, weight)
    output, _ = conv(input.contiguous(memory_format=torch.channels_last), weight, offset, torch.ones(1, 9, 9, 9))
    torch.testing.assert_close(output[:, :, 1:7, 1:7], inner)
    low = [t.bfloat16() for t in (input, weight, offset, torch.ones(1, 9, 9, 9))]
    known = conv(*[t.float() for t in low])[0].bfloat16()
    assert torch.equal(conv(*low)[0], known)


def test_gradients_of_offset_and_mask_are_slopes():
    random = torch.Generator().manual_seed(1)
    input, weight = (torch.randn(s, generator=random, dtype=torch.float64) for s in ((1, 2, 5, 5), (2, 2, 3, 3)))
    offset = torch.rand(1, 18, 5, 5, generator=random, dtype=torch.float64) * 0.8 + 0.1  # between pixels
    mask, grad = torch.rand(1, 9, 5, 5, generator=random, dtype=torch.float64), torch.ones(1, 2, 5, 5).double()
    nothing = torch.zeros(0, dtype=torch.float64)
    found = [torch.zeros_like(t) for t in (input, weight, nothing, offset, mask)]
    sizes = conv(input, weight, offset, mask)[1]
    arguments = (input, weight, nothing, nothing, offset, mask, nothing, *found, grad)
    deform.modulated_deform_conv_backward(*arguments, **sizes)
    for which, at in ((3, (0, 0, 2, 2)), (3, (0, 7, 0, 4)), (3, (0, 17, 1, 3)), (4, (0, 4, 2, 2)), (4, (0, 0, 0, 0))):
        ends = []
        for step in (1e-6, -1e-6):
            near = [offset.clone(), mask.clone()]
            near[which - 3][at] += step
            ends.append(conv(input, weight, *near)[0].sum())
        assert found[which][at].item() == pytest.approx((ends[0] - ends[1]).item() / 2e-6, rel=1e-6, abs=1e-9)


def test_attention_is_mmcv_s_own_formula():
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    random = torch.Generator().manual_seed(0)
    shapes = torch.tensor([[6, 4], [3, 2]])
    value = torch.randn(2, 30, 2, 3, generator=random, dtype=torch.float64).requires_grad_()
    places = (1.4 * torch.rand(2, 5, 2, 2, 4, 2, generator=random, dtype=torch.float64) - 0.2).requires_grad_()
    weights = torch.rand(2, 5, 2, 2, 4, generator=random, dtype=torch.float64).requires_grad_()
    known = multi_scale_deformable_attn_pytorch(value, shapes, places, weights)
    inputs = (value.detach(), shapes, torch.tensor([0, 24]), places.detach(), weights.detach())
    output = attention.ms_deform_attn_forward(*inputs, im2col_step=64)
    torch.testing.assert_close(output, known.detach())
    found = [torch.zeros_like(t) for t in (value, places, weights)]
    attention.ms_deform_attn_backward(*inputs, torch.ones_like(known), *found, im2col_step=64)
    for one, other in zip(found, torch.autograd.grad(known.sum(), (value, places, weights))):
        torch.testing.assert_close(one, other)


# ---- Any operator ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['roi_align', 'deform_conv', 'modulated_deform_conv'])
def test_channels_last_and_half_precision(name):
    """Another memory layout gives the same numbers; half precision those of float32, rounded."""
    own = torch.nn.Module()
    vars(own).update(OPERATORS)
    for seed in range(12):
        for case in getattr(cases, name)(torch.Generator().manual_seed(seed)):
            if not isinstance(case, cases.Case):
                continue
            known = case.run(own)
            last = [t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in case.tensors]
            for one, other in zip(cases.Case(case.name, last, case.options, case.out).run(own), known):
                assert torch.equal(one, other)
            for dtype in (torch.bfloat16, torch.float16):
                low = [t.to(dtype) for t in case.tensors]
                exact = cases.Case(case.name, [t.float() for t in low], case.options, case.out).run(own)
                for one, other in zip(cases.Case(case.name, low, case.options, case.out).run(own), exact):
                    assert torch.equal(one, other.to(dtype))


def test_a_missing_operator_says_how_to_get_it():
    with pytest.raises(UserError, match=r"^mmcv's operator 'carafe_forward' has no stand-in .*`make ops` in a clone"):
        missing('carafe_forward')(torch.zeros(1), scale=2)
    with pytest.raises(AttributeError):
        missing('__path__')
