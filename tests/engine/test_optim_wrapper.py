import copy
import math

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from nfnet_mm.engine import AGCOptimWrapper, AmpAGCOptimWrapper, adaptive_clip_grad_
from nfnet_mm.engine.constructor import last_weights
from nfnet_mm.errors import UserError
from nfnet_mm.models import NFNet
from tests.stacks import LOSS_SCALING

SGD = dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = NFNet(dict(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), group_width=4), out_indices=(4,))
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
        p.grad = torch.randn(p.shape, generator=generator).to(p.device) * size


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
    wrapper = build(model, paramwise_cfg=dict(custom_keys={'head.fc': dict(lr_mult=10.0, decay_mult=2.0)}))
    settings = {}
    for group in wrapper.optimizer.param_groups:
        for p in group['params']:
            settings[p] = (group['lr'], group['weight_decay'])
    assert settings[model.head.fc.weight] == (1.0, 0.02)
    assert settings[model.head.fc.bias] == (1.0, 0.0)
    assert settings[model.backbone.stem.conv0.gain] == (0.1, 0.0)
    assert len(wrapper.optimizer.param_groups) == 4


class Shared(nn.Module):
    """One conv under three names, as the heads of RTMDet and NAS-FPN share theirs over pyramid levels."""

    def __init__(self, times=3):
        super().__init__()
        conv = nn.Conv2d(2, 2, 1)
        self.levels = nn.ModuleList([nn.Sequential(conv) for _ in range(times)])
        self.other = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return sum(level(x) for level in self.levels).square().sum() + self.other(x).square().sum()


@pytest.mark.parametrize('type', ['AGCOptimWrapper', 'OptimWrapper'])
def test_a_shared_parameter_is_stepped_and_clipped_once(type):
    torch.manual_seed(0)
    model = Shared()
    reference = copy.deepcopy(model)
    wrapper = (
        build(model, type)
        if 'AGC' in type
        else build_optim_wrapper(
            model, dict(type=type, constructor='nfnet_mm.NFOptimWrapperConstructor', optimizer=SGD)
        )
    )
    listed = [p for group in wrapper.optimizer.param_groups for p in group['params']]
    assert len(listed) == len(set(listed)) == 4
    x = torch.randn(2, 2, 3, 3)
    wrapper.update_params(model(x))
    reference(x).backward()
    with torch.no_grad():
        for p in reference.parameters():
            grad = p.grad
            if 'AGC' in type:
                over = 0.01 * (p.flatten(1).norm(dim=1) if p.dim() > 1 else p.norm()).clamp(min=1e-3)
                norm = grad.flatten(1).norm(dim=1) if p.dim() > 1 else grad.norm()
                grad = grad * torch.minimum(torch.ones(()), over / norm).view(-1, *[1] * (p.dim() - 1))
            grad = grad + (0.01 * p if p.dim() > 1 else 0)
            p -= 0.1 * 1.9 * grad  # the first step of Nesterov momentum 0.9
    for p, q in zip(model.parameters(), reference.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)


def test_a_parameter_given_twice_is_clipped_once_without_our_constructor_too():
    p = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    p.grad = torch.tensor([[30.0, 40.0]])
    assert adaptive_clip_grad_([p, p], 0.1, 1e-3).units == 1
    torch.testing.assert_close(p.grad, torch.tensor([[0.3, 0.4]]))
    with pytest.warns(UserWarning, match='duplicate parameters'):
        wrapper = AGCOptimWrapper(torch.optim.SGD([p, p], lr=0.0), agc=dict(clipping=0.01))
    wrapper.step()
    torch.testing.assert_close(p.grad, torch.tensor([[0.03, 0.04]]))


def test_a_shared_parameter_with_two_settings():
    keys = {'levels.1': dict(lr_mult=0.1)}
    with pytest.raises(
        ValueError,
        match='levels.0.0.weight and levels.1.0.weight and levels.2.0.weight are one shared '
        'parameter, .* two values of lr: 0.1 and 0.01',
    ):
        build(Shared(), paramwise_cfg=dict(custom_keys=keys))
    model = Shared()
    wrapper = build(model, paramwise_cfg=dict(custom_keys=keys, bypass_duplicate=True))
    assert {group['lr'] for group in wrapper.optimizer.param_groups} == {0.1}
    build(Shared(), paramwise_cfg=dict(custom_keys={'levels.1': dict(lr_mult=1.0, decay_mult=1.0)}))  # the same


@pytest.mark.parametrize(
    'optimizer, decay',
    [
        (dict(type='AdamW', lr=0.1), 0.01),
        (dict(type='AdamW', lr=0.1, weight_decay=0.05), 0.05),
        (dict(type='SGD', lr=0.1), 0.0),
    ],
)
def test_gains_never_decay_whatever_the_optimizers_default_is(optimizer, decay):
    model = Classifier()
    wrapper = build(model, optimizer=optimizer)
    settings = {p: group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']}
    assert {settings[p] for p in model.parameters() if p.dim() < 2} == {0.0}
    assert {settings[p] for p in model.parameters() if p.dim() > 1} == {decay}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    wrapper.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, before[name] * (1 - (0.1 * decay if p.dim() > 1 else 0)))


def test_lars_does_not_hold_skip_gains_at_zero():
    """LARS steps in proportion to a parameter's norm: a SkipInit scalar would stay where it starts, at zero."""
    pytest.importorskip('mmpretrain.engine')
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = Classifier()
    wrapper = build(model, optimizer=dict(type='LARS', lr=1.0, momentum=0.9, weight_decay=1e-6), agc=dict(clipping=1.0))
    excluded = {p for group in wrapper.optimizer.param_groups if group.get('lars_exclude') for p in group['params']}
    assert excluded == {p for p in model.parameters() if p.dim() < 2}
    gain = model.backbone.stages[0][0].skip_gain
    for grad in (0.25, 0.5):  # above all limits of AGC's: 1 * max(|w|, 1e-3)
        gain.grad = torch.tensor(grad)
        before, limit = float(gain.detach()), max(abs(float(gain.detach())), 1e-3)
        wrapper.step()
        momentum = 0.9 * 1e-3 if grad == 0.5 else 0
        assert float(gain.detach()) == pytest.approx(before - limit - momentum, rel=1e-4)


def test_an_optimizer_that_knows_no_decay_keeps_one_group():
    model = Classifier()
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor', optimizer=dict(type='LBFGS', lr=0.1)
        ),
    )
    assert len(wrapper.optimizer.param_groups) == 1  # it takes no more


# head config -> the weights that give its logits
HEADS = [
    (dict(type='LinearClsHead', num_classes=5, in_channels=16), ['fc']),
    (dict(type='nfnet_mm.NFClsHead', num_classes=5, in_channels=16), ['fc']),
    (dict(type='LinearRegressionHead', num_classes=1, in_channels=16), ['fc']),
    (dict(type='StackedLinearClsHead', num_classes=5, in_channels=16, mid_channels=[12, 8]), ['layers.2.fc']),
    (dict(type='StackedLinearClsHead', num_classes=8, in_channels=16, mid_channels=[8]), ['layers.1.fc']),
    (dict(type='ArcFaceClsHead', num_classes=5, in_channels=16, num_subcenters=3), ['norm_product']),
    (
        dict(type='CSRAClsHead', num_classes=5, in_channels=16, num_heads=2, lam=0.1),
        ['csra_heads.0.head', 'csra_heads.1.head'],
    ),
    (dict(type='MultiLabelLinearClsHead', num_classes=5, in_channels=16), ['fc']),
    (
        dict(
            type='MultiTaskHead',
            in_channels=16,
            task_heads=dict(
                a=dict(type='LinearClsHead', num_classes=5),
                b=dict(type='StackedLinearClsHead', num_classes=3, mid_channels=[8]),
            ),
        ),
        ['task_heads.a.fc', 'task_heads.b.layers.1.fc'],
    ),
    (dict(type='VisionTransformerClsHead', num_classes=5, in_channels=16, hidden_dim=8), ['layers.head']),
    (dict(type='DeiTClsHead', num_classes=5, in_channels=16), ['layers.head', 'layers.head_dist']),
    (dict(type='ConformerHead', num_classes=5, in_channels=[16, 12]), ['conv_cls_head', 'trans_cls_head']),
    (dict(type='EfficientFormerClsHead', num_classes=5, in_channels=16), ['head', 'dist_head']),
    (dict(type='LeViTClsHead', num_classes=5, in_channels=16), ['head.linear', 'head_dist.linear']),
    (dict(type='VigClsHead', num_classes=5, in_channels=16, hidden_dim=8), ['fc2']),
]


@pytest.mark.parametrize('head, last', HEADS, ids=[f'{head["type"]}{i}' for i, (head, _) in enumerate(HEADS)])
def test_the_last_weights_of_every_classification_head_are_not_clipped(head, last):
    mmpretrain = pytest.importorskip('mmpretrain.registry')
    if head['type'] == 'LinearRegressionHead' and mmpretrain.MODELS.get(head['type']) is None:
        pytest.skip('mmpretrain 1.2 has no LinearRegressionHead')
    model = nn.ModuleDict(dict(neck=nn.Linear(16, 16), head=mmpretrain.MODELS.build(head)))
    wrapper = build(model)
    grads(model)
    before = {name: p.grad.clone() for name, p in model.named_parameters()}
    wrapper.step()
    kept = {name for name, p in model.named_parameters() if torch.equal(p.grad, before[name])}
    assert kept == {f'head.{name}.weight' for name in last}


@pytest.mark.parametrize(
    'head, last',
    [
        (dict(type='DeiTClsHead'), ['layers.head', 'layers.head_dist']),
        (dict(type='EfficientFormerClsHead'), ['head', 'dist_head']),
        (dict(type='ConformerHead', in_channels=[8, 8]), ['conv_cls_head', 'trans_cls_head']),
        (dict(type='LeViTClsHead'), ['head.linear', 'head_dist.linear']),
        (dict(type='CSRAClsHead', num_heads=2, lam=0.1), ['csra_heads.0.head', 'csra_heads.1.head']),
        (dict(type='StackedLinearClsHead', mid_channels=[8]), ['layers.1.fc']),
        (dict(type='LinearClsHead'), ['fc']),
    ],
)
def test_the_last_weights_are_told_where_shapes_tell_nothing(head, last):
    mmpretrain = pytest.importorskip('mmpretrain.registry')
    model = nn.ModuleDict(dict(head=mmpretrain.MODELS.build(dict(dict(num_classes=8, in_channels=8), **head))))
    assert {name for name, _ in last_weights(model)} == {f'head.{name}.weight' for name in last}


@pytest.mark.parametrize('type', ['OptimWrapper', 'nfnet_mm.AGCOptimWrapper'])
def test_what_is_unfrozen_later_trains(type):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    wrapper = build_optim_wrapper(
        model,
        dict(
            type=type,
            constructor='nfnet_mm.NFOptimWrapperConstructor',
            optimizer=dict(type='SGD', lr=0.1, weight_decay=0.1),
        ),
    )
    assert not any(p.requires_grad for p in model[0].parameters())
    before = [p.detach().clone() for p in model[0].parameters()]
    wrapper.update_params(model(torch.ones(2, 3)).sum())
    assert all(torch.equal(p, q) for p, q in zip(model[0].parameters(), before))  # not even decayed
    model[0].requires_grad_(True)
    wrapper.update_params(model(torch.ones(2, 3)).sum())
    assert not any(torch.equal(p, q) for p, q in zip(model[0].parameters(), before))


def test_a_submodule_called_module_is_not_the_model():
    model = nn.ModuleDict(dict(module=nn.Linear(2, 2), other=nn.Linear(2, 2)))
    assert sum(len(group['params']) for group in build(model).optimizer.param_groups) == 4


def test_closures_are_refused():
    model = nn.Linear(2, 2)
    wrapper = build(model, optimizer=dict(type='LBFGS', lr=0.1))
    with pytest.raises(RuntimeError, match='AGCOptimWrapper does not go with a closure, in which LBFGS computes'):
        wrapper.step(closure=lambda: model(torch.ones(1, 2)).sum())


@pytest.mark.parametrize(
    'norm', [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm, nn.utils.weight_norm, lambda m: m]
)
@pytest.mark.parametrize('groups', [1, 2])
def test_units_of_normalised_transposed_convs(norm, groups):
    torch.manual_seed(0)
    model = nn.Sequential(norm(nn.ConvTranspose2d(4, 6, 3, groups=groups, bias=False)))
    wrapper = build(model, agc=dict(clipping=1e-4))
    weight = next(p for p in model.parameters() if p.shape == (4, 6 // groups, 3, 3))
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    wrapper.step = None
    wrapper._clip_adaptively()

    def units(t):  # one row for each of the 6 output channels
        return t.detach().view(groups, 4 // groups, 6 // groups, 9).transpose(1, 2).flatten(0, 1).flatten(1).norm(dim=1)

    torch.testing.assert_close(units(weight.grad), 1e-4 * units(weight))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('size', [1.0, 100.0, 6e3, 6e4])
def test_half_precision_gradients_are_scaled_in_float32(dtype, size):
    weight = nn.Parameter(torch.full((2, 2), 0.02, dtype=dtype))
    weight.grad = torch.full((2, 2), size).to(dtype)
    adaptive_clip_grad_([weight], 0.01, 1e-3)
    limit = 0.01 * float(weight.detach().double()[0].norm())
    torch.testing.assert_close(
        weight.grad.double().norm(dim=1), torch.full((2,), limit, dtype=torch.float64), rtol=1e-2, atol=0
    )


@LOSS_SCALING
def test_a_loss_scaler_that_was_off_is_no_state_to_resume():
    model = nn.Linear(2, 1)
    old = build(model, 'AmpAGCOptimWrapper', dtype='bfloat16')
    state = copy.deepcopy(old.state_dict())
    new = build(model, 'AmpAGCOptimWrapper', dtype='bfloat16', loss_scale=1024)
    new.load_state_dict(copy.deepcopy(state))
    assert new.loss_scaler.get_scale() == 1024
    scaled = copy.deepcopy(new.state_dict())
    newer = build(model, 'AmpAGCOptimWrapper', dtype='bfloat16', loss_scale=8)
    newer.load_state_dict(scaled)
    assert newer.loss_scaler.get_scale() == 1024


def test_numpy_s_numbers_and_nothing_to_exclude():
    wrapper = build(nn.Linear(2, 2), agc=dict(clipping=np.float32(0.5)), paramwise_cfg=dict(agc_exclude=None))
    assert wrapper.agc['clipping'] == 0.5


def test_what_is_not_clipped_is_logged(log_lines):
    build(Classifier())
    assert 'AGC clips every weight but head.fc.weight' in log_lines()
    build(nn.Linear(2, 2))
    assert 'AGC clips every weight, the last layers too: paramwise_cfg.agc_exclude' in log_lines()
    build(
        nn.Linear(2, 2),
        paramwise_cfg=dict(custom_keys={'backbone.layer4': dict(lr_mult=0.1), '.weight': dict(lr_mult=0.1)}),
    )
    assert "paramwise_cfg.custom_keys 'backbone.layer4' matches no parameter of Linear" in log_lines()
    assert "custom_keys '.weight'" not in log_lines()


@pytest.mark.parametrize(
    'device',
    ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'))],
)
def test_all_gradients_excluded(device):
    model = nn.Linear(3, 2, bias=False, device=device)
    wrapper = build(model, paramwise_cfg=dict(agc_exclude='weight'))
    grads(model)
    before = model.weight.grad.clone()
    wrapper.step()
    assert torch.equal(model.weight.grad, before) and wrapper.skipped_steps == 0
    model.weight.grad.fill_(math.nan)
    wrapper.step()
    assert wrapper.skipped_steps == 1


def test_sparse_gradients_are_refused_and_empty_weights_passed_over():
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r'gradient of a parameter of shape \(4, 2\) is sparse .*sparse=False'):
        adaptive_clip_grad_(embedding.parameters())
    model = nn.Linear(3, 2)
    model.none, model.columns = nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.zeros(3, 0))
    wrapper = build(model)
    grads(model)
    assert adaptive_clip_grad_(model.parameters()).units == 3
    wrapper.step()
    assert wrapper.skipped_steps == 0


def test_units_of_transposed_convs_without_our_constructor(log_lines):
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 2, bias=False))
    wrapper = AGCOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    with wrapper.optim_context(model):
        loss = model(torch.randn(1, 2, 3, 3)).square().sum() * 100
    wrapper.backward(loss)
    wrapper.step()
    assert 'transposed' not in log_lines()
    weight = model[0].weight
    grad, weight = (t.detach().transpose(0, 1).flatten(1).norm(dim=1) for t in (weight.grad, weight))
    torch.testing.assert_close(grad, 0.01 * weight)
    unknown = AGCOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.0))
    unknown.step()
    assert 'units of transposed convs are taken along their first axis' in log_lines()


def test_everything_is_clipped_but_the_classifiers_weight():
    model = Classifier()
    wrapper = build(model, agc=dict(clipping=0.02))
    grads(model)
    expected = {n: p.grad.clone() for n, p in model.named_parameters()}
    other = copy.deepcopy(model)
    for p, q in zip(other.parameters(), model.parameters()):
        p.grad = q.grad.clone()
    adaptive_clip_grad_([p for n, p in other.named_parameters() if n != 'head.fc.weight'], 0.02, 1e-3)
    wrapper.optimizer.step = lambda: None
    wrapper.step()
    for (name, p), q in zip(model.named_parameters(), other.parameters()):
        assert torch.equal(p.grad, q.grad)
        assert torch.equal(p.grad, expected[name]) == (name == 'head.fc.weight')


def test_the_last_layers_are_clipped_if_that_is_asked_for():
    net = nn.ModuleDict(dict(head=nn.ModuleDict(dict(fc=nn.Linear(3, 2)))))
    wrapper = build(net, paramwise_cfg=dict(agc_last_layers=True))
    assert not list(wrapper.excluded)
    grads(net)
    before = {n: p.grad.clone() for n, p in net.named_parameters()}
    wrapper.step()
    assert [n for n, p in net.named_parameters() if torch.equal(p.grad, before[n])] == []
    with pytest.raises(ValueError, match="agc_last_layers='no' must be True or False"):
        build(net, paramwise_cfg=dict(agc_last_layers='no'))


def test_excluding_by_name():
    net = nn.ModuleDict(dict(fc_cls=nn.Linear(3, 2), fc_reg=nn.Linear(3, 2)))
    wrapper = build(net, paramwise_cfg=dict(agc_exclude=['*cls.weight']))
    grads(net)
    before = {n: p.grad.clone() for n, p in net.named_parameters()}
    wrapper.step()
    assert [n for n, p in net.named_parameters() if torch.equal(p.grad, before[n])] == ['fc_cls.weight']
    with pytest.raises(
        ValueError, match="agc_exclude='fc_class.weight' matches no parameter; near ones: fc_cls.weight"
    ):
        build(net, paramwise_cfg=dict(agc_exclude='fc_class.weight'))


def test_accumulation_clips_the_sum_at_update_steps_only():
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    reference = copy.deepcopy(model)
    x = torch.randn(6, 4)
    wrapper = build(model, accumulative_counts=3)
    wrapper.initialize_count_status(model, 0, 6)
    optimizer = torch.optim.SGD(
        [dict(params=[reference.weight]), dict(params=[reference.bias], weight_decay=0.0)],
        **{k: v for k, v in SGD.items() if k != 'type'},
    )
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
    model.weight.grad = torch.tensor([[0.001, 0.0], [0.0, 0.1]])
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


@LOSS_SCALING
def test_float16_scaler_overflow_halves_the_scale_and_takes_no_step():
    model = nn.Linear(2, 1)
    wrapper = build(model, 'AmpAGCOptimWrapper', loss_scale=dict(init_scale=2.0**10))
    before = copy.deepcopy(model.state_dict())
    wrapper.update_params(model(torch.full((1, 2), 1e38)).sum() * 1e3)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert (wrapper.loss_scaler.get_scale(), wrapper.skipped_steps) == (2.0**9, 1)
    # the next step is clipped on the unscaled gradient
    model.bias.data.fill_(2.0)
    wrapper.update_params(model(torch.ones(1, 2)).sum())
    assert wrapper.skipped_steps == 1
    assert float(model.bias.detach()) == pytest.approx(2 - 0.1 * 1.9 * 0.02)  # Nesterov's first step is 1.9 gradients


@LOSS_SCALING
@pytest.mark.parametrize('scale', [8, 8.0])
def test_a_static_loss_scale_may_be_an_integer(scale):
    model = nn.Linear(2, 1)
    wrapper = build(model, 'AmpAGCOptimWrapper', loss_scale=scale)
    assert wrapper.loss_scaler.get_scale() == 8
    for _ in range(2):
        wrapper.update_params(model(torch.ones(1, 2)).sum())
        assert wrapper.loss_scaler.get_scale() == 8


@pytest.mark.parametrize('dtype', ['float16', torch.float16])
def test_float16_is_refused_on_a_cpu(dtype):
    with pytest.raises(ValueError, match="float16'?.* needs an accelerator.* 'bfloat16'"):
        build(nn.Linear(2, 1), 'AmpAGCOptimWrapper', dtype=dtype)


def test_weights_on_the_cpu_of_a_machine_with_a_gpu(monkeypatch):
    """Their device counts, not what the machine has."""
    from nfnet_mm.engine import amp_optim_wrapper

    monkeypatch.setattr(amp_optim_wrapper, 'get_device', lambda: 'cuda')
    model = Classifier()
    wrapper = build(model, 'AmpAGCOptimWrapper')
    assert (wrapper.cast_dtype, wrapper.loss_scaler.get_scale()) == (torch.bfloat16, 1)
    with wrapper.optim_context(model):
        assert model(torch.randn(2, 3, 32, 32)).dtype is torch.bfloat16


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


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (
            dict(agc=dict(cliping=0.01)),
            "agc key 'cliping' is unknown: agc takes 'clipping' and 'eps'; did you mean 'clipping'",
        ),
        (dict(agc=dict(clipping=0)), 'clipping=0 must be'),
        (dict(agc=dict(clipping=float('nan'))), 'clipping=nan'),
        (dict(agc=dict(eps=-1)), 'eps=-1'),
        (dict(max_nonfinite_steps=0), 'max_nonfinite_steps=0'),
        (
            dict(type='AmpAGCOptimWrapper', loss_scale='dynamc'),
            "loss_scale='dynamc' must be 'dynamic', a positive number",
        ),
        (dict(type='AmpAGCOptimWrapper', loss_scale=True), 'loss_scale=True must be'),
        (dict(type='AmpAGCOptimWrapper', loss_scale=-1.0), 'loss_scale=-1.0 must be'),
        (dict(type='AmpAGCOptimWrapper', loss_scale=dict(initscale=1.0)), "loss_scale key 'initscale' is unknown"),
        (dict(type='AmpAGCOptimWrapper', dtype='bf16'), "dtype='bf16' must be 'float16' or 'bfloat16'"),
        (dict(type='AmpAGCOptimWrapper', dtype=['float16']), r"dtype=\['float16'\] must be"),
        (
            dict(paramwise_cfg=dict(norm_decay_mul=0)),
            "paramwise_cfg key 'norm_decay_mul' is unknown. Did you mean 'norm_decay_mult'",
        ),
    ],
)
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


@pytest.mark.parametrize('agc', [[], 5, 'clipping'])
def test_options_of_agc_are_a_dict(agc):
    with pytest.raises(UserError, match=r'agc=.* must be a dict, such as dict\(clipping=0.01'):
        AGCOptimWrapper(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1), agc=agc)
