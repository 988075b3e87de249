"""The up-projection head and the reverse Huber loss, against definitions and numbers worked out by hand."""

import copy
import statistics
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip('mmseg')

from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from nfnet_mm.tasks.depth import BerHuLoss, UpConv, UpProjection, UpProjectionHead, berhu

BN = dict(type='BN')


def randomize(module):
    """Every parameter and statistic off its initial value, so that none hides behind a 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.dim() < 2:
            parameter.data = torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype) + 0.5
    return module


def unpool(x):
    """Every pixel becomes the top left one of a 2x2 square of zeros."""
    ones = torch.ones(x.shape[1], 1, 1, 1, dtype=x.dtype)
    return F.conv_transpose2d(x, ones, stride=2, groups=x.shape[1], output_padding=1)


def whole_kernel(up):
    """The (out_channels, in_channels, 5, 5) kernel of the one conv that an UpConv is after unpooling."""
    first = up.even_even.weight
    kernel = first.new_empty(*first.shape[:2], 5, 5)
    for (i, j), conv in zip(((0, 0), (0, 1), (1, 0), (1, 1)), up.children()):
        kernel[:, :, i::2, j::2] = getattr(conv, 'standardized_weight', lambda conv=conv: conv.weight)()
    return kernel


class PlainUpConv(nn.Module):
    """An UpConv's function as the paper writes it: unpool, then one 5x5 conv (and biases by kind of pixel)."""

    def __init__(self, up):
        super().__init__()
        self.up = up

    def forward(self, x):
        out = F.conv2d(unpool(x), whole_kernel(self.up), padding=2)
        if self.up.even_even.bias is not None:
            for (i, j), conv in zip(((0, 0), (0, 1), (1, 0), (1, 1)), self.up.children()):
                out[:, :, i::2, j::2] += conv.bias.view(1, -1, 1, 1)
        return out


@pytest.mark.parametrize('norm_cfg', [None, BN])
@pytest.mark.parametrize('shape', [(2, 8, 5, 6), (1, 8, 1, 1), (2, 8, 8, 10)])
def test_fast_form_equals_plain_form_with_gradients(norm_cfg, shape):
    torch.manual_seed(0)
    block = randomize(UpProjection(8, 3, norm_cfg, 0.7).double())
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)
    parameters, results = list(block.parameters()), []
    for up in (block.up, PlainUpConv(block.up)):
        block.up = up
        out = block(x)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        results.append([out, *torch.autograd.grad((out * weights).sum(), [x, *parameters])])
    assert results[0][0].shape == (shape[0], 3, 2 * shape[2], 2 * shape[3])
    for fast, plain in zip(*results):
        assert torch.allclose(fast, plain, rtol=1e-10, atol=1e-12)


def test_fast_form_equals_plain_form_in_float32_at_full_width():
    torch.manual_seed(0)
    up = randomize(UpConv(1024, 64, 1.0))
    x = torch.randn(1, 1024, 8, 10)  # the last feature of a 304 x 228 image
    with torch.no_grad():
        fast, plain = up(x), PlainUpConv(up)(x)
    assert ((fast - plain).norm() / plain.norm()).item() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize('train', [False, True])
def test_fast_form_is_faster(train):
    """On one 304 x 228 image's last feature, in pairs, so that a busy machine slows both; BatchNorm in both."""
    torch.manual_seed(0)
    fast = UpProjectionHead(in_channels=2048, norm_cfg=BN).blocks.train(train)
    plain = copy.deepcopy(fast)
    for block in plain:  # the 5x5 kernel at hand
        conv = nn.Conv2d(block.up.even_even.in_channels, block.up.even_even.out_channels, 5, padding=2, bias=False)
        conv.weight.data = whole_kernel(block.up).detach()
        block.up = nn.Sequential(Unpool(), conv)
    x, ratios = torch.randn(1, 1024, 8, 10), []
    for _ in range(6):
        seconds, outs = [], []
        for blocks in (plain, fast):
            start = time.perf_counter()
            with torch.set_grad_enabled(train):
                out = nn.Sequential(*blocks)(x)
                if train:
                    out.sum().backward()
            seconds.append(time.perf_counter() - start)
            outs.append(out.detach())
        ratios.append(seconds[0] / seconds[1])
        assert (outs[1] - outs[0]).norm() / outs[0].norm() < 1e-6
    assert statistics.median(ratios[1:]) >= 1.5


class Unpool(nn.Module):
    def forward(self, x):
        n, c, h, w = x.shape
        out = x.new_zeros(n, c, h, 2, w, 2)
        out[:, :, :, 0, :, 0] = x
        return out.view(n, c, 2 * h, 2 * w)


def test_normalizer_free_blocks_keep_unit_variance():
    torch.manual_seed(0)
    head = UpProjectionHead(in_channels=64, channels=128, num_blocks=3)
    x = head.reduce(torch.randn(2, 64, 24, 24))
    assert abs(x[..., 8:-8, 8:-8].var() - 1) < 0.2
    for i, block in enumerate(head.blocks):
        up = block.up(x)
        for row in (0, 1):  # all four kinds of pixels alike
            for column in (0, 1):
                kind = up[..., 8 + row : -8 : 2, 8 + column : -8 : 2]
                assert 0.6 < kind.var().item() < 1.5, (i, row, column)
        x = block(x)


def test_head_is_the_papers():
    head = UpProjectionHead(in_channels=2048)
    shapes = [tuple(whole_kernel(block.up).shape) for block in head.blocks]
    assert shapes == [(1024, 1024, 5, 5), (512, 512, 5, 5), (256, 256, 5, 5), (128, 128, 5, 5)]  # two branches each
    assert [block.conv.weight.shape[0] for block in head.blocks] == [512, 256, 128, 64]
    assert tuple(head.reduce.weight.shape) == (1024, 2048, 1, 1) and tuple(head.conv_seg.weight.shape) == (1, 64, 3, 3)
    assert not any(isinstance(m, nn.modules.batchnorm._NormBase) for m in head.modules())


@pytest.mark.parametrize('norm_cfg', [None, BN])
def test_head_loss_reaches_every_parameter_and_prediction_has_the_images_size(norm_cfg):
    torch.manual_seed(0)
    head = MODELS.build(dict(type='nfnet_mm.UpProjectionHead', in_channels=6, channels=32, norm_cfg=norm_cfg))
    samples = [SegDataSample(gt_depth_map=PixelData(data=torch.rand(1, 30, 40) * 9 + 1)) for _ in range(2)]
    features = (torch.randn(2, 3, 4, 4), torch.randn(2, 6, 1, 2))
    assert head(features).shape == (2, 1, 16, 32)
    losses = head.loss(features, samples, {})
    assert set(losses) == {'loss_berhu'}
    losses['loss_berhu'].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    assert head.predict(features, [dict(img_shape=(30, 40))] * 2, {}).shape == (2, 1, 30, 40)


def test_head_adds_losses_of_one_name():
    torch.manual_seed(0)
    one = dict(type='nfnet_mm.BerHuLoss')
    head = UpProjectionHead(in_channels=6, channels=16, loss_decode=[one, one, dict(one, loss_name='loss_b')])
    samples = [SegDataSample(gt_depth_map=PixelData(data=torch.ones(1, 16, 16)))]
    losses = head.loss((torch.randn(1, 6, 1, 1),), samples, {})
    assert torch.allclose(losses['loss_berhu'], 2 * losses['loss_b'])


def test_head_refuses():
    with pytest.raises(ValueError, match=r'channels=1000 must be a positive multiple of 2\^4'):
        UpProjectionHead(in_channels=8, channels=1000)
    head = UpProjectionHead(in_channels=8, channels=16)
    with pytest.raises(ValueError, match=r'takes a feature \(N, 8, H, W\), got \(1, 4, 2, 2\)'):
        head((torch.zeros(1, 4, 2, 2),))
    with pytest.raises(ValueError, match=r'data samples \[0\] have no gt_depth_map.*LoadDepthAnnotation'):
        head.loss((torch.zeros(1, 8, 2, 2),), [SegDataSample()], {})


def test_berhu_by_hand():
    loss = BerHuLoss()
    target = torch.tensor([[[[2.0, 3.0, 4.0, 0.0]]]])
    pred = torch.tensor([[[[2.5, 1.0, 14.0, 7.0]]]], requires_grad=True)  # errors 0.5, -2, 10; the last has no depth
    # c = 0.2 * 10 = 2; |e| for 0.5 and 2 (where both branches meet), (100 + 4) / 4 = 26 for 10
    value = loss(pred, target)
    assert torch.allclose(value, torch.tensor((0.5 + 2 + 26) / 3))
    value.backward()
    assert torch.allclose(pred.grad, torch.tensor([[[[1, -1, 10 / 2, 0]]]]) / 3)  # sign, sign, e / c, none
    assert torch.allclose(BerHuLoss(fraction=1.0)(pred, target), torch.tensor((0.5 + 2 + 10) / 3))
    assert torch.allclose(BerHuLoss(loss_weight=0.5)(pred, target), value / 2)
    # without the pixel at 4 m, c = 0.4: (0.25 + 0.16) / 0.8 and (4 + 0.16) / 0.8
    assert torch.allclose(BerHuLoss(max_depth=3.5)(pred, target), torch.tensor((0.5125 + 5.2) / 2))


def test_berhu_threshold_is_the_batchs_not_the_images():
    target = torch.ones(2, 1, 1, 1)
    pred = torch.tensor([1.5, 11.0]).view(2, 1, 1, 1)  # errors 0.5 and 10: c = 2 for both
    assert torch.allclose(BerHuLoss()(pred, target), torch.tensor((0.5 + 26) / 2))


@pytest.mark.parametrize('target', [0.0, float('nan'), float('inf'), -1.0])
def test_berhu_without_a_valid_pixel_is_zero_with_zero_gradients(target):
    pred = torch.tensor([[[[1.0, float('nan')]]]], requires_grad=True)
    value = BerHuLoss()(pred, torch.full((1, 1, 1, 2), target))
    value.backward()
    assert value.item() == 0 and pred.grad.tolist() == [[[[0, 0]]]]


def test_berhu_of_a_perfect_prediction_has_finite_gradients():
    pred = torch.ones(1, 1, 2, 2, requires_grad=True)
    BerHuLoss()(pred, torch.ones(1, 1, 2, 2)).backward()
    assert pred.grad.tolist() == [[[[0, 0], [0, 0]]]]


def test_berhu_gradient_against_finite_differences():
    torch.manual_seed(0)
    error = torch.randn(20, dtype=torch.double) + 0.01
    error[0] = 5.0  # holds the threshold, which is a constant to the gradient
    rest = error[1:].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda e: berhu(torch.cat((error[:1], e)), torch.ones(20, dtype=torch.bool)), rest)


def test_berhu_in_half_precision_and_its_refusals():
    pred, target = torch.tensor([[3.0, 60000.0]]).half(), torch.tensor([[1.0, 1.0]])  # squares overflow half precision
    assert BerHuLoss()(pred, target).isfinite()
    with pytest.raises(ValueError, match=r'fraction=0 must lie in \(0, 1\]'):
        BerHuLoss(fraction=0)
    with pytest.raises(ValueError, match=r'prediction \(1, 2\) and a target \(2, 1\)'):
        BerHuLoss()(torch.zeros(1, 2), torch.zeros(2, 1))


def test_berhu_of_two_processes_is_that_of_one():
    """Each sees half the batch; what they exchange is simulated, their gradients are averaged as DDP does."""
    torch.manual_seed(0)
    pred = (torch.rand(4, 6) * 9).requires_grad_()
    target = torch.rand(4, 6) * 9
    target[0, :4] = 0  # so the processes have different numbers of valid pixels
    (whole,) = torch.autograd.grad(BerHuLoss()(pred, target), pred)
    valid, error = target > 0, pred - target
    parts = [(error[half], valid[half]) for half in (slice(0, 2), slice(2, 4))]
    largest = max(e[v].abs().max().item() for e, v in parts) * 0.2
    mean_count = valid.sum().item() / 2

    def reduce(tensor, op):
        tensor.fill_(largest if op == 'max' else mean_count)

    (shared,) = torch.autograd.grad(sum(berhu(e, v, 0.2, reduce) for e, v in parts) / 2, pred)
    assert torch.allclose(shared, whole, atol=1e-7)
