"""Sharpness-aware minimisation against two passes written by hand, and what it must leave alone."""

import copy
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseDataPreprocessor, BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmengine.registry import HOOKS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.checkpoint import checkpoint

from nfnet_mm.engine.sam import SAMHook, part_of
from tests.golden import BACKBONES
from tests.stacks import LOSS_SCALING

RHO = 0.05


class Preprocessor(BaseDataPreprocessor):
    """Scales the labels in place, so that preprocessing twice shows; counts its calls."""

    calls = 0
    dtype = torch.float32

    def forward(self, data, training=False):
        self.calls += 1
        for sample in data['data_samples']:
            sample['label'] *= 2
        return dict(inputs=torch.stack(data['inputs']).to(self.dtype), data_samples=data['data_samples'])


class Net(BaseModel):
    def __init__(self, with_cp=False, norm=False):
        super().__init__(Preprocessor())
        self.backbone = MODELS.build(dict(BACKBONES['nfnet'], out_indices=(3,), with_cp=with_cp))
        self.norm = nn.BatchNorm1d(48) if norm else nn.Identity()
        self.fc = nn.Linear(48, 10)
        self.unused = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        for m in self.modules():
            if hasattr(m, 'skip_gain'):
                nn.init.constant_(m.skip_gain, 0.5)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = self.fc(self.norm(self.backbone(inputs)[-1].mean((2, 3))))
        labels = torch.tensor([sample['label'] for sample in data_samples])
        for sample in data_samples:  # as some heads do
            sample['label'] = -100
        return dict(loss=F.cross_entropy(logits, labels) * self.frozen.sum())


def build(wrapper='OptimWrapper', counts=1, **kwargs):
    torch.manual_seed(0)
    cfg = dict(
        type=wrapper,
        accumulative_counts=counts,
        optimizer=dict(type='SGD', lr=0.5, momentum=0.9, nesterov=True, weight_decay=1e-3),
    )
    cfg.update({key: kwargs.pop(key) for key in ('loss_scale', 'dtype') if key in kwargs})
    if 'AGC' in wrapper:
        cfg.update(constructor='nfnet_mm.NFOptimWrapperConstructor')
    model = Net(**kwargs).train()
    return model, build_optim_wrapper(model, cfg)


def batches(n, size=10):
    generator = torch.Generator().manual_seed(1)
    return [
        dict(
            inputs=[torch.randn(3, 32, 32, generator=generator) for _ in range(size)],
            data_samples=[dict(label=i % 5) for i in range(size)],
        )
        for _ in range(n)
    ]


def with_sam(model, wrapper, **kwargs):
    hook = SAMHook(**dict(dict(rho=RHO), **kwargs))
    hook.before_train(SimpleNamespace(model=model, optim_wrapper=wrapper))
    return hook


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def by_hand(model, wrapper, data, counts, autocast, keep):
    """What the hook is to do, with the noised weights in a model of their own."""
    for i, batch in enumerate(copy.deepcopy(data)):
        batch = model.data_preprocessor(batch, True)

        def gradient(net, kept, batch=batch):
            with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
                part = dict(inputs=batch['inputs'][kept], data_samples=copy.deepcopy(batch['data_samples'][kept]))
                loss = net(**part, mode='loss')['loss']
            params = [p for p in net.parameters() if p.requires_grad]
            return torch.autograd.grad(loss, params, allow_unused=True, materialize_grads=True)

        noised = copy.deepcopy(model)
        ascent = gradient(model, keep)
        norm = sum(g.double().square().sum() for g in ascent).sqrt().item()
        for p, g in zip((p for p in noised.parameters() if p.requires_grad), ascent):
            p.data.add_(g, alpha=RHO / norm)
        for p, g in zip((p for p in model.parameters() if p.requires_grad), gradient(noised, slice(None))):
            g = g / counts
            p.grad = g if p.grad is None else p.grad + g
        model.unused.grad = None
        if (i + 1) % counts == 0:
            wrapper.step()
            wrapper.zero_grad()


@pytest.mark.parametrize(
    'wrapper, counts, kwargs',
    [
        ('OptimWrapper', 1, {}),
        ('OptimWrapper', 3, {}),
        ('nfnet_mm.AGCOptimWrapper', 1, {}),
        ('nfnet_mm.AGCOptimWrapper', 2, dict(with_cp=True)),
        ('nfnet_mm.AmpAGCOptimWrapper', 2, {}),
        pytest.param('nfnet_mm.AmpAGCOptimWrapper', 1, dict(loss_scale=1024.0), marks=LOSS_SCALING),
    ],
)
def test_equals_two_passes_by_hand(wrapper, counts, kwargs):
    model, optim = build(wrapper, counts, **kwargs)
    by_hand_kwargs = {key: value for key, value in kwargs.items() if key != 'loss_scale'}
    reference, plain = build(wrapper.replace('Amp', ''), counts, **by_hand_kwargs)
    data = batches(2 * counts)
    with_sam(model, optim)
    if 'Amp' not in wrapper:
        for net in (model, reference):
            net.double().data_preprocessor.dtype = torch.float64
    start = weights(model)
    for batch in copy.deepcopy(data):
        model.train_step(batch, optim)
    by_hand(reference, plain, data, counts, 'Amp' in wrapper, slice(0, 10, 5))  # 2 of 10 samples, the 1st and 6th
    expected = weights(reference)
    for name, value in weights(model).items():
        # of the update in float64; in float32 it is below the weights' rounding
        scale = expected[name].norm() if 'Amp' in wrapper else (expected[name] - start[name]).norm()
        assert (value - expected[name]).norm() <= 1e-6 * scale, name
    unaware, optim = build(wrapper, counts, **kwargs)
    for batch in copy.deepcopy(data):
        unaware.train_step(batch, optim)
    assert (unaware.fc.weight - model.fc.weight).norm() > 1e-3 * (model.fc.weight - start['fc.weight']).norm()


@pytest.mark.parametrize('wrapper', ['OptimWrapper', 'nfnet_mm.AmpAGCOptimWrapper'])
@pytest.mark.parametrize('fraction, sizes', [(0.2, [2, 10]), (0.01, [1, 10]), (0.75, [8, 10]), (1, [10, 10])])
def test_weights_between_the_passes(wrapper, fraction, sizes):
    model, optim = build(wrapper)
    with_sam(model, optim, fraction=fraction)
    before, seen, at_step = weights(model), [], []
    model.backbone.register_forward_pre_hook(lambda m, args: seen.append((len(args[0]), weights(model))))
    step = optim.step
    optim.step = lambda **kwargs: (at_step.append(weights(model)), step(**kwargs))
    model.train_step(batches(1)[0], optim)
    assert [size for size, _ in seen] == sizes
    assert same(before, seen[0][1]) and same(before, at_step[0])
    distance = sum((noised - before[name]).double().square().sum() for name, noised in seen[1][1].items()).sqrt()
    assert distance.item() == pytest.approx(RHO, rel=1e-4)
    assert torch.equal(seen[1][1]['frozen'], before['frozen']) and torch.equal(seen[1][1]['unused'], before['unused'])


def test_samples_and_buffers_are_not_used_twice():
    model, optim = build(norm=True)
    with_sam(model, optim)
    loss = model.train_step(batches(1)[0], optim)['loss']
    assert model.data_preprocessor.calls == 1
    assert 0 < loss < 100  # not NaN, which labels of -100, all ignored, would give
    assert model.norm.num_batches_tracked == 1
    assert optim.optimizer.param_groups[0]['params'][0].grad is None  # zeroed, and nothing left over


def test_evaluation_is_left_alone():
    model, optim = build()
    with_sam(model, optim)
    before = weights(model)
    model.eval()
    data = model.data_preprocessor(batches(1)[0])
    model(**copy.deepcopy(data), mode='loss')
    model.train()
    with torch.no_grad():
        model(**data, mode='loss')
    assert same(before, weights(model))


def test_weights_survive_failures():
    model, optim = build()
    hook = with_sam(model, optim)
    before = weights(model)

    def out_of_memory(module, grad):
        if hook._saved:  # in the descent
            raise MemoryError('no room')

    handle = model.fc.register_full_backward_pre_hook(out_of_memory)
    with pytest.raises(MemoryError):
        model.train_step(batches(1)[0], optim)
    assert same(before, weights(model))
    handle.remove()
    # a loss of which no step is taken
    model(**model.data_preprocessor(batches(1)[0]), mode='loss')
    assert not same(before, weights(model))
    hook.after_train_iter(None, 0)
    assert same(before, weights(model))


@LOSS_SCALING
def test_overflow_under_a_loss_scale_is_a_skipped_step():
    model, optim = build('nfnet_mm.AmpAGCOptimWrapper', loss_scale=dict(init_scale=2.0**127), norm=True)
    with_sam(model, optim)
    before = weights(model)
    model.train_step(batches(1)[0], optim)
    assert optim.skipped_steps == 1 and same(before, weights(model))
    assert optim.loss_scaler.get_scale() == 2.0**126
    assert all(buffer.isfinite().all() for buffer in model.norm.buffers())


def test_distributed(tmp_path):
    model, optim = build()
    alone, other = build()
    with_sam(alone, other)
    data = batches(2)
    for batch in copy.deepcopy(data):
        alone.train_step(batch, other)
    model.unused.requires_grad_(False)
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        wrapped, reduced = MMDistributedDataParallel(model), []

        def count(state, bucket):
            reduced.append(bucket.index())
            done = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        wrapped.register_comm_hook(None, count)
        with_sam(wrapped, optim)
        for batch in data:
            wrapped.train_step(batch, optim)
    finally:
        torch.distributed.destroy_process_group()
    assert reduced == [0, 0]  # the descent's gradients alone
    assert same(weights(model), weights(alone))


class Plain(BaseModel):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.fc(inputs).square().mean())


def train(work_dir, hooks, **train_cfg):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    runner = Runner(
        Plain(),
        work_dir=str(work_dir),
        experiment_name=f'{work_dir.name}_{len(hooks)}',
        train_dataloader=dict(
            dataset=[dict(inputs=torch.randn(2, generator=generator)) for _ in range(32)],
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=None, logger=None),
        custom_hooks=hooks,
        log_level='ERROR',
    )
    runner.train()
    return runner


def test_in_a_runner(tmp_path):
    """In the loop that accumulates to a total batch each part has noise of its own; beside an average too."""
    loop = dict(type='nfnet_mm.TotalBatchTrainLoop', total_batch=8, max_iters=3)
    hooks = [dict(type='nfnet_mm.SAMHook'), dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA')]
    runner = train(tmp_path, hooks, **loop)
    torch.manual_seed(0)
    weight = Plain().fc
    data = torch.stack([sample['inputs'] for sample in runner.train_dataloader.dataset])
    averages = [copy.deepcopy(weight)]
    for t in range(3):
        total = [torch.zeros_like(p) for p in weight.parameters()]
        for part in data[8 * t : 8 * t + 8].split(4):
            ascent = torch.autograd.grad(weight(part[:1]).square().mean(), list(weight.parameters()))
            norm = torch.cat([g.flatten() for g in ascent]).norm()
            noised = copy.deepcopy(weight)
            for p, g in zip(noised.parameters(), ascent):
                p.data += RHO * g / norm
            grads = torch.autograd.grad(noised(part).square().mean(), list(noised.parameters()))
            total = [a + g / 2 for a, g in zip(total, grads)]
        for p, g in zip(weight.parameters(), total):
            p.data -= 0.1 * g
        decay = (1 + t) / (10 + t)
        averages.append(copy.deepcopy(averages[-1]))
        for p, new in zip(averages[-1].parameters(), weight.parameters()):
            p.data.mul_(decay).add_(new.data, alpha=1 - decay)
    torch.testing.assert_close(runner.model.fc.weight, weight.weight, rtol=1e-6, atol=1e-7)
    ema = next(hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model'))
    torch.testing.assert_close(ema.module.fc.weight, averages[-1].weight.data, rtol=1e-6, atol=1e-7)
    # gone after training
    assert 'backward' not in vars(runner.optim_wrapper) and not runner.model._forward_pre_hooks


@pytest.mark.parametrize('fraction, size, per_batch', [(0.2, 8, 1.6), (0.3, 4, 1.2), (0.75, 10, 7.5), (0.2, 10, 2)])
def test_the_share_of_a_run_is_the_fraction(fraction, size, per_batch):
    model = Plain()
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    sizes = []
    model.fc.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))

    def run(first, updates):
        """Updates of three batches, as a runner has done ``first`` of them; the samples taken of each batch."""
        sizes.clear()
        hook = with_sam(model, wrapper, fraction=fraction)
        for update in range(first, updates):
            hook.before_train_iter(SimpleNamespace(iter=update, train_loop=SimpleNamespace(accumulation=3)), update)
            for _ in range(3):
                model.train_step(dict(inputs=torch.randn(size, 2)), wrapper)
        hook.after_train(None)
        return sizes[::2]

    whole = run(0, 30)
    assert {abs(taken - per_batch) < 1 for taken in whole} == {True}
    for batches in range(1, 91):
        assert sum(whole[:batches]) == pytest.approx(per_batch * batches, abs=0.5 + 1e-9)
    assert run(11, 30) == whole[33:]


def test_the_share_counts_batches_in_a_runner(tmp_path):
    """Batches of 4, of which 0.3 are 1.2: in mmengine's own loop and where two of them make an update."""
    expected = [1, 1, 2, 1, 1, 1]
    for name, loop in (
        ('own', dict(by_epoch=False, max_iters=6)),
        ('total', dict(type='nfnet_mm.TotalBatchTrainLoop', total_batch=8, max_iters=3)),
    ):
        sizes = []
        hook = SAMHook(fraction=0.3)
        part = hook._part

        def counted(*args, part=part, sizes=sizes):
            found = part(*args)
            sizes.append(len(found[1]['inputs']))
            return found

        hook._part = counted
        train(tmp_path / name, [hook], **loop)
        assert sizes == expected


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(rho=0), 'rho=0 must be a positive finite number'),
        (dict(rho=float('inf')), 'rho=inf must be'),
        (dict(rho='0.05'), "rho='0.05' must be"),
        (dict(fraction=0), r'fraction=0 must be a number in \(0, 1\]'),
        (dict(fraction=1.5), r'fraction=1\.5 must be'),
        (dict(fraction=float('nan')), 'fraction=nan must be'),
    ],
)
def test_bad_values(kwargs, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(dict(type='nfnet_mm.SAMHook', **kwargs))


def test_what_it_cannot_do():
    model, optim = build()
    with pytest.raises(RuntimeError, match=r'not with those of an OptimWrapperDict \(g, d\)'):
        with_sam(model, OptimWrapperDict(g=optim, d=optim))
    with_sam(model, optim)
    with pytest.raises(RuntimeError, match="Net computed its loss otherwise than by calling itself with mode='loss'"):
        optim.update_params(model.fc.weight.sum())
    plain = Plain()
    with_sam(plain, OptimWrapper(torch.optim.SGD(plain.parameters(), lr=0.1)))
    with pytest.raises(ValueError, match=r'shape \(7, 2\) in a batch of 5 samples'):
        plain(dict(a=torch.ones(5, 2), b=torch.ones(7, 2)), mode='loss')
    plain = Plain()
    plain.requires_grad_(False)
    with_sam(plain, OptimWrapper(torch.optim.SGD(plain.parameters(), lr=0.1)))
    with pytest.raises(RuntimeError, match='loss of Plain depends on none of its 0 parameters that require a gradient'):
        plain(torch.ones(5, 2), mode='loss')


class Given(BaseModel):
    """The loss of a function of two tied layers and whatever it is called with; keeps what that was."""

    def __init__(self, function):
        super().__init__()
        self.one, self.other = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.other.weight = self.one.weight
        self.function, self.calls = function, []

    def forward(self, *args, mode='tensor', **kwargs):
        self.calls.append((args, kwargs))
        return self.function(self, *args, **kwargs)


def noised(function, *args, fraction=0.5, **kwargs):
    """One forward pass with the hook: the arguments of the ascent, and how far the weights went."""
    torch.manual_seed(0)
    model = Given(function).train()
    with_sam(model, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)), fraction=fraction)
    before = model.one.weight.detach().clone()
    model(*args, mode='loss', **kwargs)
    assert len(model.calls) == 2 and model.calls[1] == (args, kwargs)
    return model.calls[0], model.one.weight.detach() - before


def distance(self, x, y):
    return dict(loss=(self.other(self.one(x)) - y).square().mean())


def step_by_hand(loss, x, *args):
    """rho * g / ||g|| of two tied layers, of which ``loss`` gets the output for x."""
    torch.manual_seed(0)
    weight = Given(None).one.weight.detach().clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(x @ weight.T @ weight.T, *args), weight)
    return RHO * grad / grad.norm()


@pytest.mark.parametrize('by_name', [True, False])
@pytest.mark.parametrize('batch', [2, 1])
def test_each_argument_is_cut_by_itself(batch, by_name):
    """As many arguments as samples, tied weights."""
    x, y = torch.randn(2, batch, 3)
    (args, kwargs), moved = noised(distance, **dict(x=x, y=y)) if by_name else noised(distance, x, y)
    ours = tuple(kwargs.values()) if by_name else args
    assert len(ours) == 2 and torch.equal(ours[0], x[:1]) and torch.equal(ours[1], y[:1])
    torch.testing.assert_close(moved, step_by_hand(lambda out, y: (out - y).square().mean(), x[:1], y[:1]))


def test_dict_of_tensors_and_several_losses():
    def losses(self, inputs, data_samples=None):
        out = self.other(self.one(inputs['a']))
        return dict(loss_a=out.square().mean(), loss_b=[out.mean(), (out - inputs['b']).abs().mean()], note=out.sum())

    a, b = torch.randn(2, 4, 3)
    _, moved = noised(losses, inputs=dict(a=a, b=b))
    torch.testing.assert_close(
        moved, step_by_hand(lambda out: out.square().mean() + out.mean() + (out - b[::2]).abs().mean(), a[::2])
    )


@pytest.mark.parametrize('samples', [None, [dict(label=1), dict(label=2)]])
def test_views_are_cut_one_by_one(samples):
    """As mmpretrain's self-supervised preprocessor gives them: as many views as samples."""

    def contrast(self, inputs, data_samples=None):
        one, other = (self.one(view.mean((2, 3))) for view in inputs)
        return dict(loss=(one * other).sum(1).mean())

    views = [torch.randn(2, 3, 4, 4) for _ in range(2)]
    (_, kwargs), _ = noised(contrast, inputs=views, data_samples=samples)
    assert [torch.equal(ours, view[:1]) for ours, view in zip(kwargs['inputs'], views)] == [True, True]
    assert kwargs['data_samples'] == (samples and samples[:1])


def test_lists_of_samples_and_of_views():
    first = [0]
    images = [torch.randn(3, 4, 4) for _ in range(3)]  # (C, H, W) with C == batch
    kept = part_of(images, 3, [0])
    assert len(kept) == 1 and torch.equal(kept[0], images[0]) and kept[0] is not images[0]
    views = (torch.arange(2.0).view(2, 1, 1, 1, 1), torch.ones(2, 1, 1, 1))
    kept = part_of(views, 2, first)
    assert [view.shape[0] for view in kept] == [1, 1] and isinstance(kept, tuple)
    boxes = [torch.ones(2, 4), torch.ones(5, 4)]
    assert [len(item) for item in part_of(boxes, 2, first)] == [2]
    assert part_of([torch.tensor(1.0), torch.tensor(2.0)], 2, first) == [torch.tensor(1.0)]
    assert [len(item) for item in part_of([torch.ones(2), torch.ones(2), torch.ones(2)], 2, first)] == [1, 1, 1]
    with pytest.raises(ValueError, match=r'a list of 2 tensors of shape \(2, 4\) holds the 2 samples .* fraction=1'):
        part_of([torch.ones(2, 4), torch.ones(2, 4)], 2, first)
    with pytest.raises(ValueError, match=r'a list of 2 lists of 2 holds'):
        part_of([['a', 'b'], ['c', 'd']], 2, first)


@pytest.mark.parametrize('kwargs', [dict(fraction=1), dict(fraction=0.95)])
def test_whole_batches_may_be_anything(kwargs):
    """Neither need a batch be found where nothing is cut; the loss may still write into what it gets."""

    def loss(self, x, odd, nested):
        value = dict(loss=self.one(x).mean() * odd.sum() * nested['factor'][0]['value'])
        nested['factor'][0]['value'] = 0.0
        odd.zero_()
        return value

    x, factor = torch.randn(2, 3), [dict(value=2.0)]
    _, moved = noised(loss, x, torch.ones(5), dict(factor=factor, pair=[torch.ones(2, 1), torch.ones(2, 1)]), **kwargs)
    assert factor == [dict(value=0.0)] and moved.norm().item() == pytest.approx(RHO, rel=1e-5)  # not 0 or NaN
    _, moved = noised(lambda self: dict(loss=self.one.weight.sum()), fraction=1)
    torch.testing.assert_close(moved, torch.full((3, 3), RHO / 3))
    with pytest.raises(ValueError, match='finds no batch in the inputs of Given.*fraction=1'):
        noised(lambda self: dict(loss=self.one.weight.sum()))


class Checkpointed(BaseModel):
    """Checkpoints its middle; with ``early`` its beginning too, before which the graph has no parameter."""

    def __init__(self, reentrant, early=False, frozen=False):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        self.stem.requires_grad_(not frozen)
        self.reentrant, self.early = reentrant, early

    def forward(self, inputs, mode='tensor'):
        if self.early:
            x = checkpoint(self.stem, inputs.detach().requires_grad_(), use_reentrant=self.reentrant)
        else:
            x = self.stem(inputs)
        x = checkpoint(lambda x: self.body(x).tanh(), x.requires_grad_(), use_reentrant=self.reentrant)
        return dict(loss=self.head(x).square().mean())


def steps(model, steps=4, rank=0):
    """Train for updates of two batches each; how many of the gradients were reduced, if any are."""
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, steps)
    hook, reduced = with_sam(model, wrapper), []
    if hasattr(model, 'register_comm_hook'):
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

        def count(state, bucket):
            reduced.append(bucket.index())
            return allreduce_hook(state, bucket)

        model.register_comm_hook(None, count)
    generator = torch.Generator().manual_seed(rank)
    for _ in range(steps):
        kept = [p.grad for p in model.parameters()]
        values = [grad if grad is None else grad.clone() for grad in kept]
        with wrapper.optim_context(model):
            loss = model(torch.randn(10, 3, generator=generator), mode='loss')['loss']
        # the ascent has left .grad what it was, by identity and by value
        assert all(p.grad is grad for p, grad in zip(model.parameters(), kept))
        assert all(grad is None or torch.equal(grad, value) for grad, value in zip(kept, values))
        wrapper.update_params(loss)
    return hook, reduced


@pytest.mark.parametrize('kwargs', [{}, dict(early=True), dict(early=True, frozen=True)])
def test_reentrant_checkpoints(kwargs):
    plain, reentrant = Checkpointed(False, **kwargs), Checkpointed(True, **kwargs)
    start = weights(plain)
    assert not steps(plain.train())[0]._by_backward and steps(reentrant.train())[0]._by_backward
    for name, value in weights(reentrant).items():
        torch.testing.assert_close(value, weights(plain)[name], rtol=1e-5, atol=1e-7)
        assert torch.equal(value, start[name]) == ('stem' in name and 'frozen' in kwargs)


def test_failure_in_a_reentrant_ascent_leaves_the_gradients():
    model = Checkpointed(True).train()
    with_sam(model, OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    model.body.weight.grad = grad = torch.ones(8, 8)
    handle = model.stem.register_full_backward_pre_hook(lambda module, grad: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(torch.randn(10, 3), mode='loss')
    handle.remove()
    assert model.body.weight.grad is grad and torch.equal(grad, torch.ones(8, 8)) and model.head.weight.grad is None


def distributed_weights(store, rank, world, reentrant):
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=world)
    model = Checkpointed(reentrant).train()
    _, reduced = steps(MMDistributedDataParallel(model, gradient_as_bucket_view=True), rank=rank)
    return weights(model), reduced


def test_reentrant_checkpoints_distributed(tmp_path):
    alone = Checkpointed(False).train()
    steps(alone)
    try:
        ours, reduced = distributed_weights(tmp_path / 'store', 0, 1, reentrant=True)
    finally:
        torch.distributed.destroy_process_group()
    assert reduced == [0, 0]  # once per update, that is the descents' sum alone
    for name, value in weights(alone).items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-7)


TWO = """
import os
import sys
import torch
from tests.engine.test_sam import distributed_weights
store, rank, reentrant, out = sys.argv[1:]
torch.save(distributed_weights(store, int(rank), 2, reentrant == 'True'), out)
torch.distributed.barrier()  # none may leave while another still talks to it
os._exit(0)  # gloo's threads sometimes never end
"""


@pytest.mark.slow
def test_reentrant_checkpoints_on_two_processes(tmp_path):
    results = {}
    for reentrant in (True, False):
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    '-c',
                    TWO,
                    tmp_path / f'store{reentrant}',
                    str(rank),
                    str(reentrant),
                    tmp_path / f'{reentrant}{rank}',
                ],
                env=dict(os.environ, OMP_NUM_THREADS='1'),
            )
            for rank in range(2)
        ]
        try:
            assert [process.wait(120) for process in processes] == [0, 0]
        finally:
            for process in processes:
                process.kill()
        results[reentrant] = [torch.load(tmp_path / f'{reentrant}{rank}') for rank in range(2)]
    for rank in range(2):
        (ours, reduced), (plain, _) = results[True][rank], results[False][rank]
        assert reduced == [0, 0] and same(ours, results[True][0][0])
        for name, value in plain.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    'fraction, batch, kept',
    [(0.6, 10, [0, 1, 3, 5, 6, 8]), (0.4, 10, [0, 2, 5, 7]), (0.2, 10, [0, 5]), (0.5, 4, [0, 2]), (0.2, 3, [0])],
)
def test_the_part_is_spread_evenly_over_the_batch(fraction, batch, kept):
    hook = SAMHook(fraction=fraction)
    (images,), kwargs = hook._part(None, (torch.arange(batch),), dict(data_samples=list(range(batch))))
    assert images.tolist() == kwargs['data_samples'] == kept
