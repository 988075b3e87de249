"""The end of a block, whose backward pass is written by hand, against operations that torch differentiates."""

import copy

import pytest
import torch
from torch import nn

from nfnet_mm.models.layers import EfficientChannelAttention, SqueezeExcite, gated_sum
from tests.stacks import needs_torch


def given(dtype=torch.float64, learned=True, masked=True, layout=torch.contiguous_format):
    torch.manual_seed(0)
    attention = SqueezeExcite(6, 4).to(dtype)
    for p in attention.parameters():
        nn.init.normal_(p)
    shortcut, x = (torch.randn(3, 6, 4, 5, dtype=dtype).to(memory_format=layout).requires_grad_() for _ in range(2))
    gain = torch.tensor(0.7, dtype=dtype, requires_grad=True) if learned else None
    mask = torch.tensor([True, False, True]).view(3, 1, 1, 1) if masked else None
    return shortcut, x, attention, 1.3, gain, mask


def by_hand(shortcut, x, attention, factor, gain, mask):
    gate = torch.sigmoid(attention.fc2(torch.relu(attention.fc1(x.mean((2, 3))))))[:, :, None, None]
    return shortcut + x * gate * factor * (1 if gain is None else gain) * (1 if mask is None else mask)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('learned', [False, True])
def test_values_and_gradients(learned, masked, layout):
    arguments = given(learned=learned, masked=masked, layout=layout)
    shortcut, x, attention, _, gain, _ = arguments
    inputs = [shortcut, x, *attention.parameters(), *([gain] if learned else [])]
    weight = torch.randn_like(x)
    ours, theirs = (f(*arguments) for f in (gated_sum, by_hand))
    assert ours.grad_fn.name() == '_GatedSumBackward'
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for one, other in zip(*(torch.autograd.grad((out * weight).sum(), inputs) for out in (ours, theirs))):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_second_derivatives_and_many_gradients_at_once():
    shortcut, x, attention, factor, gain, mask = given()
    x = x.detach()[:2, :, :2, :1].clone().requires_grad_()
    shortcut = shortcut.detach()[:2, :, :2, :1].clone().requires_grad_()
    parameters = [p.detach().clone().requires_grad_() for p in attention.parameters()]

    def function(shortcut, x, gain, *values):
        module = copy.deepcopy(attention)
        for (name, _), value in zip(attention.named_parameters(), values):
            part, _, last = name.rpartition('.')
            delattr(module.get_submodule(part), last)
            setattr(module.get_submodule(part), last, value)
        return gated_sum(shortcut, x, module, factor, gain, mask[:2])

    inputs = shortcut, x, gain, *parameters
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@needs_torch(2, 2, what='to be told of torch.func')
def test_gradients_of_each_sample():
    shortcut, x, attention, factor, gain, _ = given(masked=False)
    parameters = {name: p.detach() for name, p in attention.named_parameters()}

    def loss(parameters, shortcut, x):
        with torch.nn.utils.stateless._reparametrize_module(attention, parameters):
            return gated_sum(shortcut[None], x[None], attention, factor, gain, None).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, shortcut.detach(), x.detach())
    for i in range(len(x)):
        out = by_hand(shortcut[i : i + 1], x[i : i + 1], attention, factor, gain, None).square().sum()
        for name, expected in zip(each, torch.autograd.grad(out, list(attention.parameters()))):
            torch.testing.assert_close(each[name][i], expected)


def test_under_autocast_the_gate_is_computed_in_float32():
    shortcut, x, attention, *rest = given(torch.float32)
    wide = by_hand(shortcut.double(), x.double(), copy.deepcopy(attention).double(), *rest)
    expected = torch.autograd.grad(wide.sum(), (shortcut, x))
    with torch.autocast('cpu', torch.bfloat16):
        out = gated_sum(shortcut.bfloat16(), x.bfloat16(), attention, *rest)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), wide, rtol=1e-2, atol=1e-2)
    grads = torch.autograd.grad(out.float().sum(), (shortcut, x, attention.fc1.weight))
    assert grads[2].dtype == torch.float32
    for one, other in zip(grads, expected):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize('frozen', ['fc1', 'fc2', 'attention', 'x'])
def test_what_is_frozen_gets_no_gradient_and_the_others_theirs(frozen):
    arguments = given()
    shortcut, x, attention, *_ = arguments
    names = dict(attention.named_parameters(), shortcut=shortcut, x=x)
    for name, p in names.items():
        if name.startswith(frozen) or (frozen == 'attention' and name.startswith('fc')):
            p.requires_grad_(False)
    gradients = []
    for function in (gated_sum, by_hand):
        function(*arguments).square().sum().backward()
        gradients.append({name: p.grad for name, p in names.items()})
        for p in names.values():
            p.grad = None
    for name, gradient in gradients[0].items():
        assert (gradient is None) == (gradients[1][name] is None) == (not names[name].requires_grad)
        if gradient is not None:
            torch.testing.assert_close(gradient, gradients[1][name])


def changed(kind, attention):
    if kind == 'hook':
        attention.register_forward_hook(lambda module, args, out: out * 0)
    if kind == 'hook of a layer':
        attention.fc1.register_forward_hook(lambda module, args, out: out * 0 - 1)
        nn.init.zeros_(attention.fc2.bias)
        nn.init.constant_(attention.fc2.weight, 0)
    if kind == 'another layer':
        attention.fc2 = nn.Sequential(attention.fc2, nn.Threshold(1e9, -1e9))
    return EfficientChannelAttention(6).double() if kind == 'eca' else attention


@pytest.mark.parametrize('kind,gate', [('hook', 0.0), ('hook of a layer', 0.5), ('another layer', 0.0), ('eca', None)])
def test_hooks_are_called_and_other_modules_are_used(kind, gate):
    shortcut, x, attention, factor, gain, mask = given()
    attention = changed(kind, attention)
    gate = attention(x) if gate is None else gate
    out = gated_sum(shortcut, x, attention, factor, gain, mask)
    torch.testing.assert_close(out, shortcut + x * gate * factor * gain * mask)
