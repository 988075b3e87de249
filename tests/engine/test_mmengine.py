"""What the engine relies on in mmengine beyond its documented interface: each fails where another version differs."""

import copy
import inspect
import logging
from pathlib import Path

import mmengine.optim
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from nfnet_mm.engine import AGCOptimWrapper, AmpAGCOptimWrapper
from nfnet_mm.engine.sam import around_backward
from nfnet_mm.engine.total_batch import _Batches, set_accumulation
from tests import toy
from tests.engine.test_total_batch import toy_runner
from tests.stacks import needs_torch

WRAPPERS = (OptimWrapper, AmpOptimWrapper, AGCOptimWrapper, AmpAGCOptimWrapper)


@pytest.fixture(autouse=True)
def mmengine_s_mixed_precision_without_an_accelerator(monkeypatch):
    from mmengine.optim.optimizer import amp_optimizer_wrapper

    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)


def build(kind, model, **kwargs):
    if 'Amp' in kind.__name__:
        kwargs['dtype'] = 'bfloat16'
    return kind(optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), **kwargs)


class Recorded(BaseModel):
    def __init__(self, calls):
        super().__init__()
        self.calls = calls
        self.fc = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        self.calls.append(mode)
        return dict(loss=self.fc(inputs).square().mean())


@pytest.mark.parametrize('kind', WRAPPERS, ids=lambda kind: kind.__name__)
def test_a_training_step_is_the_loss_then_backward_then_step(kind):
    calls = []
    model = Recorded(calls).train()
    wrapper = build(kind, model, accumulative_counts=2)
    step = wrapper.step
    wrapper.step = lambda **kwargs: (calls.append('step'), step(**kwargs))
    undo = around_backward(wrapper, lambda: calls.append('before'), lambda: calls.append('after'))
    for _ in range(2):
        model.train_step(dict(inputs=torch.ones(4, 2)), wrapper)
    assert calls == ['loss', 'before', 'after', 'loss', 'before', 'after', 'step']
    undo()
    model.train_step(dict(inputs=torch.ones(4, 2)), wrapper)
    assert calls[7:] == ['loss'] and 'backward' not in vars(wrapper)


def test_every_wrapper_of_mmengine_goes_through_update_params():
    for kind in vars(mmengine.optim).values():
        if inspect.isclass(kind) and issubclass(kind, OptimWrapper) and kind is not OptimWrapperDict:
            assert kind.update_params is OptimWrapper.update_params, kind


@pytest.mark.parametrize('kind', WRAPPERS, ids=lambda kind: kind.__name__)
def test_a_built_wrapper_takes_another_number_of_batches_per_update(kind):
    model = nn.Linear(2, 1)
    wrapper = build(kind, model)
    set_accumulation(wrapper, 3)
    wrapper.initialize_count_status(model, 3, 9)
    seen = []
    for _ in range(3):
        seen.append((wrapper.should_sync(), float(wrapper.scale_loss(torch.tensor(6.0)))))
        wrapper.update_params(model(torch.ones(1, 2)).sum())
        seen[-1] += (wrapper.should_update(),)
    assert seen == [(False, 2.0, False), (False, 2.0, False), (True, 2.0, True)]


def test_mmengine_warns_of_lost_gradients_where_updates_are_taken_for_batches(caplog):
    """Why nothing accumulates until the loop runs."""
    logger = MMLogger.get_instance('lost_gradients')
    logger.addHandler(caplog.handler)
    model = nn.Linear(2, 1)
    for counts, warned in ((1, False), (4, True)):
        caplog.clear()
        build(OptimWrapper, model, accumulative_counts=counts).initialize_count_status(model, 3, 4)
        assert ('gradient of some iterations is lost' in caplog.text) == warned
    MMLogger._instance_dict.pop('lost_gradients')
    logging.getLogger('lost_gradients').handlers.clear()


def test_a_runner_builds_its_loop_then_its_wrapper_then_its_schedulers(tmp_path, monkeypatch):
    order = []

    def noted(name, plain):
        return lambda self, cfg: (order.append(name), plain(self, cfg))[1]

    for name in ('build_train_loop', 'build_optim_wrapper', 'build_param_scheduler'):
        monkeypatch.setattr(Runner, name, noted(name, getattr(Runner, name)))
    runner = toy_runner(tmp_path / 'order')
    runner.train()
    assert order[:3] == ['build_train_loop', 'build_optim_wrapper', 'build_param_scheduler']
    assert runner.optim_wrapper._accumulative_counts == 4  # what the loop put into the config


@pytest.mark.parametrize('version', ['installed', 'before 0.10.8'])
def test_a_resumed_run_s_batches_are_skipped(tmp_path, version, monkeypatch):
    """Three updates of four batches of two samples; mmengine's own loop does its part."""
    taken = []

    class Once(toy.ToyLinear):
        def train_step(self, data, optim_wrapper):
            taken.append(float(data['data_samples'][0]))
            return super().train_step(data, optim_wrapper)

    runner = toy_runner(tmp_path / version.replace(' ', '_'))
    runner.model = Once()
    loop = runner.train_loop
    loop._iter = 3
    if version != 'installed':

        class Taking(_Batches):
            def skip_iter(self, updates):
                assert not hasattr(self.batches, 'skip_iter')
                for _ in range(updates):
                    next(self)

        loop.dataloader_iterator = iter(loop.dataloader)
        monkeypatch.setattr('nfnet_mm.engine.total_batch._Batches', Taking)
    runner.train()
    assert taken == [float(toy.ToyNumbers().targets[i]) for i in (24, 26, 28, 30)]


def test_states_are_those_of_mmengine_s_mixed_precision():
    model = nn.Linear(2, 1)
    theirs, ours = build(AmpOptimWrapper, model), build(AmpAGCOptimWrapper, model)
    for wrapper in (theirs, ours):
        wrapper.update_params(model(torch.ones(1, 2)).sum())
    states = [copy.deepcopy(wrapper.state_dict()) for wrapper in (theirs, ours)]
    assert states[0].keys() == states[1].keys()
    ours.load_state_dict(copy.deepcopy(states[0]))
    theirs.load_state_dict(dict(copy.deepcopy(states[1]), loss_scaler=states[0]['loss_scaler']))
    torch.testing.assert_close(theirs.optimizer.state_dict()['state'], states[1]['state'])
    torch.testing.assert_close(ours.optimizer.state_dict()['state'], states[0]['state'])


@needs_torch(2, 3, 'torch.amp.GradScaler')
def test_an_accelerator_s_loss_scaler_is_mmengine_s_choice():
    from mmengine.optim.optimizer.amp_optimizer_wrapper import GradScaler

    assert isinstance(GradScaler(enabled=False), torch.amp.GradScaler)


def test_the_engine_that_steps_by_itself_is_handed_over_as_the_model():
    source = Path(mmengine.__file__).parent / '_strategy/deepspeed.py'  # its package is not there to be run
    assert 'self.optim_wrapper.model = self.model' in source.read_text()
