"""The two hooks that look into a training: they log what is computed by itself, and change nothing."""

import json
import os
from importlib.util import find_spec

import pytest
import torch
from torch import distributed

from nfnet_mm import run
from nfnet_mm.analysis.signal_propagation import signal_propagation
from nfnet_mm.engine.clipping_log import ClippingLogHook
from nfnet_mm.errors import UserError
from tests.engine import sharded_toy
from tests.engine.sharded_toy import ToyNet

CONFIG = sharded_toy.CONFIG.replace('max_iters=10, val_interval=5', 'max_iters=4, val_interval=9')
CONFIG = CONFIG.replace('interval=5', 'interval=2') + 'custom_hooks = []\n'
SIGNAL = dict(type='nfnet_mm.SignalPropagationHook', interval=2, batch_size=2, size=32, seed=3)
CLIPPING = dict(type='nfnet_mm.ClippingLogHook', interval=1)
BF16 = CONFIG.replace("type='nfnet_mm.AGCOptimWrapper'", "type='nfnet_mm.AmpAGCOptimWrapper', dtype='bfloat16'")

BOARD = find_spec('tensorboard') is not None


def train(folder, config, hooks):
    """A run of four updates, with these hooks and with no other that logs of layers; its runner."""
    rank = os.environ.get('RANK', '0') if distributed.is_initialized() else '0'
    folder.mkdir(exist_ok=True)
    path = folder / f'toy{rank}.py'
    path.write_text(config)
    cfg = run.load_config(str(path), dict(experiment_name=str(folder)), str(folder))
    if distributed.is_initialized():
        cfg.launcher, cfg.model_wrapper_cfg = 'pytorch', dict(type='MMDistributedDataParallel', device_ids=None)
    cfg.custom_hooks = [*cfg.custom_hooks, *hooks]
    cfg.visualizer = dict(type='Visualizer', name=str(folder))
    cfg.visualizer.vis_backends = [
        dict(type=f'{name}VisBackend') for name in ('Local', *(['Tensorboard'] if hooks and BOARD else []))
    ]
    runner = run.build_runner(cfg)
    if not hooks:
        runner._hooks = [hook for hook in runner._hooks if not isinstance(hook, ClippingLogHook)]
    runner.train()
    return runner


def state(runner):
    return {name.removeprefix('module.'): value for name, value in runner.model.state_dict().items()}


def check_signals(folder, states):
    """The scalars of the log at each of these iterations, against the weights that it had there."""
    rows = [json.loads(line) for path in folder.rglob('scalars.json') for line in path.open()]
    for step, weights in states.items():
        (logged,) = [row for row in rows if row['step'] == step and any(key.startswith('signal/') for key in row)]
        net = ToyNet()
        net.load_state_dict(weights)
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
        expected = signal_propagation(net.eval(), images)
        assert len(expected) == 5
        for row in expected:
            for name in ('avg_sq_mean', 'avg_var', 'res_avg_var'):
                assert logged[f'signal/{row.block}/{name}'] == pytest.approx(getattr(row, name), rel=1e-5), row.block


def check_tensorboard(folder):
    """Its curves are those of the file of scalars."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = folder.rglob('events.out.tfevents.*')
    board = EventAccumulator(str(events)).Reload()
    rows = [json.loads(line) for path in folder.rglob('scalars.json') for line in path.open()]
    tags = [tag for tag in board.Tags()['scalars'] if tag.startswith('signal/')]
    assert len(tags) == 15
    for tag in tags:
        curve = [(event.step, event.value) for event in board.Scalars(tag)]
        assert curve == [(row['step'], pytest.approx(row[tag], rel=1e-6)) for row in rows if tag in row]
        assert [step for step, _ in curve] == [0, 2, 4]


def check_clipping(folder, runner):
    rows = [json.loads(line) for path in folder.rglob('clipping.jsonl') for line in path.open()]
    assert [row['step'] for row in rows[1:]] == [1, 2, 3, 4]
    logged = runner.message_hub.get_scalar('train/agc/clipped_fraction').data[0]
    for row, fraction in zip(rows[1:], logged):
        assert sum(row['clipped']) / sum(rows[0]['units']) == pytest.approx(fraction, rel=1e-6)
    assert any(sum(row['clipped']) for row in rows[1:])


@pytest.mark.parametrize('config', [CONFIG, pytest.param(BF16, marks=pytest.mark.slow)], ids=['float32', 'bfloat16'])
def test_what_is_logged_and_that_nothing_is_changed(tmp_path, config):
    plain = train(tmp_path / 'plain', config, [])
    both = train(tmp_path / 'both', config, [SIGNAL, CLIPPING])
    for name, value in state(plain).items():
        assert torch.equal(value, state(both)[name]), name
    assert not list((tmp_path / 'plain').rglob('clipping.jsonl'))
    half = run.read_checkpoint(tmp_path / 'both' / 'iter_2.pth')['state_dict']
    check_clipping(tmp_path / 'both', both)
    if BOARD:
        check_tensorboard(tmp_path / 'both')
    check_signals(tmp_path / 'both', {2: half, 4: state(both)})


def work(folder, hooks):
    runner = train(folder, CONFIG, hooks)
    if hooks and not int(os.environ['RANK']):
        check_clipping(folder, runner)
        check_signals(folder, {4: state(runner)})
    return {name: value.tolist() for name, value in state(runner).items()}


@pytest.mark.slow
def test_two_processes(tmp_path, processes):
    plain = processes(2).call(work, tmp_path / 'plain', [])
    both = processes(2).call(work, tmp_path / 'both', [SIGNAL, CLIPPING])
    assert plain[0] == plain[1] == both[0] == both[1]
    assert len(list((tmp_path / 'both').rglob('clipping.jsonl'))) == 1


def test_a_model_without_a_backbone_is_refused(tmp_path):
    from tests.toy import CONFIG

    config = CONFIG + 'custom_hooks = []\n'
    with pytest.raises(UserError, match='needs a model with a backbone, got ToyLinear'):
        train(tmp_path / 'toy', config, [SIGNAL])
