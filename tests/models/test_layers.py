import math

import numpy as np
import pytest
import timm.layers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nfnet_mm.models.layers import (
    EfficientChannelAttention,
    ScaledActivation,
    SqueezeExcite,
    WSConv2d,
    activation_gain,
    avg_pool2d_same,
    drop_path_mask,
    get_activation,
    max_pool2d_same,
    same_padding,
    standardize_weight,
)

shapes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.sampled_from([1, 3, 5]), st.integers(0, 2**31))


def by_definition(weight, gain, dialect):
    """NumPy, float64, one unit at a time."""
    out = np.empty(weight.shape)
    for i, unit in enumerate(weight.detach().double().numpy()):
        n, variance = unit.size, unit.var()
        norm = math.sqrt(max(variance * n, 1e-4)) if dialect == 'authors' else math.sqrt((variance + 1e-5) * n)
        out[i] = (unit - unit.mean()) / norm * float(gain[i])
    return torch.from_numpy(out)


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from(['authors', 'timm']), st.sampled_from([1e-4, 1.0, 30.0]))
def test_standardized_weight_has_zero_mean_and_the_predicted_variance(shape, dialect, size):
    out_channels, in_channels, kernel, seed = shape
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out_channels, in_channels, kernel, kernel, generator=generator) * size
    gain = torch.randn(out_channels, generator=generator)
    ours = standardize_weight(weight, gain, dialect)
    n, variance = weight[0].numel(), weight.flatten(1).double().var(1, correction=0)
    left = variance * n
    norm = (left.clamp(min=1e-4) if dialect == 'authors' else left + 1e-5 * n).sqrt()
    # what is lost where weights are much larger than their deviations from the mean
    rounding = 2 * torch.finfo(torch.float32).eps * weight.flatten(1).abs().amax(1) * gain.abs() / norm
    predicted = gain.double() ** 2 / n * left / norm**2
    assert (ours.flatten(1).mean(1).abs() <= rounding + 1e-7).all()
    assert torch.allclose(ours.flatten(1).double().var(1, correction=0), predicted, rtol=1e-4, atol=1e-9)
    assert torch.allclose(ours.double(), by_definition(weight, gain, dialect), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize('dialect', ['authors', 'timm'])
@pytest.mark.parametrize('size', [1e-4, 1.0])  # below and above the authors' floor
def test_standardization_gradients(dialect, size):
    weight = (torch.randn(4, 2, 3, 3, dtype=torch.float64) * size).requires_grad_()
    gain = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, g: standardize_weight(w, g, dialect), (weight, gain), eps=1e-6 * size)


def test_standardization_matches_timm():
    theirs = timm.layers.ScaledStdConv2d(6, 8, 3, gamma=1.7, eps=1e-5)
    torch.nn.init.normal_(theirs.gain)
    ours = WSConv2d(6, 8, 3, input_scale=1.7, dialect='timm', padding='symmetric')
    ours.load_state_dict(dict(weight=theirs.weight.data, gain=theirs.gain.data.flatten(), bias=theirs.bias.data))
    x = torch.randn(2, 6, 7, 8)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_ws_conv_scale_multiplies_the_output():
    conv = WSConv2d(4, 6, 3, stride=2)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 4, 8, 9)
    assert torch.allclose(conv(x, scale=torch.tensor(0.3)), conv(x) * 0.3, atol=1e-6)


@pytest.mark.parametrize('size', [1, 2, 7, 8, 224, 225])
@pytest.mark.parametrize('kernel, stride, dilation', [(1, 2, 1), (3, 1, 1), (3, 2, 1), (7, 2, 1), (3, 1, 6), (2, 2, 1)])
def test_same_padding(size, kernel, stride, dilation):
    before, after = same_padding(size, kernel, stride, dilation)
    outputs = (size + before + after - (kernel - 1) * dilation - 1) // stride + 1
    assert outputs == math.ceil(size / stride)
    assert after - before in (0, 1)
    # minimal: one row less would lose an output, unless nothing was padded
    assert before + after == 0 or (size + before + after - 1 - (kernel - 1) * dilation - 1) // stride + 1 < outputs


@pytest.mark.parametrize('size', [(8, 9), (7, 7), (6, 6)])
def test_same_conv_and_pool_against_explicit_padding(size):
    x = torch.randn(1, 3, *size)
    conv = WSConv2d(3, 4, 3, stride=2)
    theirs = timm.layers.pad_same(x, [3, 3], [2, 2])
    expected = F.conv2d(theirs, conv.standardized_weight(), conv.bias, 2)
    assert torch.allclose(conv(x), expected, atol=1e-6)
    padded = timm.layers.pad_same(x, [3, 3], [2, 2], value=-math.inf)
    assert torch.equal(max_pool2d_same(x), F.max_pool2d(padded, 3, 2))


def pooled_by_definition(row, stride):
    """Means of one row's windows, each cut at the row's ends; TensorFlow puts the odd padded place last."""
    windows = math.ceil(len(row) / stride)
    start = -((windows * stride - len(row)) // 2)
    return [float(np.mean(row[max(start + i * stride, 0) : start + (i + 1) * stride])) for i in range(windows)]


@pytest.mark.parametrize('stride', [1, 2, 3, 4])
@pytest.mark.parametrize('height', range(1, 14))
def test_average_pooling_against_a_loop_over_windows(height, stride):
    for width in range(1, 14):
        x = torch.randn(2, 3, height, width, dtype=torch.float64)
        ours = avg_pool2d_same(x, stride)
        for image, pooled in zip(x.flatten(0, 1).numpy(), ours.flatten(0, 1).numpy()):
            rows = np.array([pooled_by_definition(row, stride) for row in image])
            np.testing.assert_allclose(
                pooled, np.array([pooled_by_definition(column, stride) for column in rows.T]).T, rtol=1e-12, atol=1e-12
            )
        if stride == 2:
            assert torch.equal(ours, F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False))


@pytest.mark.parametrize('act', ['relu', 'gelu', 'silu', 'tanh', 'hardswish', 'mish', torch.sin, 'softplus'])
def test_scaled_activations_have_unit_variance(act):
    x = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0))
    assert float(ScaledActivation(act)(x).var()) == pytest.approx(1, abs=4e-3)


def test_gain_of_relu_in_closed_form():
    assert activation_gain(torch.relu) == pytest.approx(math.sqrt(2 / (1 - 1 / math.pi)), abs=1e-6)


def test_bad_activations():
    with pytest.raises(ValueError, match=r"act='gleu' is no known activation. Did you mean 'gelu'\?.*relu"):
        get_activation('gleu')
    with pytest.raises(ValueError, match='variance 0'):
        activation_gain(torch.zeros_like)


def test_gates_match_timm():
    x = torch.randn(2, 16, 5, 6)
    theirs = timm.layers.SEModule(16, rd_ratio=0.5)
    ours = SqueezeExcite(16, 8)
    ours.load_state_dict({k: v.flatten(1) if v.dim() == 4 else v for k, v in theirs.state_dict().items()})
    assert torch.allclose(ours(x) * x, theirs(x), atol=1e-6)
    for channels in (16, 256, 1536):
        theirs, x = timm.layers.EcaModule(channels), torch.randn(2, channels, 3, 4)
        ours = EfficientChannelAttention(channels)
        ours.load_state_dict(theirs.state_dict())
        assert torch.allclose(ours(x) * x, theirs(x), atol=1e-6)


def test_drop_path_drops_whole_samples_without_rescaling():
    torch.manual_seed(0)
    mask = drop_path_mask(torch.empty(20_000, 3, 2, 2), 0.25, training=True)
    assert mask.dtype == torch.bool and mask.shape == (20_000, 1, 1, 1)
    assert float(mask.float().mean()) == pytest.approx(0.75, abs=0.01)
    assert drop_path_mask(mask, 0.25, training=False) is None
