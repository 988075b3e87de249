"""Random cases of every operator, as mmcv's wrappers call it: the same arguments for the stand-in and the reference.

A case is a function of a random generator that gives the operator's name, its tensors and its options; tensors that it
writes into come as the names of ``out``.
"""

from dataclasses import dataclass, field

import torch


@dataclass
class Case:
    """One call: ``ext.<name>(*tensors, **options)``; ``out`` are the indices of the tensors that it writes."""

    name: str
    tensors: list
    options: dict = field(default_factory=dict)
    out: tuple = ()

    def run(self, ext):
        """What the call writes, then what it returns, as tensors."""
        tensors = [t.clone(memory_format=torch.preserve_format) for t in self.tensors]
        answer = getattr(ext, self.name)(*tensors, **self.options)
        results = [tensors[i] for i in self.out]
        if isinstance(answer, list):  # nms_match
            results += [torch.tensor(group) for group in answer]
        elif answer is not None:
            results.append(answer)
        return results


def draw(random, low, high):
    return int(torch.randint(low, high + 1, (), generator=random))


def choose(random, *values):
    return values[draw(random, 0, len(values) - 1)]


def normal(random, *shape):
    return torch.randn(shape, generator=random)


def uniform(random, *shape):
    return torch.rand(shape, generator=random)


def boxes(random, count, size=40.0):
    """(count, 4) boxes; some without area, some at whole pixels, so that overlaps meet thresholds exactly."""
    start = uniform(random, count, 2) * size
    found = torch.cat([start, start + uniform(random, count, 2) * size], 1)
    if choose(random, False, True):
        found = found.round()
    return found


def scores(random, count):
    """(count,) scores; half of the time with equal ones among them."""
    found = uniform(random, count)
    return (found * 8).round() / 8 if choose(random, False, True) else found


def nms(random):
    count = choose(random, 0, 1, draw(random, 2, 90))
    threshold = choose(random, 0.0, 0.3, 0.5, 0.7, float(uniform(random)))
    options = dict(iou_threshold=threshold, offset=draw(random, 0, 1))
    return Case('nms', [boxes(random, count), scores(random, count)], options)


def softnms(random):
    count = choose(random, 0, 1, draw(random, 2, 60))
    options = dict(
        iou_threshold=choose(random, 0.3, 0.5, float(uniform(random))),
        sigma=choose(random, 0.5, 0.1 + float(uniform(random))),
        min_score=choose(random, 1e-3, 0.2, 0.0),
        method=draw(random, 0, 2),
        offset=draw(random, 0, 1),
    )
    dets = torch.zeros(count, 5)
    return Case('softnms', [boxes(random, count), scores(random, count), dets], options)


def nms_match(random):
    count = draw(random, 1, 60)
    dets = torch.cat([boxes(random, count), scores(random, count)[:, None]], 1)
    return Case('nms_match', [dets], dict(iou_threshold=choose(random, 0.3, 0.5, float(uniform(random)))))


def bbox_overlaps(random):
    count = draw(random, 1, 20)
    aligned = choose(random, False, True)
    other = count if aligned else draw(random, 1, 20)
    ious = torch.zeros(count) if aligned else torch.zeros(count, other)
    tensors = [boxes(random, count) + 0.25, boxes(random, other), ious]
    options = dict(mode=draw(random, 0, 1), aligned=aligned, offset=1)
    return Case('bbox_overlaps', tensors, options, (2,))


def features(random):
    """(N, C, H, W) features of odd and even sizes."""
    return normal(random, draw(random, 1, 3), draw(random, 1, 5), draw(random, 1, 17), draw(random, 1, 17))


def regions(random, shape, scale, negative=False):
    """(K, 5) regions in and around pictures of a shape; none, now and then."""
    count = choose(random, 0, 1, draw(random, 2, 12))
    limit = max(shape[2:]) / scale
    start = uniform(random, count, 2) * 1.4 * limit - 0.2 * limit
    size = uniform(random, count, 2) * limit * choose(random, 0.05, 0.5, 1.2)
    if choose(random, False, True):
        start, size = start.round(), size.round()
    if negative:
        size = size - 0.1 * limit
    picture = torch.randint(0, shape[0], (count, 1), generator=random)
    return torch.cat([picture, start, start + size], 1)


def roi_align(random):
    """The forward call and the backward call, of the average and of the maximum."""
    input = features(random)
    aligned = choose(random, False, True)
    options = dict(
        aligned_height=draw(random, 1, 7),
        aligned_width=draw(random, 1, 7),
        spatial_scale=choose(random, 1.0, 0.25, 0.3),
        sampling_ratio=draw(random, 0, 3),
        pool_mode=draw(random, 0, 1),
        aligned=aligned,
    )
    rois = regions(random, input.shape, options['spatial_scale'], negative=not aligned)
    output = torch.zeros(len(rois), input.shape[1], options['aligned_height'], options['aligned_width'])
    best = output if options['pool_mode'] == 0 else torch.zeros(0)
    forward = Case('roi_align_forward', [input, rois, output, best, best], options, (2,))

    def backward(ext):
        """Of what ``ext`` itself wrote in the forward call, since only it reads where the maximum is."""
        at_y, at_x = torch.zeros_like(best), torch.zeros_like(best)
        ext.roi_align_forward(input, rois, output.clone(), at_y, at_x, **options)
        grad = torch.zeros_like(input)
        ext.roi_align_backward(gradient, rois, at_y, at_x, grad, **options)
        return [grad]

    gradient = normal(random, *output.shape)
    return forward, backward


def _conv(random):
    """Sizes of a deformable conv: input, weight, shape of the output, groups of offsets, options by axis."""
    groups, offset_groups = choose(random, 1, 2), choose(random, 1, 2, 4)
    kernel = (draw(random, 1, 3), draw(random, 1, 3))
    stride, dilation, pad = ((draw(random, low, 2), draw(random, low, 2)) for low in (1, 1, 0))
    input = normal(random, choose(random, 1, 2, 4), 4 * choose(random, 1, 2), draw(random, 5, 11), draw(random, 5, 11))
    weight = normal(random, 2 * draw(random, 1, 3), input.shape[1] // groups, *kernel)
    out = [(input.shape[2 + i] + 2 * pad[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    offset = normal(random, len(input), offset_groups * 2 * kernel[0] * kernel[1], *out) * choose(random, 0.0, 1.0, 3.0)
    if choose(random, False, True):
        offset = offset.round()  # as of a new layer: places on pixels, and exactly one pixel outside
    return input, weight, offset, (len(input), len(weight), *out), groups, offset_groups, stride, pad, dilation


def deform_conv(random):
    """The forward call, and that by input and offset, and that by the weight."""
    input, weight, offset, shape, groups, offset_groups, stride, pad, dilation = _conv(random)
    options = dict(kW=weight.shape[3], kH=weight.shape[2], dW=stride[1], dH=stride[0], padW=pad[1], padH=pad[0])
    options.update(dilationW=dilation[1], dilationH=dilation[0], group=groups, deformable_group=offset_groups)
    options.update(im2col_step=choose(random, 1, len(input)))
    buffer, grad = torch.zeros(0), normal(random, *shape)
    return (
        Case('deform_conv_forward', [input, weight, offset, torch.zeros(shape), buffer, buffer], options, (3,)),
        Case(
            'deform_conv_backward_input',
            [input, offset, grad, torch.zeros_like(input), torch.zeros_like(offset), weight, buffer],
            options,
            (3, 4),
        ),
        Case(
            'deform_conv_backward_parameters',
            [input, offset, grad, torch.zeros_like(weight), buffer, buffer],
            dict(options, scale=1),
            (3,),
        ),
    )


def modulated_deform_conv(random):
    """The forward call and the backward call."""
    input, weight, offset, shape, groups, offset_groups, stride, pad, dilation = _conv(random)
    if more := choose(random, 0, 0, 0, 3):  # of another level, as in mmdet's DyHead
        offset = normal(random, *offset.shape[:2], offset.shape[2] + more, offset.shape[3] + more)
    mask = uniform(random, len(input), offset.shape[1] // 2, *offset.shape[2:])
    with_bias = choose(random, False, True)
    bias = normal(random, len(weight)) if with_bias else torch.zeros(0)
    options = dict(kernel_h=weight.shape[2], kernel_w=weight.shape[3], stride_h=stride[0], stride_w=stride[1])
    options.update(pad_h=pad[0], pad_w=pad[1], dilation_h=dilation[0], dilation_w=dilation[1])
    options.update(group=groups, deformable_group=offset_groups, with_bias=with_bias)
    buffer, grad = torch.zeros(0), normal(random, *shape)
    zeros = [torch.zeros_like(t) for t in (input, weight, bias, offset, mask)]
    tensors = [input, weight, bias, buffer, offset, mask, torch.zeros(shape), buffer]
    return (
        Case('modulated_deform_conv_forward', tensors, options, (6,)),
        Case(
            'modulated_deform_conv_backward',
            [input, weight, bias, buffer, offset, mask, buffer, *zeros, grad],
            options,
            (7, 8, 9, 10, 11) if with_bias else (7, 8, 10, 11),
        ),
    )


def roi_pool(random):
    """The forward call and the backward call."""
    input = features(random)
    options = dict(
        pooled_height=draw(random, 1, 7), pooled_width=draw(random, 1, 7), spatial_scale=choose(random, 1.0, 0.25, 0.3)
    )
    if choose(random, False, True):
        input = input.round()  # equal pixels: the first one counts
    rois = regions(random, input.shape, options['spatial_scale'], negative=True)
    output = torch.zeros(len(rois), input.shape[1], options['pooled_height'], options['pooled_width'])
    at = torch.zeros(output.shape, dtype=torch.int)

    def backward(ext):
        """Of what ``ext`` itself wrote in the forward call."""
        best, grad = at.clone(), torch.zeros_like(input)
        ext.roi_pool_forward(input, rois, output.clone(), best, **options)
        ext.roi_pool_backward(gradient, rois, best, grad, **options)
        return [grad]

    gradient = normal(random, *output.shape)
    return Case('roi_pool_forward', [input, rois, output, at], options, (2, 3)), backward


def _focal(random, kind):
    count, classes = draw(random, 1, 30), draw(random, 1, 9)
    with_weight = choose(random, False, True)
    weight = uniform(random, classes) if with_weight else torch.zeros(0)
    none = 0 if with_weight or kind == 'softmax' else 1  # the number of classes stands for none of them
    target = torch.randint(0, classes + none, (count,), generator=random)
    input = normal(random, count, classes) * choose(random, 1.0, 10.0, 60.0)
    if kind == 'softmax':
        input = input.softmax(1)
    options = dict(gamma=choose(random, 2.0, 1.5, 3.0, 1.0), alpha=choose(random, 0.25, 0.8))
    loss = torch.zeros(count, classes) if kind == 'sigmoid' else torch.zeros(count)
    grads = [torch.zeros(count)] * (kind == 'softmax') + [torch.zeros(count, classes)]
    return (
        Case(f'{kind}_focal_loss_forward', [input, target, weight, loss], options, (3,)),
        Case(f'{kind}_focal_loss_backward', [input, target, weight, *grads], options, tuple(range(3, 3 + len(grads)))),
    )


def sigmoid_focal_loss(random):
    """The forward call and the backward call."""
    return _focal(random, 'sigmoid')


def softmax_focal_loss(random):
    """The forward call and the backward call."""
    return _focal(random, 'softmax')


def difference(found, known):
    """The largest difference of two lists of tensors, relative to the largest value; indices must be equal."""
    assert [t.shape for t in found] == [t.shape for t in known], (found, known)
    worst = 0.0
    for one, other in zip(found, known):
        if not other.is_floating_point():
            assert torch.equal(one, other), (one, other)
        elif other.numel():
            worst = max(worst, float((one - other).abs().max() / other.abs().max().clamp(min=1e-30)))
    return worst
