"""Steps that the device leaves out by itself, against those that the host decides on.

A CPU has the same fused optimizers and takes part here as the device.
"""

import copy
import math

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from torch import nn

from nfnet_mm.analysis.launches import count_launches
from nfnet_mm.engine import WarmupEMA
from nfnet_mm.engine.agc import clip
from nfnet_mm.engine.fused import steps_on_device
from nfnet_mm.engine.later import Later
from nfnet_mm.models import NFNet
from nfnet_mm.models.layers import standardize

SGD = dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
OPTIMIZERS = [SGD, dict(type='Adam', lr=0.01), dict(type='AdamW', lr=0.01, weight_decay=0.1)]

needs_fused = pytest.mark.skipif(
    not steps_on_device(build_optim_wrapper(nn.Linear(1, 1), dict(
        type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor', optimizer=SGD)).optimizer),
    reason='this torch has no fused SGD on a CPU',
)  # fmt: skip
pytestmark = needs_fused


@pytest.fixture
def as_device(monkeypatch):
    monkeypatch.setattr(clip, 'on_device', lambda tensor: True)
    monkeypatch.setattr(standardize, '_backward_cpu', standardize._backward)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 2))


def build(net, type='AGCOptimWrapper', optimizer=SGD, **kwargs):
    cfg = dict(type=f'nfnet_mm.{type}', constructor='nfnet_mm.NFOptimWrapperConstructor', optimizer=optimizer)
    return build_optim_wrapper(net, dict(cfg, **kwargs))


def step(net, wrapper, i, bad=None):
    generator = torch.Generator().manual_seed(i)
    wrapper.optimizer.zero_grad()
    net(torch.randn(2, 3, 6, 6, generator=generator)).square().sum().backward()
    if bad is not None:
        net[1].weight.grad[1, 0, 0, 0] = bad
    wrapper.step()


@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=lambda cfg: cfg['type'])
def test_the_same_training_as_with_a_look_at_each_step(optimizer, monkeypatch):
    looked, left = model(), model()
    wrappers = build(looked, optimizer=optimizer), build(left, optimizer=optimizer)
    bad = {0: math.nan, 3: math.inf, 4: -math.inf}  # the first one too, before there is any momentum
    for i in range(6):
        step(looked, wrappers[0], i, bad.get(i))
    monkeypatch.setattr(clip, 'on_device', lambda tensor: True)
    for i in range(6):
        before = copy.deepcopy((left.state_dict(), wrappers[1].optimizer.state_dict()['state']))
        step(left, wrappers[1], i, bad.get(i))
        if i in bad:
            after = left.state_dict(), wrappers[1].optimizer.state_dict()['state']
            torch.testing.assert_close(after if i else after[0], before if i else before[0], rtol=0, atol=0)
    for p, q in zip(looked.parameters(), left.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
    assert wrappers[0].skipped_steps == wrappers[1].skipped_steps == 3
    state = wrappers[1].optimizer.state[left[1].weight]
    assert all(value.isfinite().all() for value in state.values())
    if 'step' in state:
        assert float(state['step']) == 3


def test_what_is_told_of_a_step_that_was_left_out(as_device, caplog):
    net = model()
    wrapper = build(net, max_nonfinite_steps=2)
    hub = MessageHub.get_current_instance()
    hub.update_info('iter', 6)
    step(net, wrapper, 0)
    assert hub.get_scalar('train/agc/skipped_steps').current() == 0
    assert hub.get_scalar('train/agc/clipped_fraction').current() > 0
    step(net, wrapper, 1, math.nan)
    with pytest.raises(
        FloatingPointError, match=r'iteration 7: .*first in 1.weight \(told later.*2 in a row.*max_nonfinite_steps=2'
    ):
        step(net, wrapper, 2, math.nan)


def test_scaled_losses(as_device):
    net = nn.Linear(2, 1)
    wrapper = build(net, 'AmpAGCOptimWrapper', dtype='bfloat16', loss_scale=dict(init_scale=2.0**10))
    before = copy.deepcopy(net.state_dict())
    wrapper.update_params(net(torch.full((1, 2), 1e38)).sum() * 1e3)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert (wrapper.loss_scaler.get_scale(), wrapper.skipped_steps) == (2.0**9, 1)
    net.bias.data.fill_(2.0)
    wrapper.update_params(net(torch.ones(1, 2)).sum())
    assert wrapper.skipped_steps == 0 + 1
    assert float(net.bias.detach()) == pytest.approx(2 - 0.1 * 1.9 * 0.02)  # clipped on the unscaled gradient


def test_global_norm_clipping_comes_after_and_is_logged(as_device):
    net = model()
    wrapper = build(net, clip_grad=dict(max_norm=1e-3))
    step(net, wrapper, 0)
    total = torch.stack([p.grad.norm() for p in net.parameters()]).norm()
    assert float(total) == pytest.approx(1e-3, rel=1e-3)
    assert MessageHub.get_current_instance().get_scalar('train/grad_norm').current() > 1e-3


@pytest.mark.parametrize('optimizer', OPTIMIZERS, ids=lambda cfg: cfg['type'])
@pytest.mark.parametrize('first, second', [(True, False), (False, True)])
def test_states_of_the_other_implementation_are_resumed(optimizer, first, second):
    """Against a training that goes on without a stop; afterwards it is still the second's implementation."""
    nets = model(), model()
    implementations = [dict(fused=True), dict(foreach=False)]
    other = [dict(optimizer, **implementations[not fused]) for fused in (first, second)]
    old, new = build(nets[0], optimizer=other[0]), build(nets[1], optimizer=other[1])
    for i in range(3):
        step(nets[0], old, i)
    state = copy.deepcopy((nets[0].state_dict(), old.state_dict()))
    nets[1].load_state_dict(state[0])
    new.load_state_dict(state[1])
    assert {bool(group['fused']) for group in new.optimizer.param_groups} == {second}
    for i in range(3, 6):
        step(nets[0], old, i)
        step(nets[1], new, i)
    for p, q in zip(nets[0].parameters(), nets[1].parameters()):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_weights_that_are_unfrozen_later():
    net, reference = model(), model()
    for one in (net, reference):
        one[0].requires_grad_(False)
    wrappers = build(net), build(reference, optimizer=dict(SGD, foreach=False))
    for i in range(4):
        if i == 2:
            net[0].requires_grad_(True), reference[0].requires_grad_(True)
        step(net, wrappers[0], i)
        step(reference, wrappers[1], i)
    for p, q in zip(net.parameters(), reference.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


def test_gradients_and_momenta_in_another_memory_layout():
    net, reference = model(), model()
    wrappers = build(net), build(reference, optimizer=dict(SGD, foreach=False))
    for i in range(4):
        if i == 2:
            net.to(memory_format=torch.channels_last)
        for one, wrapper in zip((net, reference), wrappers):
            generator = torch.Generator().manual_seed(i)
            for p in one.parameters():
                p.grad = torch.randn(p.shape, generator=generator)  # contiguous
            wrapper.step()
    for p, q in zip(net.parameters(), reference.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


def test_gradients_of_pointwise_convs_are_not_copied():
    """Their strides may be either layout's, in the same memory."""
    net = nn.Conv2d(4, 6, 1, bias=False).to(memory_format=torch.channels_last)
    wrapper, before = build(net, optimizer=dict(type='SGD', lr=0.5)), net.weight.detach().clone()
    grad = net.weight.grad = torch.linspace(-1e-3, 1e-3, 24).view(6, 4, 1, 1)
    assert grad.stride() != net.weight.stride()
    wrapper.step()
    assert net.weight.grad.data_ptr() == grad.data_ptr() and net.weight.grad.stride() == net.weight.stride()
    torch.testing.assert_close(net.weight, before - 0.5 * grad)


@pytest.mark.parametrize(
    'options', [dict(foreach=True), dict(fused=False), dict(foreach=False), dict(dampening=0.1, nesterov=False)]
)
def test_what_is_not_fused(options):
    assert not steps_on_device(build(model(), optimizer=dict(SGD, **options)).optimizer)


def test_a_weight_with_gaps_in_memory():
    """Fused kernels would take it for one without."""
    found = []
    for optimizer in (SGD, dict(SGD, foreach=False)):
        net = nn.Linear(3, 4, bias=False)
        net.weight = nn.Parameter(torch.linspace(-1, 1, 24).view(4, 6)[:, ::2])
        wrapper = build(net, optimizer=optimizer)
        for _ in range(2):
            net(torch.tensor([1.0, 2.0, 3.0])).square().sum().backward()
            wrapper.step()
        found.append(net.weight)
    assert torch.equal(*found) and not torch.equal(found[0], torch.linspace(-1, 1, 24).view(4, 6)[:, ::2])


def test_sparse_embeddings_are_not_fused():
    net = nn.Embedding(3, 2, sparse=True)
    optimizer = dict(type='SGD', lr=0.1)
    wrapper = build_optim_wrapper(
        net, dict(type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor', optimizer=optimizer)
    )
    wrapper.update_params(net(torch.tensor([1])).sum())
    assert float(net.weight.detach()[1, 0]) != float(net.weight.detach()[0, 0])


def test_a_queue_without_a_gpu_is_none():
    later, told = Later(), []
    later.put(torch.tensor([1.0, 2.0]), told.append)
    later.put(torch.tensor([3.0]), told.append)
    assert told == [[1.0, 2.0], [3.0]]


@pytest.fixture(scope='module')
def f0():
    """A narrow F0, of as many parameters as the real one, as it is trained: its wrapper, its average, a batch."""
    torch.manual_seed(0)
    arch = dict(widths=(32, 32, 32, 32), depths=(1, 2, 6, 3), group_width=8)
    net = nn.Sequential(NFNet(arch, out_indices=(4,), drop_path_rate=0.25), nn.Identity())
    net.head = nn.ModuleDict(dict(fc=nn.Linear(64, 10)))
    return net.train(), build(net), WarmupEMA(net), torch.randn(1, 3, 32, 32)


def test_a_whole_step_of_f0_waits_for_nothing_and_its_update_takes_few_launches(f0, as_device):
    """What may creep back: a number read from the device, a tensor made of numbers, an operation for each parameter."""
    net, wrapper, average, images = f0

    def forward_and_backward():
        features = net[0](images)[0].mean((2, 3))
        net.head['fc'](features).logsumexp(1).sum().backward()

    for _ in range(2):
        wrapper.zero_grad()
        forward_and_backward()
        wrapper.step()
        average.update_parameters(net)
    wrapper.zero_grad()
    assert len(list(net.parameters())) == 233
    counts = count_launches(forward_and_backward)
    assert counts.synchronisations == 0, counts.waits
    counts = count_launches(wrapper.step)
    # AGC 48 by torch's own kernels, of which Triton's spares 40; SGD 4; what is told 9
    assert counts.launches <= 65 and counts.synchronisations == 0, (counts.operations, counts.waits)
    counts = count_launches(lambda: average.update_parameters(net))
    assert counts.launches <= 5 and counts.synchronisations <= 1, counts.waits  # of its own count, on the host
