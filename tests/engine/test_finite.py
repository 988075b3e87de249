"""Whole trainings with batches, losses and learning rates that are not finite: no weight ever is."""

import math
import re
from itertools import product

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

from nfnet_mm import run
from nfnet_mm.errors import DivergedError
from tests import toy
from tests.adversarial import probe
from tests.adversarial.test_training import AGC, BFLOAT16, EMA, PLAIN, SCALED, sam

ADAM = dict(PLAIN, optimizer=dict(type='AdamW', lr=0.001))
WRAPPERS = {'plain': PLAIN, 'adam': ADAM, 'agc': AGC, 'bfloat16': BFLOAT16, 'scaled': SCALED}
GUARD = dict(type='nfnet_mm.FiniteWeightsHook')
SAID = re.compile(r'iteration (\d+): non-finite gradient, first in ([\w.]+)')


def trained(cfg):
    """The runner of a config as the commands build it, trained; and its log."""
    runner = run.build_runner(Config(dict(cfg, log_level='INFO')))
    runner.train()
    return runner, log_of(runner)


def log_of(runner):
    with open(f'{runner.work_dir}/{runner.timestamp}/{runner.timestamp}.log') as file:
        return file.read()


def config(folder, wrapper, updates, *hooks, **kwargs):
    cfg = probe.config(folder, dict(type='Probe'), dict(wrapper), updates=updates, hooks=hooks, **kwargs)
    cfg['train_dataloader']['sampler'] = dict(type='InfiniteSampler', shuffle=False)  # the other waits at each pass
    cfg['default_hooks']['checkpoint']['interval'] = updates
    return cfg


def state(runner):
    return {**dict(runner.model.named_parameters()), **dict(runner.optim_wrapper.optimizer.state_dict()['state'])}


@pytest.mark.parametrize(
    'wrapper,value',
    [
        ('plain', math.nan),
        *[pytest.param(*row, marks=pytest.mark.slow) for row in product(WRAPPERS, (math.nan, math.inf))][1:],
    ],
)
def test_a_spoilt_batch_is_named_and_not_stepped_with(tmp_path, wrapper, value):
    """The run goes on as if the optimizer had not been called: by hand, an update less."""
    runner, log = trained(config(tmp_path / 'run', WRAPPERS[wrapper], 6, dict(type='Spoil', at=[3], value=value)))
    ((iteration, name),) = SAID.findall(log)
    assert iteration == '3' and name == 'backbone.stem.conv0.weight'
    assert 'step skipped, 1 in a row, 1 in all' in log

    class Without(Hook):
        priority = 'LOWEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter + 1 == 3:
                runner.optim_wrapper.optimizer.step = lambda *args, **kwargs: None
            else:
                vars(runner.optim_wrapper.optimizer).pop('step', None)

    other = run.build_runner(Config(config(tmp_path / 'other', WRAPPERS[wrapper], 6)))
    other.register_hook(Without())
    other.train()
    for (name, ours), theirs in zip(state(runner).items(), state(other).values()):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, msg=str(name))


STUCK = r'iteration \d+: (non-finite|a) gradient.* in backbone.* 20 in a row.*The weights are still finite'


@pytest.mark.parametrize(
    'wrapper,rate,said',
    [
        ('plain', 1e3, STUCK),
        *[
            pytest.param(*row, marks=pytest.mark.slow)
            for wrapper in ('plain', 'adam', 'agc')
            for row in (
                (wrapper, 30, STUCK),
                (wrapper, 1e10, STUCK),
                (wrapper, 1e30, r'iteration 1: the learning rate is 1e\+30. The weights are still finite'),
                (wrapper, math.inf, 'iteration 1: the learning rate is inf'),
            )
        ],
    ],
)
def test_an_exploding_learning_rate_ends_the_run_with_finite_weights(tmp_path, wrapper, rate, said):
    wrapper = dict(WRAPPERS[wrapper], optimizer=dict(WRAPPERS[wrapper]['optimizer'], lr=rate))
    with pytest.raises(DivergedError, match=said):
        trained(config(tmp_path / 'run', wrapper, 100, dict(type='Spoil'), total=4))


def toy_run(folder, **more):
    """A linear regression, whose weights grow without bound and whose loss overflows before they do."""
    (folder / 'toy.py').write_text(toy.CONFIG)
    cfg = run.load_config(str(folder / 'toy.py'), work_dir=str(folder / 'run'))
    endless = dict(type='InfiniteSampler', shuffle=False)
    changes = {'train_cfg.max_iters': 100, 'param_scheduler': [], 'train_dataloader.sampler': endless}
    changes['experiment_name'] = str(folder).replace('/', '_')  # else a log of the same second goes on elsewhere
    cfg.merge_from_dict({**changes, **more})
    return run.build_runner(cfg)


SAID_OF = {
    'OptimWrapper': r'iteration \d+: a gradient of norm .* in linear.weight is too large .*20 in a row.*still finite',
    'nfnet_mm.AGCOptimWrapper': r'iteration \d+: linear.weight has grown to a norm of .*weights are still finite',
}


@pytest.mark.parametrize('kind', ['OptimWrapper', pytest.param('nfnet_mm.AGCOptimWrapper', marks=pytest.mark.slow)])
def test_growing_weights_end_the_run_before_they_overflow(tmp_path, kind):
    """Of gradients that are finite for long."""
    agc = dict(agc=dict(clipping=0.2)) if 'AGC' in kind else {}
    wrapper = dict(type=kind, optimizer=dict(type='SGD', lr=1e4), **agc)
    runner = toy_run(tmp_path, optim_wrapper=wrapper)
    with pytest.raises(DivergedError, match=SAID_OF[kind]):
        runner.train()
    sizes = [float(p.abs().max()) for p in runner.model.parameters()]
    assert 1e6 < max(sizes) < math.inf
    # nothing is saved but what is finite
    for path in (tmp_path / 'run').glob('*.pth'):
        assert all(p.isfinite().all() for p in run.read_checkpoint(path)['state_dict'].values())


def test_a_weight_above_the_limit_ends_the_run_before_it_is_saved(tmp_path):
    runner = toy_run(tmp_path, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)))

    class Grow(Hook):
        priority = 'HIGHEST'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter + 1 == 6:
                runner.model.linear.bias.data.fill_(2e18)

    runner.register_hook(Grow())
    said = 'iteration 6: linear.bias has grown to a norm of 2e+18: the training has diverged. The weights are still'
    with pytest.raises(DivergedError, match=re.escape(said)):
        runner.train()
    assert {path.name for path in (tmp_path / 'run').glob('*.pth')} == {'iter_2.pth', 'iter_4.pth'}


@pytest.mark.parametrize('value', [1e25, pytest.param(math.nan, marks=pytest.mark.slow)])
def test_a_loss_that_is_infinite(tmp_path, value):
    """Its square overflows in float32; the same samples are seen once in four updates, whose weights do not move."""
    runner = toy_run(tmp_path, **{'train_cfg.max_iters': 8})
    runner.register_hook(probe.Spoil(at=[2, 6], value=value))
    runner.train()
    log = log_of(runner)
    assert SAID.findall(log) == [('2', 'linear.weight'), ('6', 'linear.weight')]
    assert 'loss: inf' in log or 'loss: nan' in log
    assert runner.optim_wrapper.optimizer.param_groups[0]['lr'] == 0.1


class TwoNets(BaseModel):
    """Each has an optimizer of its own; the first one's loss is NaN from the third iteration on."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.calls = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1), 0

    def forward(self, *args, **kwargs):
        raise NotImplementedError

    def train_step(self, data, optim_wrapper):
        self.calls += 1
        inputs = torch.stack(data['inputs'])
        optim_wrapper['first'].update_params(self.first(inputs).mean() * (math.nan if self.calls > 2 else 1))
        optim_wrapper['second'].update_params(self.second(inputs).square().mean())
        return {}


def test_of_several_optimizers_one_that_never_steps_ends_the_run(tmp_path):
    model = TwoNets()
    parts = {name: torch.optim.SGD(getattr(model, name).parameters(), lr=0.1) for name in ('first', 'second')}
    wrappers = OptimWrapperDict(**{name: OptimWrapper(one) for name, one in parts.items()})
    runner = Runner(
        model,
        str(tmp_path),
        Config.fromstring(toy.CONFIG, '.py').train_dataloader,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=100),
        optim_wrapper=wrappers,
        custom_hooks=[GUARD],
        experiment_name=str(tmp_path),
    )
    said = 'iteration 22: non-finite gradient, first in first.weight: step skipped, 20 in a row, 20 in all.'
    with pytest.raises(DivergedError, match=re.escape(said)):
        runner.train()
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize('wrapper', WRAPPERS)
def test_a_run_in_which_one_batch_of_a_thousand_is_spoilt(tmp_path, wrapper):
    """And the first and the last; ``Spoil`` looks at the weights after each of the 1,000 updates."""
    at = sorted({1, 1000, *np.random.default_rng(0).choice(range(2, 1000), 2, replace=False).tolist()})
    cfg = config(tmp_path / 'run', WRAPPERS[wrapper], 1000, dict(type='Spoil', at=at), batch=2, total=4)
    if wrapper == 'plain':  # without clipping the others' rate diverges by itself
        cfg['optim_wrapper']['optimizer'] = dict(PLAIN['optimizer'], lr=0.01)
    cfg['default_hooks']['logger']['interval'] = 1000
    runner, log = trained(cfg)
    assert SAID.findall(log) == [(str(n), 'backbone.stem.conv0.weight') for n in at]
    saved = run.read_checkpoint(tmp_path / 'run/iter_1000.pth')
    tensors = [*saved['state_dict'].values(), *runner.model.state_dict().values()]
    assert all(one.isfinite().all() for one in tensors)


@pytest.mark.parametrize(
    'wrapper,hooks,batch',
    [
        ('plain', [], 4),
        ('agc', [sam(0.5), EMA], 2),
        *[
            pytest.param(wrapper, hooks, batch, marks=pytest.mark.slow)
            for wrapper in WRAPPERS
            for hooks in ([], [sam(0.5)], [sam(1), EMA])
            for batch in (4, 2)
        ],
    ],
)
def test_one_process_s_batch_is_left_out_by_all(processes, tmp_path, wrapper, hooks, batch):
    """Whichever it is, whatever it accumulates: the same update is left out."""
    ends = []
    for rank in (0, 1):
        spoil = dict(type='Spoil', at=[2], rank=rank)
        cfg = config(tmp_path / str(rank), WRAPPERS[wrapper], 4, spoil, *hooks, GUARD, batch=batch, total=8)
        told = processes(2).call(probe.run_in_group, cfg)
        assert [one['skipped'] for one in told] == [1, 1]
        ends += [one['weights'] for one in told]
    for end in ends[1:]:
        assert all(np.array_equal(value, ends[0][name]) for name, value in end.items())
