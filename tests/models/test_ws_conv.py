"""The standardised conv's own backward pass, and what it keeps for it, against torch's operations and timm."""

import threading

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from nfnet_mm.analysis.launches import count_launches
from nfnet_mm.cpu_kernels import launch
from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones import BNResNet, NFNet, NFRegNet, NFResNet
from nfnet_mm.models.backbones.stage import NFStage
from nfnet_mm.models.layers import WSConv2d, conv_of_activation, standardize_kernel
from nfnet_mm.models.layers.activations import get_activation
from nfnet_mm.models.layers.convolution import conv_backward
from tests.stacks import needs_torch

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

    by_us = penalty(lambda x: conv_of_activation(conv, act, x, recompute=True))
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


@needs_torch(2, 2, 'to be told of many gradients')
@pytest.mark.parametrize('dialect', ['authors', 'timm'])
def test_many_gradients_at_once(dialect):
    """As torch computes Jacobians and Hessians, against one by one."""
    conv, x = conv_and_input(dialect, stride=2)
    for out, inputs in ((conv(x), (x, *conv.parameters())), (conv.standardized_weight(), (conv.weight, conv.gain))):
        grads = torch.randn(3, *out.shape, dtype=torch.float64)
        mapped = torch.func.vmap(lambda grad, out=out, of=inputs: torch.autograd.grad(out, of, grad, retain_graph=True))
        for together in (torch.autograd.grad(out, inputs, grads, True, is_grads_batched=True), mapped(grads)):
            for i, grad in enumerate(grads):
                for ours, expected in zip(together, torch.autograd.grad(out, inputs, grad, True)):
                    torch.testing.assert_close(ours[i], expected, rtol=1e-10, atol=1e-12)


def test_channels_last_weights_keep_their_layout():
    conv, x = conv_and_input(groups=2)
    expected = gradients(conv, x, conv)
    conv = conv.to(memory_format=torch.channels_last)
    assert conv.standardized_weight().is_contiguous(memory_format=torch.channels_last)
    for ours, other in zip(gradients(conv, x, conv), expected):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-12)


HALF_ON_CPU = needs_torch(2, 2, 'float16 under autocast on a CPU')


@pytest.mark.parametrize('half', [torch.bfloat16, pytest.param(torch.float16, marks=HALF_ON_CPU)])
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


def test_a_random_activation():
    """Only a whole block can be computed again with the same random numbers."""
    act, x, found = nn.RReLU(0.1, 0.9), torch.randn(2, 3, 32, 32), []
    with pytest.raises(UserError, match='with_cp=.act. does not go with act=RReLU.*take with_cp=True'):
        NFNet(TINY, act=act, with_cp='act')
    net = NFNet(TINY, act=act, out_indices=(2,))
    for with_cp in (False, True):
        net.with_cp = with_cp
        torch.manual_seed(0)
        found.append(torch.autograd.grad(net(x)[-1].square().sum(), net.parameters()))
    assert all(map(torch.equal, *found))
    assert NFNet(TINY, act=nn.PReLU(), with_cp='act').act_is_random is False


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


@pytest.mark.parametrize('stride, padding, dilation', [((1, 1), (1, 1), (1, 1)), ((2, 3), (0, 2), (2, 1))])
@pytest.mark.parametrize('last', [False, True])
def test_gradient_of_a_large_weight_over_few_positions(last, stride, padding, dilation):
    """Which is a product of matrices, of a conv with up to 256 positions and over 262,144 weights."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 200, 7, 9, generator=generator), torch.randn(160, 200, 3, 3, generator=generator)
    wide = weight.double().requires_grad_()
    out = F.conv2d(x.double(), wide, None, stride, padding, dilation)
    grad = torch.randn(out.shape, generator=generator)
    out.backward(grad.double())
    if last:
        x, grad = x.contiguous(memory_format=torch.channels_last), grad.contiguous(memory_format=torch.channels_last)
    settings = stride, padding, dilation, 1
    made = []
    counts = count_launches(lambda: made.extend(conv_backward(grad, x, weight, settings, (False, True, True))))
    assert 'mm' in counts.operations and 'convolution_backward' not in counts.operations
    _, found, of_bias = made
    assert (found - wide.grad).norm() <= 1e-6 * wide.grad.norm()
    torch.testing.assert_close(of_bias.double(), grad.double().sum((0, 2, 3)), rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize('in_place', [False, True])
@pytest.mark.parametrize('where', ['conv', 'all'])
def test_a_hook_that_changes_the_input(where, in_place):
    """What the conv got is what its gradient is of, although a strided one runs its activation again."""
    conv, x = conv_and_input(stride=2)
    act = get_activation('gelu')
    expected = gradients(lambda x: plain(conv)(act(x) * 0.5), x, conv)

    def hook(module, args):
        return (args[0].mul_(0.5) if in_place else args[0] * 0.5,)

    register = torch.nn.modules.module.register_module_forward_pre_hook if where == 'all' else None
    handle = register(hook) if register else conv.register_forward_pre_hook(hook)
    try:
        found = gradients(lambda x: conv_of_activation(conv, act, x, recompute=True), x, conv)
    finally:
        handle.remove()
    for ours, other in zip(found, expected):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('family', [NFResNet, NFRegNet])
def test_plain_convs_in_the_place_of_standardised_ones(family):
    """With the same weights they do the same, what scales a branch included."""
    torch.manual_seed(0)
    net, x = family(dict(widths=(16, 24, 32, 48), depths=(1, 1, 1, 1))).eval(), torch.randn(2, 3, 64, 64)
    for name, p in net.named_parameters():
        if name.endswith('skip_gain'):
            nn.init.constant_(p, 0.5)
    expected = net(x)
    for block in [block for stage in net.stages for block in stage]:
        for name in ('conv0', 'conv2'):
            conv = getattr(block, name)
            other = nn.Conv2d(conv.in_channels, conv.out_channels, 1)
            other.load_state_dict(dict(weight=conv.standardized_weight(), bias=conv.bias))
            setattr(block, name, other)
    for ours, theirs in zip(net(x), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_an_empty_batch_of_a_large_pointwise_conv():
    conv, x = WSConv2d(1024, 1024, 1), torch.zeros(0, 1024, 3, 3, requires_grad=True)
    conv(x).sum().backward()
    assert x.grad.shape == x.shape and not any(p.grad.any() for p in conv.parameters())


def test_types_and_default_devices_in_turn(monkeypatch):
    """A weight with an odd number of values, then one of twice as wide ones, that share memory."""
    monkeypatch.setattr(launch, '_memory', threading.local())
    narrow, wide = WSConv2d(3, 3, 3), WSConv2d(1, 2, 3).double()
    for conv, x in ((narrow, torch.randn(1, 3, 5, 5)), (wide, torch.randn(1, 1, 5, 5, dtype=torch.float64))):
        with torch.device('meta'):  # where neither the weights nor the images are
            out = conv(x)
        torch.testing.assert_close(out, plain(conv)(x))


def test_without_a_batch():
    for kwargs in SHAPES:
        conv, x = conv_and_input(**kwargs)
        torch.autograd.gradcheck(conv, x[0].detach().requires_grad_())
        torch.testing.assert_close(conv(x[0]), conv(x)[0])


@pytest.mark.parametrize(
    'device', ['cpu', pytest.param('cuda', marks=needs_torch(2, 4, 'fake tensors of a GPU that is not there'))]
)
def test_fake_tensors(device):
    """They have shapes and no values; what is computed with them leaves nothing behind for real ones."""
    x, failed = torch.randn(1, 3, 8, 8), standardize_kernel._failed
    with torch._subclasses.FakeTensorMode(), torch.device(device):
        conv = WSConv2d(3, 4, 3)
        out = conv(torch.empty(2, 3, 8, 8)).sum()
        assert out.device.type == device
        if device == 'cpu':  # without a GPU autograd has no thread for one
            out.backward()
            assert conv.weight.grad.shape == (4, 3, 3, 3)
    assert standardize_kernel._failed is failed
    conv = WSConv2d(3, 4, 3)
    torch.testing.assert_close(conv(x), plain(conv)(x))


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('kernel_size', [1, 3])
def test_a_gradient_is_strided_as_its_weight(kernel_size, layout):
    """Or DistributedDataParallel warns that the strides do not match those of its buckets."""
    conv, x = conv_and_input(kernel_size=kernel_size)
    conv, x = conv.to(memory_format=layout), x.detach().contiguous(memory_format=layout)
    expected = torch.autograd.grad(plain(conv)(x).square().sum(), conv.weight)[0]
    conv(x).square().sum().backward()
    assert conv.weight.grad.stride() == conv.weight.stride()
    torch.testing.assert_close(conv.weight.grad, expected, rtol=1e-10, atol=1e-12)
