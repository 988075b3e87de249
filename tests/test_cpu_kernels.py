"""The compiled kernels for the CPU: against float64, and that all works without them."""

import copy
import ctypes
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nfnet_mm import cpu_kernels, models
from nfnet_mm.analysis.launches import count_launches
from nfnet_mm.cpu_kernels import build, launch
from nfnet_mm.deploy import fold
from nfnet_mm.deploy.fold import FoldedConv2d
from nfnet_mm.engine.agc import adaptive_clip_grad_
from nfnet_mm.models import NFNet
from nfnet_mm.models.layers import WSConv2d, activations, convolution, standardize

ROOT = Path(__file__).parents[1]
needs_kernels = pytest.mark.skipif(cpu_kernels.state() != 'work', reason=f'kernels: {cpu_kernels.state()}')
# also rows of a single value, and some that are no multiple of what the processor takes at once
SHAPES = [(1, 1), (3, 2), (5, 27), (7, 1025), (64, 1152)]


@needs_kernels
def test_gelu_and_its_gradient():
    x = torch.cat([torch.linspace(-30, 30, 100_001), torch.tensor([0.0, -0.0, 1e-30, 1e20, -1e20, math.inf])])
    exact = x.double().requires_grad_()
    F.gelu(exact, approximate='tanh').sum().backward()
    out, grad = cpu_kernels.gelu(x), cpu_kernels.gelu_backward(torch.full_like(x, 3.0), x)
    assert out[-1] == math.inf
    torch.testing.assert_close(out[:-1].double(), F.gelu(exact, approximate='tanh')[:-1], rtol=3e-7, atol=3e-7)
    torch.testing.assert_close(grad[:-1].double(), 3 * exact.grad[:-1], rtol=0, atol=1e-6)
    assert cpu_kernels.gelu(torch.tensor([math.nan])).isnan() and (grad[-1] == 3)
    assert cpu_kernels.gelu_backward(torch.ones(1), torch.tensor([math.nan])).isnan()
    far = torch.tensor([-1e33, -3e38, -math.inf])
    assert cpu_kernels.gelu(far)[:2].abs().max() < 1e-30
    assert cpu_kernels.gelu(far)[2].isnan() and F.gelu(far, approximate='tanh')[2].isnan()


@needs_kernels
@pytest.mark.parametrize('unpack', [torch.Tensor.half, torch.Tensor.double, lambda x: torch.stack([x, x], -1)[..., 0]])
def test_saved_tensors_that_come_back_otherwise(unpack):
    """Of another type, or with gaps."""
    x = torch.randn(4, 5, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, unpack):
        out = activations.get_activation('gelu')(x)
    exact = x.detach().double().requires_grad_()
    F.gelu(exact, approximate='tanh').sum().backward()
    out.backward(torch.ones(4, 5))
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-3, atol=1e-3)


@needs_kernels
def test_tensors_without_memory_are_not_theirs():
    x = torch.randn(3, 4)
    assert cpu_kernels.takes(x)
    assert not cpu_kernels.takes(torch._efficientzerotensor(3))
    assert not cpu_kernels.takes(torch._to_functional_tensor(x))
    assert not cpu_kernels.takes(torch.nested.nested_tensor([x, x]))
    if hasattr(torch._C, '_TorchDispatchModeKey'):
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert type(activations.get_activation('gelu')(x)) is FakeTensor


@needs_kernels
def test_gelu_as_the_networks_call_it():
    gelu = activations.get_activation('gelu')
    x = torch.randn(2, 3, 5, 4).to(memory_format=torch.channels_last).requires_grad_()
    exact = x.detach().double().requires_grad_()
    gelu(x)[..., 1:].pow(2).sum().backward()  # whose gradient is laid out otherwise than x
    F.gelu(exact, approximate='tanh')[..., 1:].pow(2).sum().backward()
    assert x.grad.stride() == x.stride()
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-5, atol=1e-6)

    def slope(x):
        return torch.autograd.grad(gelu(x).sum(), x, create_graph=True)[0]

    (second,) = torch.autograd.grad(slope(x).sum(), x)
    (expected,) = torch.autograd.grad(slope(exact).sum(), exact)  # float64 is not for the kernels
    torch.testing.assert_close(second.double(), expected, rtol=1e-5, atol=1e-5)
    per_sample = torch.func.vmap(torch.func.grad(lambda x: gelu(x).sum()))(x.detach())
    torch.testing.assert_close(per_sample, slope(x), rtol=1e-5, atol=1e-6)
    with torch.no_grad():  # every other channel: of neither layout, and so not for the kernels
        assert not cpu_kernels.takes(x[:, ::2])
        torch.testing.assert_close(gelu(x[:, ::2]), gelu(x)[:, ::2], rtol=1e-6, atol=1e-6)


@needs_kernels
@pytest.mark.parametrize('dialect', standardize.DIALECTS)
@pytest.mark.parametrize('shape', SHAPES)
def test_standardisation_and_its_gradient(shape, dialect):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(shape, generator=generator) + 0.5
    rows[0] = rows[0] * 1e-5 + 0.01  # beneath the authors' floor
    gain, grad = (torch.randn(size, generator=generator) for size in (shape[0], shape))
    before = cpu_kernels.calls.copy()
    out, mean, inverse, _ = standardize.standardize_rows(rows, gain, None, 1.7, dialect, torch.float32)
    again = standardize.standardize_rows_again(rows, gain, 1.7, mean, inverse, torch.float32)
    of_rows, of_gain, _ = standardize.standardize_rows_backward(grad, rows, gain, None, 1.7, mean, inverse, dialect)
    names = 'standardize', 'standardize_again', 'standardize_backward'
    assert cpu_kernels.calls - before == dict.fromkeys(names, 1)
    assert torch.equal(again, out)
    in_place, _, _ = standardize.standardize_rows_backward(
        grad.clone(), rows, gain, None, 1.7, mean, inverse, dialect, reuse=True
    )
    assert torch.equal(in_place, of_rows)
    exact, exact_gain = rows.double().requires_grad_(), gain.double().requires_grad_()
    expected = standardize._plain(exact, exact_gain * 1.7, dialect)
    expected.backward(grad.double())
    for found, wanted in ((out, expected), (of_rows, exact.grad), (of_gain, exact_gain.grad)):
        for row, (mine, other) in enumerate(zip(found, wanted)):
            # the first row's mean, and a row of one or two values as such, leave few digits of what is about it
            digits = 1e-3 if row == 0 or shape[1] < 3 else 2e-6
            torch.testing.assert_close(mine.double(), other, rtol=0, atol=digits * float(other.abs().max()) + 1e-6)


@needs_kernels
def test_any_number_of_threads_computes_the_same():
    torch.manual_seed(0)
    x, rows, gain = torch.randn(2, 40, 33, 17), torch.randn(300, 77), torch.randn(300)
    weight = torch.nn.Parameter(torch.randn(300, 77))
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            weight.grad = rows * 3
            adaptive_clip_grad_([weight])
            out, mean, inverse = cpu_kernels.standardize(rows, gain, 1.0, 1e-4, 0.0, None)
            gradients = cpu_kernels.standardize_backward(rows, rows, gain, 1.0, mean, inverse, 99.0)
            found.append([cpu_kernels.gelu(x), cpu_kernels.gelu_backward(x, x), out, *gradients, weight.grad])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for run in found[1:] for one, other in zip(found[0], run))


def last(*size, seed=0):
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last)


def gradients_of_conv(x, weight, bias, padding, groups):
    """The conv, and the gradients of its input and weight from one that is made of its shape."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    out = F.conv2d(x, weight, bias, 1, padding, 1, groups)
    return out, *torch.autograd.grad(out, (x, weight), last(*out.shape, seed=2).to(out.dtype))


@needs_kernels
@pytest.mark.parametrize(
    'size, outputs, groups, padding, bias',
    [
        ((2, 64, 8, 8), 64, 1, 1, True),
        ((3, 192, 9, 6), 96, 3, 1, True),  # tiles that stick out below; groups, other outputs than inputs
        ((9, 64, 5, 7), 160, 1, 0, False),
        ((4, 128, 7, 4), 64, 2, 2, True),
        ((33, 64, 2, 2), 64, 1, 1, False),  # images smaller than the kernel
    ],
)
def test_winograd_convs_against_float64(size, outputs, groups, padding, bias):
    x, weight = last(*size), last(outputs, size[1] // groups, 3, 3, seed=1)
    bias = torch.linspace(-1, 1, outputs) if bias else None
    out, *exact = gradients_of_conv(
        x.double(), weight.double(), bias if bias is None else bias.double(), padding, groups
    )
    _, *torchs = gradients_of_conv(x, weight, bias, padding, groups)
    grad = last(*out.shape, seed=2)
    assert cpu_kernels.takes_conv3x3(x, weight, (1, 1), (padding, padding), (1, 1), groups)
    rest = weight, padding, groups
    found = cpu_kernels.conv3x3(x, weight, bias, padding, groups)
    of_x, of_weight = (f(grad, x, *rest) for f in (cpu_kernels.conv3x3_input, cpu_kernels.conv3x3_weight))
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in (found, of_x, of_weight))
    for one, other in zip((found, of_x, of_weight), (out, *exact), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=2e-6 * float(other.abs().max()))
    for one, torchs_own, other in zip((of_x, of_weight), torchs, exact):
        assert (one - other).norm() <= 4 * (torchs_own - other).norm()
    laid_out = cpu_kernels.conv3x3(x, weight.contiguous(), bias, padding, groups)
    assert torch.equal(laid_out, found)


@needs_kernels
def test_winograd_convs_do_not_depend_on_threads_or_the_batch():
    x, weight, bias = last(6, 128, 12, 10), last(64, 64, 3, 3, seed=1), torch.randn(64)
    grad, found, threads = last(6, 64, 12, 10, seed=2), [], torch.get_num_threads()
    weight = weight[:, :64]
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            found.append(
                (
                    cpu_kernels.conv3x3(x, weight, bias, 1, 2),
                    cpu_kernels.conv3x3_input(grad, x, weight, 1, 2),
                    cpu_kernels.conv3x3_weight(grad, x, weight, 1, 2),
                )
            )
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for run in found[1:] for one, other in zip(found[0], run))
    alone = cpu_kernels.conv3x3(x[4:5], weight, bias, 1, 2)
    assert torch.equal(alone, found[0][0][4:5])
    assert torch.equal(cpu_kernels.conv3x3_input(grad[4:5], x[4:5], weight, 1, 2), found[0][1][4:5])


@needs_kernels
def test_which_convs_are_winograds():
    x, weight = last(2, 64, 12, 12), last(64, 64, 3, 3)
    usual = dict(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)
    assert cpu_kernels.takes_conv3x3(x, weight, **usual)
    for change in (dict(stride=(2, 2)), dict(padding=(1, 0)), dict(padding=(3, 3)), dict(dilation=(2, 2))):
        assert not cpu_kernels.takes_conv3x3(x, weight, **{**usual, **change})
    for other in (x.contiguous(), x[..., 1:], x[0], x[:, :32], x.double(), x[:, :, :3, :3], x[:0], x[:, :, :0]):
        assert not cpu_kernels.takes_conv3x3(other, weight, **usual)
    for other in (weight[:48], weight[:, :48], weight[..., :1], last(64, 64, 5, 5), weight.half()):
        assert not cpu_kernels.takes_conv3x3(x, other, **usual)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(100)  # there are not as many parts
        assert not cpu_kernels.takes_conv3x3(x, weight, **usual)
    finally:
        torch.set_num_threads(threads)
    for size in ((64, 1, 1), (64, 1, 32), (40, 3, 3)):  # whose tiles are mostly not there
        assert not cpu_kernels.takes_conv3x3(last(size[0], 64, *size[1:]), weight, **usual)
    large = torch.empty(1056, 1056, 3, 3)  # which would take 70 MB to prepare
    assert not cpu_kernels.takes_conv3x3(last(1, 1056, 16, 16), large, **usual)
    with pytest.raises(ValueError, match=r'\(2, 64, 10, 12\) is not one of \(2, 64, 12, 12\)'):
        cpu_kernels.conv3x3_weight(x[:, :, 2:], x, weight, 1, 1)


@needs_kernels
@pytest.mark.parametrize('size, outputs', [((4, 512, 4, 4), 512), ((1, 1056, 7, 5), 256), ((3, 2048, 17, 19), 128)])
def test_gradient_of_a_pointwise_conv(size, outputs):
    """Over few positions and many, which are summed 288 at a time."""
    x, grad, weight = last(*size), last(size[0], outputs, *size[2:], seed=1), torch.zeros(outputs, size[1], 1, 1)
    usual, found, threads = ((1, 1), (0, 0), 1), [], torch.get_num_threads()
    assert cpu_kernels.takes_pointwise_weight(grad, x, weight, *usual)
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            found.append(cpu_kernels.pointwise_weight(grad, x))
    finally:
        torch.set_num_threads(threads)
    expected = torch.einsum('nohw,nihw->oi', grad.double(), x.double())[..., None, None]
    torch.testing.assert_close(found[0].double(), expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    for rest in (((2, 2), (0, 0), 1), ((1, 1), (1, 1), 1), ((1, 1), (0, 0), 2)):
        assert not cpu_kernels.takes_pointwise_weight(grad, x, weight, *rest)
    for one, other, of in (
        (grad[:, :-16], x, weight[:-16]),  # channels that are no multiple of 32
        (grad.contiguous(), x, weight),
        (grad.double(), x.double(), weight.double()),
        (grad.repeat(1, 1, 2, 1), x, weight),
        (grad.repeat(2, 1, 1, 1), x, weight),
        (grad[:, :64], x[:, :64], weight[:64, :64]),
    ):
        assert not cpu_kernels.takes_pointwise_weight(one, other, of, *usual)


@needs_kernels
def test_a_mode_that_must_see_each_operation_sees_those_of_torch():
    """One that counts their arithmetic, and one that makes a graph of them."""
    conv, x = WSConv2d(64, 64, 3), last(4, 64, 12, 12).requires_grad_()
    folded = FoldedConv2d(conv)
    assert cpu_kernels.takes_conv3x3(x, conv.weight, (1, 1), (1, 1), (1, 1), 1)
    for module, passes in ((conv, 3), (folded, 1)):
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(passes == 3):
            out = module(x)
            if passes == 3:
                out.sum().backward()
        assert counter.get_total_flops() == passes * 2 * out.numel() * 64 * 9
    x, other = x.detach(), last(4, 64, 12, 12, seed=1)
    with torch.no_grad():
        for module in (conv, folded):
            torch.testing.assert_close(make_fx(module)(x)(other), module(other), rtol=1e-5, atol=1e-5)


@needs_kernels
def test_a_folded_conv_in_unusual_use():
    """Trained, though it is not meant to be, under autocast, and with a weight that does not fit its groups."""
    x, folded = last(4, 64, 12, 12), FoldedConv2d(WSConv2d(64, 64, 3, groups=2))
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        assert folded(x).dtype is torch.bfloat16
    for name in ('weight', 'bias'):
        for p in (folded.weight, folded.bias):
            p.requires_grad_(False)
        getattr(folded, name).requires_grad_()
        folded(x).sum().backward()
        assert getattr(folded, name).grad is not None
    assert torch.allclose(folded.bias.grad, torch.tensor(4.0 * 12 * 12))
    with pytest.raises(RuntimeError, match='divisible'):
        convolution.conv_forward(x, last(65, 32, 3, 3), None, (1, 1), (1, 1), (1, 1), 2)


@needs_kernels
@pytest.mark.parametrize('value', [math.inf, -math.inf, math.nan])
def test_winograd_hides_no_value_that_is_not_finite(value):
    x, weight = last(2, 64, 12, 12), last(64, 64, 3, 3)
    x[1, 5, 3, 4] = value
    assert not cpu_kernels.conv3x3(x, weight, None, 1, 1)[1, :, 2:5, 3:6].isfinite().any()
    found, torchs = cpu_kernels.conv3x3(x, weight, None, 1, 1), F.conv2d(x, weight, None, 1, 1)
    assert torch.equal(found.isfinite(), torchs.isfinite())  # nor does it spoil another
    assert not cpu_kernels.conv3x3_input(x, x, weight, 1, 1)[1, :, 2:5, 3:6].isfinite().any()
    assert not cpu_kernels.conv3x3_weight(x, last(2, 64, 12, 12), weight, 1, 1)[5].isfinite().any()


@needs_kernels
@pytest.mark.parametrize('name', ['NFNet', 'NFResNet'])
def test_networks_whose_convs_are_winograds(name):
    """Channels-last, where some are, against the same in float64: output, all gradients, and the folded network."""
    torch.manual_seed(0)
    arch = dict(widths=(64, 64, 64, 128), depths=(1, 1, 1, 1), group_width=32)
    model = getattr(models, name)(arch if name == 'NFNet' else 50)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    images, exact = torch.randn(2, 3, 96, 96), copy.deepcopy(model).double()
    model, before = model.to(memory_format=torch.channels_last), cpu_kernels.calls.copy()
    found = gradients(model, images.contiguous(memory_format=torch.channels_last))
    called = cpu_kernels.calls - before
    assert called['conv3x3'] == 2 * called['conv3x3_weight'] > 6
    pairs = zip(found, gradients(exact, images.double()), strict=True)
    errors = sorted(float((one - other).norm() / other.norm()) for one, other in pairs)
    # a few may be larger, where a max-pooling found another maximum
    assert errors[len(errors) // 2] <= 2e-6 and errors[len(errors) * 9 // 10] <= 2e-5
    folded, images = fold(model), images.contiguous(memory_format=torch.channels_last)
    before = cpu_kernels.calls.copy()
    with torch.no_grad():
        out, expected = folded(images)[-1], exact.eval()(images.double())[-1]
    assert (cpu_kernels.calls - before)['conv3x3'] > 3
    assert (out - expected).norm() <= 1e-5 * expected.norm()
    of_images = torch.autograd.grad(folded(images.requires_grad_())[-1].square().sum(), images)[0]  # saliency
    wide = images.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad(exact(wide)[-1].square().sum(), wide)
    assert (of_images - wanted).norm() <= 2e-5 * wanted.norm()


@needs_kernels
def test_they_are_counted_as_launches():
    x = torch.randn(8, requires_grad=True)
    counts = count_launches(lambda: activations.get_activation('gelu')(x).backward(torch.ones(8)))
    kernels = {name: n for name, n in counts.operations.items() if name.startswith('cpu_kernels')}
    assert kernels == {'cpu_kernels.gelu': 1, 'cpu_kernels.gelu_backward': 1}


@needs_kernels
def test_a_step_is_the_same_without_them(monkeypatch):
    found = []
    for there in (True, False):
        if not there:
            monkeypatch.setattr(launch, 'library', lambda: None)
        torch.manual_seed(0)
        model = NFNet('nano')
        for p in model.parameters():
            torch.nn.init.normal_(p, std=0.1)
        before = cpu_kernels.calls.copy()
        model(torch.randn(2, 3, 40, 40))[-1].square().sum().backward()
        stats = adaptive_clip_grad_(model.parameters())
        assert (cpu_kernels.calls != before) == there
        found.append([int(stats.clipped), [p.grad for p in model.parameters() if p.grad is not None]])
    assert found[0][0] == found[1][0] > 100
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def gradients(model, images):
    model.zero_grad()
    model(images)[-1].square().sum().backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def test_gradients_that_someone_keeps_are_not_written_over():
    """By a second backward pass of the same graph, or by another one."""
    model, images = NFNet('nano'), torch.randn(2, 3, 40, 40)
    seen = []
    for p in model.parameters():
        p.register_hook(seen.append)
    loss = model(images)[-1].square().sum()
    loss.backward(retain_graph=True)
    copies, count = [grad.clone() for grad in seen], len(seen)
    loss.backward()
    gradients(model, images * 2)
    assert count > 50 and all(map(torch.equal, seen[:count], copies))


def test_models_in_several_threads():
    """Which share the memory that standardised weights are written to by thread, not by process."""
    models, images = [NFNet('nano') for _ in range(3)], torch.randn(1, 3, 40, 40)
    expected, found = [gradients(copy.deepcopy(model), images) for model in models], {}

    def work(i):
        for _ in range(3):
            found[i] = gradients(models[i], images)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for step in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            step(thread)
    for i in range(3):
        for one, other in zip(found[i], expected[i], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_another_default_device_and_type(dtype):
    weight = torch.nn.Parameter(torch.ones(3, 4))
    weight.grad = torch.ones(3, 4)
    try:
        torch.set_default_dtype(dtype)
        with torch.device('meta'):
            stats = adaptive_clip_grad_([weight])
    finally:
        torch.set_default_dtype(torch.float32)
    assert int(stats.clipped) == 3 and torch.allclose(weight.grad, torch.tensor(0.01))
    assert float(stats.min_scale) == pytest.approx(0.01)


def test_autograd_is_told_that_gradients_were_clipped():
    """Else a gradient of theirs would be computed with the new values."""
    weight, factor = torch.nn.Parameter(torch.ones(3, 4)), torch.ones(3, 4, requires_grad=True)
    for value, raises in ((1.0, True), (1e-9, False)):
        weight.grad = torch.full((3, 4), value)
        product = (weight.grad * factor).sum()
        adaptive_clip_grad_([weight])
        if raises and hasattr(torch.autograd.graph, 'increment_version'):
            with pytest.raises(RuntimeError, match='modified by an inplace operation'):
                product.backward()
        elif not raises:
            product.backward()


def test_a_weight_that_was_cut_after_its_gradient():
    weight = torch.nn.Parameter(torch.ones(8, 4))
    weight.grad = torch.ones(8, 4)
    adaptive_clip_grad_([weight])
    weight.data = torch.ones(2, 4)
    with pytest.raises(RuntimeError, match='size'):
        adaptive_clip_grad_([weight])


def test_a_tensor_as_a_constant():
    torch.manual_seed(0)
    plain, given = WSConv2d(3, 4, 3, input_scale=2.0), WSConv2d(3, 4, 3, input_scale=torch.tensor(2.0))
    given.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 5, 5)
    assert torch.equal(plain(images), given(images))


def built(monkeypatch, **environ):
    """What a new process in that environment would find: whether it has the kernels, and in words."""
    for name, value in environ.items():
        monkeypatch.setenv(name, str(value))
    library, why = build._built.__wrapped__()
    return library is not None, why


@needs_kernels
def test_the_compiled_file_is_kept_and_a_cut_one_is_not_loaded(tmp_path, monkeypatch):
    assert built(monkeypatch, XDG_CACHE_HOME=tmp_path) == (True, '')
    (kept,) = (tmp_path / 'nfnet_mm').iterdir()
    whole, when = kept.read_bytes(), kept.stat().st_mtime_ns
    assert built(monkeypatch) == (True, '') and kept.stat().st_mtime_ns == when
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        kept.unlink()  # what is loaded here must not change under it
        kept.write_bytes(whole[:length])
        assert built(monkeypatch) == (True, '')
        assert whole in [file.read_bytes() for file in (tmp_path / 'nfnet_mm').iterdir()]


@needs_kernels
def test_without_a_folder_to_keep_it_in_or_a_compiler(tmp_path, monkeypatch):
    assert built(monkeypatch, XDG_CACHE_HOME='/proc/nowhere') == (True, '')
    assert built(monkeypatch, CC='/bin/false', XDG_CACHE_HOME=tmp_path)[0] is False
    script = tmp_path / 'compiler'
    script.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo no OpenMP here >&2; exit 1; }\n')
    script.chmod(0o755)
    assert built(monkeypatch, CC=script) == (False, f'{script} cannot compile them: no OpenMP here')
    assert built(monkeypatch, CC='gcc "-O2') == (False, 'No closing quotation')
    assert built(monkeypatch, CC='', PATH=tmp_path) == (False, 'there is no C compiler (CC, gcc, cc)')
    assert not list((tmp_path / 'nfnet_mm').iterdir())


@needs_kernels
def test_arguments_of_the_compiler(tmp_path, monkeypatch):
    """They make another file, and cannot ask for arithmetic that overlooks a NaN."""
    assert built(monkeypatch, XDG_CACHE_HOME=tmp_path) == (True, '')
    monkeypatch.setenv('CC', 'gcc -ffast-math')
    library, _ = build._built.__wrapped__()
    assert len(list((tmp_path / 'nfnet_mm').iterdir())) == 2
    x, out = torch.tensor([math.nan, 1.0]), torch.empty(2)
    library.gelu(*(ctypes.c_void_p(t.data_ptr()) for t in (x, out)), ctypes.c_int64(2), 1)
    assert out[0].isnan() and float(torch.tensor(1e-40) * 1) > 0


@needs_kernels
def test_a_kept_file_that_does_not_load(tmp_path, monkeypatch):
    assert built(monkeypatch, XDG_CACHE_HOME=tmp_path) == (True, '')
    (kept,) = (tmp_path / 'nfnet_mm').iterdir()
    key = kept.name.partition('-')[0]
    kept.unlink()
    (tmp_path / 'nfnet_mm' / build._name(key, b'no library')).write_bytes(b'no library')
    assert built(monkeypatch) == (True, '')


@needs_kernels
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path, monkeypatch):
    folder = tmp_path / 'nfnet_mm'
    folder.mkdir()
    folder.chmod(0o777)
    assert built(monkeypatch, XDG_CACHE_HOME=tmp_path) == (True, '')
    assert not list(folder.iterdir())


def test_they_can_be_switched_off(monkeypatch):
    for value in ('0', 'False', 'off'):
        monkeypatch.setenv(cpu_kernels.SWITCH, value)
        assert build.library.__wrapped__() is None and cpu_kernels.state() == f'off (NFNET_MM_CPU_KERNELS={value})'


@needs_kernels
@pytest.mark.slow
def test_many_processes_that_build_it_at_once(tmp_path):
    environ = {**os.environ, 'OMP_NUM_THREADS': '1', 'XDG_CACHE_HOME': str(tmp_path)}
    code = 'from nfnet_mm import cpu_kernels; print(cpu_kernels.state())'
    runs = [subprocess.Popen([sys.executable, '-c', code], env=environ, stdout=-1, cwd=ROOT) for _ in range(4)]
    assert [run.communicate()[0] for run in runs] == [b'work\n'] * 4


@pytest.mark.slow
def test_the_other_tests_without_them():
    """What the networks and AGC do where there is no compiler."""
    files = 'tests/engine/test_agc.py', 'tests/models'
    command = [sys.executable, '-m', 'pytest', '-q', '-x', '-W', 'ignore', '-m', 'not slow', '-p', 'no:cacheprovider']
    environ = {**os.environ, cpu_kernels.SWITCH: '0'}
    run = subprocess.run([*command, *files], env=environ, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
