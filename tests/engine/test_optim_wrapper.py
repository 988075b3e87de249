import copy
import math

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from torch import nn

from nfnet_mm.engine import AGCOptimWrapper, AmpAGCOptimWrapper, adaptive_clip_grad_
from nfnet_mm.models import NFNet

SGD = dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)


class Classifier(nn.Module):

    def __init__(self):
        super().__init__()
        self.backbone = NFNet(dict(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), group_width=4), out_indices=(4, ))
        self.head = nn.Sequential()
        self.head.fc = nn.Linear(16, 3)

    def forward(self, x):
        return self.head.fc(self.backbone(x)[0].mean((2, 3)))


def build(model, type='AGCOptimWrapper', **kwargs):
    cfg = dict(type=f'nfnet_mm.{type}', constructor='nfnet_mm.NFOptimWrapperConstructor', optimizer=SGD)
    return build_optim_wrapper(model, dict(cfg, **kwargs))


def grads(model, seed=0, size=10.0):
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator) * size


def test_groups():
    model = Classifier()
    wrapper = build(model)
    decayed, plain = wrapper.optimizer.param_groups
    names = {p: n for n, p in model.named_parameters()}
    assert {names[p].rpartition('.')[2] for p in decayed['params']} == {'weight'}
    assert {names[p].rpartition('.')[2] for p in plain['params']} == {'bias', 'gain', 'skip_gain'}
    assert (decayed['weight_decay'], plain['weight_decay']) == (0.01, 0.0)
    assert len(names) == len(decayed['params']) + len(plain['params'])


def test_custom_keys_keep_their_rates_but_never_decay_a_gain():
    model = Classifier()
    wrapper = build(model, paramwise_cfg=dict(custom_keys={'head.fc': dict(lr_mult=10., decay_mult=2.)}))
    settings = {}
    for group in wrapper.optimizer.param_groups:
        for p in group['params']:
            settings[p] = (group['lr'], group['weight_decay'])
    assert settings[model.head.fc.weight] == (1.0, 0.02)
    assert settings[model.head.fc.bias] == (1.0, 0.0)
    assert settings[model.backbone.stem.conv0.gain] == (0.1, 0.0)
    assert len(wrapper.optimizer.param_groups) == 4


def test_everything_is_clipped_but_the_classifiers_weight():
    model = Classifier()
    wrapper = build(model, agc=dict(clipping=0.02))
    grads(model)
    expected = {n: p.grad.clone() for n, p in model.named_parameters()}
    twin = copy.deepcopy(model)
    for p, q in zip(twin.parameters(), model.parameters()):
        p.grad = q.grad.clone()
    adaptive_clip_grad_([p for n, p in twin.named_parameters() if n != 'head.fc.weight'], 0.02, 1e-3)
    wrapper.optimizer.step = lambda: None
    wrapper.step()
    for (name, p), q in zip(model.named_parameters(), twin.parameters()):
        assert torch.equal(p.grad, q.grad)
        assert torch.equal(p.grad, expected[name]) == (name == 'head.fc.weight')


def test_excluding_by_name():
    net = nn.ModuleDict(dict(fc_cls=nn.Linear(3, 2), fc_reg=nn.Linear(3, 2)))
    wrapper = build(net, paramwise_cfg=dict(agc_exclude=['*cls.weight']))
    grads(net)
    before = {n: p.grad.clone() for n, p in net.named_parameters()}
    wrapper.step()
    assert [n for n, p in net.named_parameters() if torch.equal(p.grad, before[n])] == ['fc_cls.weight']
    with pytest.raises(ValueError, match="agc_exclude='fc_class.weight' matches no parameter; near ones: fc_cls.weight"):
        build(net, paramwise_cfg=dict(agc_exclude='fc_class.weight'))


def test_accumulation_clips_the_sum_at_update_steps_only():
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    reference = copy.deepcopy(model)
    x = torch.randn(6, 4)
    wrapper = build(model, accumulative_counts=3)
    wrapper.initialize_count_status(model, 0, 6)
    optimizer = torch.optim.SGD([dict(params=[reference.weight]), dict(params=[reference.bias], weight_decay=0.)],
                                **{k: v for k, v in SGD.items() if k != 'type'})
    for part in x.split(1):
        wrapper.update_params(model(part).square().sum() * 100)
    for part in x.split(3):
        optimizer.zero_grad()
        (reference(part).square().sum() * 100 / 3).backward()
        adaptive_clip_grad_(reference.parameters(), 0.01, 1e-3)
        optimizer.step()
    assert torch.allclose(model.weight, reference.weight, rtol=1e-6)
    assert torch.allclose(model.bias, reference.bias, rtol=1e-6)


def test_statistics_reach_the_log():
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.eye(2)
    wrapper = build(model)
    model.weight.grad = torch.tensor([[0.001, 0.], [0., 0.1]])
    wrapper.step()
    hub = MessageHub.get_current_instance()
    assert hub.get_scalar('train/agc/clipped_fraction').current() == 0.5
    assert hub.get_scalar('train/agc/min_scale').current() == pytest.approx(0.1)


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('where', ['backbone.stages.1.0.skip_gain', 'head.fc.weight'])
@pytest.mark.parametrize('type', ['AGCOptimWrapper', 'AmpAGCOptimWrapper'])
def test_a_non_finite_gradient_never_reaches_the_weights(bad, where, type, caplog):
    model = Classifier()
    wrapper = build(model, type, max_nonfinite_steps=3)
    grads(model)
    wrapper.step()  # momentum buffers exist from here on
    before = copy.deepcopy((model.state_dict(), wrapper.optimizer.state_dict()))
    for attempt in (1, 2, 3):
        grads(model, attempt)
        dict(model.named_parameters())[where].grad.view(-1)[-1] = bad
        if attempt < 3:
            wrapper.step()
        else:
            with pytest.raises(FloatingPointError, match=f'first in {where} .*3 in a row.*max_nonfinite_steps=3'):
                wrapper.step()
    assert wrapper.skipped_steps == 3
    assert MessageHub.get_current_instance().get_scalar('train/agc/skipped_steps').current() == 3
    after = (model.state_dict(), wrapper.optimizer.state_dict())
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_a_finite_step_ends_the_row():
    model = nn.Linear(2, 1)
    wrapper = build(model, max_nonfinite_steps=2)
    for i in range(6):
        grads(model, i)
        if i % 2:
            model.bias.grad.fill_(math.nan)
        wrapper.step()
    assert wrapper.skipped_steps == 3


def test_a_norm_that_overflows_is_not_a_non_finite_gradient():
    model = nn.Linear(3, 1, bias=False)
    wrapper = build(model)
    model.weight.grad = torch.tensor([[1e30, -2e30, 2e30]])
    direction = torch.tensor([[1 / 3, -2 / 3, 2 / 3]])
    limit = 0.01 * float(model.weight.norm())
    wrapper.step()
    assert wrapper.skipped_steps == 0
    assert torch.allclose(model.weight.grad, direction * limit, rtol=1e-5)


def test_float16_scaler_overflow_halves_the_scale_and_takes_no_step():
    model = nn.Linear(2, 1)
    wrapper = build(model, 'AmpAGCOptimWrapper', loss_scale=dict(init_scale=2.**10))
    before = copy.deepcopy(model.state_dict())
    wrapper.update_params(model(torch.full((1, 2), 1e38)).sum() * 1e3)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert (wrapper.loss_scaler.get_scale(), wrapper.skipped_steps) == (2.**9, 1)
    # the next step is clipped on the unscaled gradient
    model.bias.data.fill_(2.)
    wrapper.update_params(model(torch.ones(1, 2)).sum())
    assert wrapper.skipped_steps == 1
    assert float(model.bias.detach()) == pytest.approx(2 - 0.1 * 1.9 * 0.02)  # Nesterov's first step is 1.9 gradients


def test_bfloat16_trains_without_a_scaler():
    torch.manual_seed(0)
    model = Classifier()
    wrapper = build(model, 'AmpAGCOptimWrapper', dtype='bfloat16', agc=dict(clipping=0.1))
    assert wrapper.loss_scaler.get_scale() == 1
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8) % 3
    losses = []
    for _ in range(15):
        with wrapper.optim_context(model):
            logits = model(x)
            assert logits.dtype == torch.bfloat16
            loss = nn.functional.cross_entropy(logits.float(), y)
        wrapper.update_params(loss)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_global_norm_clipping_comes_after():
    model = nn.Linear(4, 4)
    wrapper = build(model, clip_grad=dict(max_norm=1e-3))
    grads(model)
    wrapper.step()
    total = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert float(total) == pytest.approx(1e-3, rel=1e-3)


def test_resuming_keeps_the_configured_clipping():
    model = nn.Linear(2, 2)
    old, new = build(model, agc=dict(clipping=0.5)), build(model, agc=dict(clipping=0.02))
    grads(model)
    old.step()
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    grads(model)
    expected = [p.grad.clone() for p in model.parameters()]
    weights = [p.detach().clone() for p in model.parameters()]
    new.step()
    for p, g, w in zip(model.parameters(), expected, weights):
        limit = 0.02 * (w.norm(dim=1) if w.dim() > 1 else w.norm())
        norm = g.norm(dim=1) if g.dim() > 1 else g.norm()
        assert torch.allclose(p.grad.norm(dim=1) if g.dim() > 1 else p.grad.norm(), torch.minimum(limit, norm))


@pytest.mark.parametrize('kwargs, message', [
    (dict(agc=dict(cliping=0.01)), "agc key 'cliping' is unknown: agc takes 'clipping' and 'eps'; did you mean 'clipping'"),
    (dict(agc=dict(clipping=0)), 'clipping=0 must be'),
    (dict(agc=dict(clipping=float('nan'))), 'clipping=nan'),
    (dict(agc=dict(eps=-1)), 'eps=-1'),
    (dict(max_nonfinite_steps=0), 'max_nonfinite_steps=0'),
    (dict(paramwise_cfg=dict(norm_decay_mul=0)), "paramwise_cfg key 'norm_decay_mul' is unknown. "
     "Did you mean 'norm_decay_mult'"),
])
def test_bad_configs(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(nn.Linear(2, 2), **kwargs)


@pytest.fixture
def one_process(tmp_path):
    dist = torch.distributed
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('original', [True, False])
def test_fsdp_is_refused(one_process, original):
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
    model = FSDP(nn.Linear(3, 2), use_orig_params=original, device_id=torch.device('cpu'))
    with pytest.raises(RuntimeError, match='AGC needs whole weights, .* is sharded by FSDP'):
        AGCOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))


def test_dtensor_is_refused(one_process):
    init_device_mesh = pytest.importorskip('torch.distributed.device_mesh').init_device_mesh
    from torch.distributed.fsdp import fully_shard
    model = nn.Linear(3, 2)
    fully_shard(model, mesh=init_device_mesh('cpu', (1, )))
    with pytest.raises(RuntimeError, match=r'shape \(2, 3\) is sharded by a DTensor'):
        AGCOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))


def test_wrappers_that_step_past_us_are_refused():
    zero3 = nn.Parameter(torch.ones(0))
    zero3.ds_id = 1  # how DeepSpeed marks a partitioned parameter; its package is not there to make a real one
    with pytest.raises(RuntimeError, match='sharded by DeepSpeed ZeRO-3'):
        AGCOptimWrapper(torch.optim.SGD([zero3], lr=0.1))
    wrapper = AGCOptimWrapper(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1))
    with pytest.raises(RuntimeError, match='does not work under Linear'):  # what mmengine's DeepSpeed strategy does
        wrapper.model = nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match='refuses use_fsdp=True'):
        AmpAGCOptimWrapper(use_fsdp=True, optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1))
