"""The standardised conv's own backward pass, and what it keeps for it, against torch's operations and timm."""

import pytest
import timm
import torch
from torch import nn

from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones import BNResNet, NFNet, NFRegNet, NFResNet
from nfnet_mm.models.backbones.stage import NFStage
from nfnet_mm.models.layers import Recompute, WSConv2d
from nfnet_mm.models.layers.activations import get_activation
from nfnet_mm.models.layers.conv_backward import conv_backward

TINY = dict(widths=(16, 32, 32, 48), depths=(1, 1, 1, 1), group_width=8)
SHAPES = [dict(stride=2), dict(groups=2, dilation=2), dict(kernel_size=1, stride=2), dict(kernel_size=2)]


def conv_and_input(dialect='authors', dtype=torch.float64, **kwargs):
    torch.manual_seed(0)
    conv = WSConv2d(4, 6, **{'kernel_size': 3, **kwargs}, dialect=dialect, input_scale=1.7).to(dtype)
    with torch.no_grad():
        conv.gain.uniform_(0.5, 2)
        conv.bias.normal_()
        conv.weight[1].mul_(1e-4)  # under the authors' floor
        conv.weight[2].add_(3)
        conv.weight[3].zero_()
    return conv, torch.randn(2, 4, 7, 6, dtype=dtype, requires_grad=True)


def gradients(function, x, conv):
    inputs = (x, *conv.parameters())
    out = function(x)
    return (out, *torch.autograd.grad(out, inputs, torch.linspace(-1, 1, out.numel()).view_as(out).to(out.dtype)))


def plain(conv):
    return lambda x: conv._plain(x, conv.weight, conv.gain, conv.bias)


@pytest.mark.parametrize('kwargs', SHAPES)
@pytest.mark.parametrize('dialect', ['authors', 'timm'])
def test_gradients_are_those_of_torchs_operations(dialect, kwargs):
    conv, x = conv_and_input(dialect, **kwargs)
    for ours, expected in zip(gradients(conv, x, conv), gradients(plain(conv), x, conv)):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('dialect', ['authors', 'timm'])
def test_gradients_of_gradients(dialect):
    conv, x = conv_and_input(dialect, groups=2, stride=2)
    act = get_activation('gelu')

    def penalty(function):
        out = function(x)
        first = torch.autograd.grad(out.square().sum(), (x, conv.weight, conv.gain), create_graph=True)
        return torch.autograd.grad(sum(g.sin().sum() for g in first), (x, conv.weight, conv.gain))

    by_us = penalty(lambda x: conv(act(x), recompute=Recompute(act, x)))
    for ours, expected in zip(by_us, penalty(lambda x: plain(conv)(act(x)))):
        assert expected.abs().sum() > 0
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def test_forward_mode():
    conv, x = conv_and_input(stride=2)
    tangent = torch.randn_like(x)
    with torch.autograd.forward_ad.dual_level():
        out = conv(torch.autograd.forward_ad.make_dual(x, tangent))
        slope = torch.autograd.forward_ad.unpack_dual(out).tangent
    torch.testing.assert_close(slope, (conv(x + tangent) - conv(x)), rtol=1e-10, atol=1e-12)  # a conv is linear in x


def test_channels_last_weights_keep_their_layout():
    conv, x = conv_and_input(groups=2)
    expected = gradients(conv, x, conv)
    conv = conv.to(memory_format=torch.channels_last)
    assert conv.standardized_weight().is_contiguous(memory_format=torch.channels_last)
    for ours, other in zip(gradients(conv, x, conv), expected):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('half', [torch.bfloat16, torch.float16])
def test_half_precision(half):
    """Under autocast the same as torch's operations; weights that are half are standardised in float32."""
    conv, x = conv_and_input(dtype=torch.float32, stride=2)
    with torch.autocast('cpu', dtype=half):
        by_us, expected = gradients(conv, x, conv), gradients(plain(conv), x, conv)
    assert by_us[0].dtype == half and by_us[1].dtype == torch.float32
    for ours, other in zip(by_us, expected):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)
    conv, x = conv.to(half), x.detach().to(half).requires_grad_()
    wide = WSConv2d(4, 6, 3, 2, input_scale=1.7)
    wide.load_state_dict(conv.state_dict())
    standardized = wide.standardized_weight().to(half)
    assert torch.equal(conv.standardized_weight(), standardized)
    assert [g.dtype for g in gradients(conv, x, conv)] == [half] * 5


def test_frozen_parameters_and_inputs():
    conv, x = conv_and_input(stride=2)
    _out, of_x, of_weight, _, of_gain = gradients(conv, x, conv)
    for frozen, left, expected in (('weight', 'gain', of_gain), ('gain', 'weight', of_weight)):
        getattr(conv, frozen).requires_grad_(False)
        out = conv(x.detach())
        grad = torch.linspace(-1, 1, out.numel()).view_as(out).double()
        torch.testing.assert_close(torch.autograd.grad(out, getattr(conv, left), grad)[0], expected)
        getattr(conv, frozen).requires_grad_(True)
    conv.requires_grad_(False)
    out = conv(x)
    grad = torch.linspace(-1, 1, out.numel()).view_as(out).double()
    torch.testing.assert_close(torch.autograd.grad(out, x, grad)[0], of_x)


def saved_bytes(model, images):
    """What a model's forward pass keeps for the backward pass besides its parameters, each storage once."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage, tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(images)
    return sum(size for _, size in kept.values())


def test_less_is_kept_than_by_timm():
    """NFNet-F0 at 192 px with 16 images: at most 0.75 of what timm's keeps, and 0.55 if activations are run again."""
    with torch.device('meta'):
        images = torch.empty(16, 3, 192, 192)
        reference = saved_bytes(timm.create_model('dm_nfnet_f0', num_classes=0).train(), images)
        for with_cp, most in ((False, 0.75), ('act', 0.55)):
            ours = saved_bytes(NFNet('F0', out_indices=(4,), with_cp=with_cp), images)
            assert ours / reference < most


@pytest.mark.parametrize('family', [NFNet, NFResNet, NFRegNet])
def test_what_is_run_again_changes_nothing(family):
    """Bit for bit, in whichever stage it is."""
    arch = dict(TINY, depths=(1, 2, 1, 1)) if family is NFNet else dict(widths=(16, 24, 32, 48), depths=(1, 2, 1, 1))
    x, found = torch.randn(3, 3, 65, 64), []
    for with_cp in (False, 'act', True, ['act', False, True, 'act']):
        torch.manual_seed(0)
        net = family(arch, drop_path_rate=0.5, with_cp=with_cp, out_indices=(1, 4)).train()
        for name, p in net.named_parameters():
            if name.endswith('skip_gain'):
                nn.init.constant_(p, 0.5)
        torch.manual_seed(1)
        sum(out.square().sum() for out in net(x)).backward()
        found.append([p.grad for p in net.parameters()])
    for other in found[1:]:
        assert all(map(torch.equal, other, found[0]))


def test_a_callers_own_activation_is_not_run_again_unasked():
    """It might be random."""
    calls = []

    def act(x):
        calls.append(x.shape)
        return torch.relu(x)

    # three in the stem; in each of the three blocks before conv1, conv1b and conv2, and in the first, which does not
    # pool, before conv0 and conv_shortcut
    for with_cp, again in ((False, 0), ('act', 3 + 3 * 3 + 2)):
        net = NFNet(TINY, act=act, with_cp=with_cp, out_indices=(2,))
        calls.clear()
        outs = net(torch.randn(2, 3, 64, 64))
        forward = len(calls)
        outs[-1].sum().backward()
        assert len(calls) - forward == again


@pytest.mark.parametrize('with_cp', ['acts', ['act'] * 3, [True, False, None, True], 2, None])
def test_what_can_not_be_run_again(with_cp):
    with pytest.raises(UserError, match="False, True, 'act', or 4 of these") as error:
        NFNet('nano', with_cp=with_cp)
    assert f'with_cp={with_cp!r}' in str(error.value)


def test_activations_of_the_baselines_are_kept():
    with pytest.raises(UserError, match="with_cp='act' .* BNResNet takes False, True"):
        BNResNet(50, with_cp='act')


def test_a_single_stage_takes_its_own():
    network = dict(type='nfnet_mm.NFNet', arch='nano', with_cp=[False, False, False, 'act'])
    assert (NFStage(network, 3).with_cp, NFStage(network, 2).with_cp) == ('act', False)


@pytest.mark.parametrize('needed', [(True, True, True), (False, True, False), (True, False, True), (True, True, False)])
@pytest.mark.parametrize('last', [False, True])
def test_gradient_of_a_large_pointwise_conv(last, needed):
    """Which is computed in a way of its own, of a conv with less than 1,024 positions and over a million weights."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 1024, 3, 5, generator=generator), torch.randn(1025, 1024, 1, 1, generator=generator)
    grad = torch.randn(2, 1025, 3, 5, generator=generator)
    if last:
        x, grad = x.contiguous(memory_format=torch.channels_last), grad.contiguous(memory_format=torch.channels_last)
    ours = conv_backward(grad, x, weight, ((1, 1), (0, 0), (1, 1), 1), needed)
    wide = [one.double() for one in (grad, x, weight[..., 0, 0])]
    expected = (
        torch.einsum('nohw,oi->nihw', wide[0], wide[2]),
        torch.einsum('nohw,nihw->oi', wide[0], wide[1])[..., None, None],
        wide[0].sum((0, 2, 3)),
    )
    for value, other, need in zip(ours, expected, needed):
        assert need or value is None
        assert not need or (value - other).norm() <= 1e-6 * other.norm()


def test_bfloat16_gradients_of_weights_that_see_padding_alone():
    """One pixel under a kernel of 3 x 3 with stride 2: eight of nine weights have no part in it."""
    conv = WSConv2d(18, 18, 3, 2)
    for _ in range(5):
        junk = [torch.full((2916,), float('nan'), dtype=torch.bfloat16) for _ in range(9)]
        x = torch.randn(1, 18, 1, 1, requires_grad=True)
        with torch.autocast('cpu', torch.bfloat16):
            out = conv(x)
        del junk  # memory that is not zero
        ours = torch.autograd.grad(out.float().square().sum(), (x, conv.weight))
        expected = torch.autograd.grad(plain(conv)(x).square().sum(), (x, conv.weight))
        for value, other in zip(ours, expected):
            assert (value - other).norm() <= 0.03 * other.norm()
