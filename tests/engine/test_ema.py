"""The warm-up average against the authors' own, and through mmengine's hook and checkpoints."""

import copy
import io
import pickle

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn

from nfnet_mm.engine.ema import WarmupEMA
from nfnet_mm.run import read_checkpoint
from tests.golden import BACKBONES, Golden, relative


@pytest.mark.parametrize('family', BACKBONES)
def test_three_steps_of_the_authors(family):
    golden = Golden(family)
    model = golden.classifier().train()
    average = MODELS.build(dict(type='nfnet_mm.WarmupEMA', model=model, momentum=1e-5))
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='nfnet_mm.AGCOptimWrapper',
            constructor='nfnet_mm.NFOptimWrapperConstructor',
            optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=2e-5),
            agc=dict(clipping=0.01, eps=1e-3),
        ),
    )
    for _ in range(3):
        wrapper.update_params(torch.nn.functional.cross_entropy(model(golden.input), golden.labels))
        average.update_parameters(model)
    expected, ours = golden.tree('ema3'), average.module.state_dict()
    errors = {name: relative(ours[name], value) for name, value in expected.items()}
    worst = max(errors, key=errors.get)
    assert errors[worst] < 1e-6, (worst, errors[worst])


def walk(interval=1, **kwargs):
    """A scalar weight that takes the values 1, 2, ..., 60; its average computed by the definition, and ours."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    average = WarmupEMA(model, interval=interval, **kwargs)
    expected = 0.0
    for i in range(1, 61):
        if i % interval == 0:  # an accumulating wrapper updates the weights then
            nn.init.constant_(model.weight, i)
            t = i // interval - 1
            decay = min(1 - average.momentum, (1 + t) / (10 + t))
            expected = decay * expected + (1 - decay) * i
        average.update_parameters(model)
    return average, expected


@pytest.mark.parametrize('momentum', [1e-5, 0.3])
@pytest.mark.parametrize('interval', [1, 4])
def test_definition(momentum, interval):
    average, expected = walk(interval, momentum=momentum)
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-14)
    assert not average.module.weight.requires_grad


def test_buffers_and_tied_weights():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    net[2].weight = net[0].weight
    for update_buffers in (False, True):
        average = WarmupEMA(net, update_buffers=update_buffers)
        start = copy.deepcopy(net.state_dict())
        net(torch.randn(5, 2))
        for p in net.parameters():
            nn.init.normal_(p)
        average.update_parameters(net)
        assert average.module[2].weight is average.module[0].weight
        torch.testing.assert_close(average.module[0].weight, 0.1 * start['0.weight'] + 0.9 * net[0].weight)
        mean = 0.1 * start['1.running_mean'] + 0.9 * net[1].running_mean
        torch.testing.assert_close(average.module[1].running_mean, mean if update_buffers else net[1].running_mean)
        assert average.module[1].num_batches_tracked == net[1].num_batches_tracked


def test_counter_stays_on_the_host():
    average = WarmupEMA(nn.Linear(1, 1), device='cpu').to('meta')
    assert average.module.weight.is_meta and average.steps.device.type == 'cpu'


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(momentum=0.99999), r'momentum=0\.99999 must be a number in \(0, 0\.9\): it is 1 - decay'),
        (dict(momentum=0), 'momentum=0 '),
        (dict(momentum='1e-5'), "momentum='1e-5'"),
        (dict(interval=0), 'interval=0 must be a positive integer'),
        (dict(interval=2.0), r'interval=2\.0 '),
    ],
)
def test_bad_values(kwargs, message):
    with pytest.raises(ValueError, match=message):
        WarmupEMA(nn.Linear(1, 1), **kwargs)


def test_another_model():
    with pytest.raises(ValueError, match="only one of the two has 'bias'"):
        WarmupEMA(nn.Linear(1, 1)).update_parameters(nn.Linear(1, 1, bias=False))


class Toy(BaseModel):
    """Its weights are given when mmengine initialises them, which is after it has built the average."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 1)
        self.register_buffer('seen', torch.zeros((), dtype=torch.long))

    def init_weights(self):
        nn.init.ones_(self.fc.weight)
        nn.init.ones_(self.fc.bias)

    def forward(self, inputs, mode='tensor'):
        if self.training:
            self.seen += len(inputs)
        return dict(loss=self.fc(inputs).square().mean())


def train(work_dir, iters, resume=False, **ema):
    generator = torch.Generator().manual_seed(0)
    data = [dict(inputs=torch.randn(2, generator=generator)) for _ in range(16)]
    runner = Runner(
        Toy(),
        work_dir=str(work_dir),
        resume=resume,
        experiment_name=f'{work_dir.name}_{iters}',
        train_dataloader=dict(
            dataset=data,
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=iters),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        custom_hooks=[dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA', **ema)],
        log_level='ERROR',
    )
    runner.train()
    return runner, next(hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model'))


def test_starts_from_the_initialised_weights(tmp_path):
    runner, average = train(tmp_path, 1)
    torch.testing.assert_close(average.module.fc.weight, 0.1 + 0.9 * runner.model.fc.weight.detach())
    assert average.module.seen == 4
    saved = read_checkpoint(tmp_path / 'iter_1.pth')
    assert torch.equal(saved['state_dict']['fc.weight'], average.module.fc.weight)
    assert torch.equal(saved['ema_state_dict']['module.fc.weight'], runner.model.fc.weight)


def test_resume_is_exact(tmp_path):
    whole, average = train(tmp_path / 'whole', 5)
    train(tmp_path / 'parts', 2)
    resumed, again = train(tmp_path / 'parts', 5, resume=True)
    assert again.steps == average.steps == 5
    for one, other in ((whole.model, resumed.model), (average, again)):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


class Table(nn.Module):
    """Registers buffers when it first runs, and again when it sees another size."""

    def __init__(self):
        super().__init__()
        self.register_buffer('size', None)
        self.shift = None

    def forward(self, x):
        if self.size is None or len(self.table) != x.shape[1]:
            self.size = torch.tensor(float(x.shape[1]))
            if self.shift is None:
                del self.shift
                self.register_buffer('shift', torch.full((1,), 3.0), persistent=False)
            self.register_buffer('table', torch.linspace(1, 2, x.shape[1]))
        return x * self.table + self.shift


def late_buffers():
    """The late buffers come before those of the norm, and two of them are one."""
    net = nn.Sequential(Table(), nn.BatchNorm1d(3))
    net.register_buffer('tied', net[1].running_var)
    return net


@pytest.mark.parametrize('update_buffers', [False, True])
def test_buffers_of_the_first_forward_pass(update_buffers):
    net = late_buffers()
    average = WarmupEMA(net, update_buffers=update_buffers)
    for step in range(3):
        net(torch.randn(5, 3))
        net[0].table.fill_(step)
        average.update_parameters(net)
    ours, theirs = dict(average.module.named_buffers()), dict(net.named_buffers())
    assert list(ours) == list(theirs) and '0.shift' in ours
    assert list(average.module.state_dict()) == list(net.state_dict()) and '0.shift' not in net.state_dict()
    assert not {t.data_ptr() for t in ours.values()} & {t.data_ptr() for t in theirs.values()}
    assert average.module.tied is average.module[1].running_var
    # starts as a copy, 0, then 2/11 of that and 9/11 of 1, then 3/12 of that and 9/12 of 2
    expected = 3 / 12 * 9 / 11 + 9 / 12 * 2 if update_buffers else 2.0
    torch.testing.assert_close(average.module[0].table, torch.full((3,), expected))
    # as mmengine's hook swaps them before and after a validation
    hook = EMAHook('nfnet_mm.WarmupEMA', update_buffers=update_buffers)
    hook.src_model, hook.ema_model = net, average
    before = [{name: t.clone() for name, t in module.state_dict().items()} for module in (net, average.module)]
    hook.before_val_epoch(None)
    swapped = [*dict(net.named_parameters()), *(theirs if update_buffers else [])]
    for name in set(swapped) - {'0.shift'}:
        assert torch.equal(net.state_dict()[name], before[1][name]), name
        assert torch.equal(average.module.state_dict()[name], before[0][name]), name
    hook.after_val_epoch(None)
    assert all(torch.equal(value, before[0][name]) for name, value in net.state_dict().items())


def test_buffers_that_change_their_shape():
    table = Table()
    average = WarmupEMA(table, update_buffers=True)
    for width in (3, 3, 5):
        table(torch.zeros(1, width))
        average.update_parameters(table)
        assert torch.equal(average.module.table, table.table) and average.module.size <= width
    table.register_parameter('late', nn.Parameter(torch.ones(1)))
    with pytest.raises(ValueError, match="only one of the two has 'late'"):
        average.update_parameters(table)


def saved_and_loaded(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved_and_loaded])
def test_model_can_be_copied_before_it_trains(copied):
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WarmupEMA(model)
    other = copied(model)
    nn.init.constant_(other.weight, 5)
    other(torch.ones(1, 1))  # is not what the average starts from
    assert average.module.weight == 0
    nn.init.constant_(model.weight, 2)
    model.eval()(torch.ones(1, 1))  # nor is an evaluation the start of a training
    assert average.module.weight == 0
    model.train()(torch.ones(1, 1))
    assert average.module.weight == 2 and not model._forward_pre_hooks
    nn.init.constant_(model.weight, 3)
    model(torch.ones(1, 1))
    assert average.module.weight == 2


def test_weights_tied_after_the_average_was_built():
    """mmengine initialises the weights, and may tie them, when the hook has built the average already."""
    torch.manual_seed(0)
    model = nn.ModuleDict({name: nn.Linear(2, 2, bias=False) for name in 'abc'})
    model.forward = lambda x: model['c'](model['b'](model['a'](x)))
    average = WarmupEMA(model)
    model['c'].weight = model['a'].weight
    model.train()(torch.zeros(1, 2))
    start = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    average.update_parameters(model)
    ours = list(average.module.parameters())
    assert len(ours) == 2 and average.module['c'].weight is average.module['a'].weight
    for p, first in zip(ours, start):
        torch.testing.assert_close(p, first + 0.9)


def test_integer_parameters_are_copied_and_half_precision_is_refused():
    model = nn.Linear(2, 2)
    model.codes = nn.Parameter(torch.tensor([1, 2], dtype=torch.int8), requires_grad=False)
    average = WarmupEMA(model)
    model.codes.data += 1
    average.update_parameters(model)
    assert average.module.codes.tolist() == [2, 3]
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(ValueError, match=f'cannot average weight, which is {dtype}: .* would stand still'):
            WarmupEMA(nn.Linear(2, 2).to(dtype))
