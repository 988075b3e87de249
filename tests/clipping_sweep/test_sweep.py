"""A sweep on a linear model, against trainings by hand."""

import json
import math
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch

from nfnet_mm import commands
from nfnet_mm.clipping_sweep import Outcome, summarise, sweep, table, verdicts
from nfnet_mm.errors import UserError
from tests.toy import CONFIG, ToyLinear, ToyNumbers


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'toy.py'
    path.write_text(CONFIG)
    return str(path)


def by_hand(clipping, iters=10, lr=0.1):
    """Losses (iters,) of SGD on 8 numbers a step, the rate rising over one step and falling along a cosine."""
    model, data = ToyLinear(), ToyNumbers()
    momentum = [torch.zeros_like(p) for p in model.parameters()]
    losses = []
    for i in range(iters):
        rows = [(8 * i + k) % 32 for k in range(8)]
        loss = model(list(data.inputs[rows]), list(data.targets[rows]), 'loss')['loss']
        grads = torch.autograd.grad(loss, list(model.parameters()))
        losses.append(float(loss.detach()))
        rate = lr * (1 + math.cos(math.pi * max(i - 1, 0) / (iters - 1))) / 2
        with torch.no_grad():
            for p, g, m in zip(model.parameters(), grads, momentum):
                if clipping is not None:
                    limit = clipping * max(float(p.norm()), 1e-3)
                    g = g * min(1.0, limit / max(float(g.norm()), 1e-6))
                m.mul_(0.9).add_(g)
                p.sub_(rate * m)
    return losses


def test_losses_are_those_of_training_by_hand(config, tmp_path):
    outcomes = sweep(config, tmp_path / 'out', [0.01, 0.1], seeds=[0], iters=10)
    assert [one.clipping for one in outcomes] == [None, 0.01, 0.1]
    for one in outcomes:
        losses = by_hand(one.clipping)
        # the mean over a tenth is that of one iteration
        np.testing.assert_allclose([one.first_loss, one.loss], [losses[0], losses[-1]], rtol=1e-4)
    assert outcomes[0].clipped == 0 and outcomes[0].scale == 1
    assert outcomes[1].clipped > 0.9  # two units, the bias at zero


def test_an_interrupted_sweep_goes_on(config, tmp_path, monkeypatch):
    module = import_module('nfnet_mm.clipping_sweep.sweep')  # the package has a function of that name
    real, ran = module.run_trial, []

    def counted(cfg, label, clipping, seed, folder):
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append((clipping, seed))
        return real(cfg, label, clipping, seed, folder)

    monkeypatch.setattr(module, 'run_trial', counted)
    arguments = (config, tmp_path / 'out', [0.1])
    with pytest.raises(KeyboardInterrupt):
        module.sweep(*arguments, seeds=[0, 1], iters=4)
    monkeypatch.setattr(module, 'run_trial', lambda *args: (ran.append(args[2:4]), real(*args))[1])
    resumed = module.sweep(*arguments, seeds=[0, 1], iters=4)
    assert ran == [(None, 0), (None, 1), (0.1, 0), (0.1, 1)]
    assert resumed == sweep(config, tmp_path / 'whole', [0.1], seeds=[0, 1], iters=4)
    with pytest.raises(UserError, match='holds outcomes of iters=4, not 5'):
        module.sweep(*arguments, seeds=[0], iters=5)
    with pytest.raises(UserError, match='other settings of the config'):
        module.sweep(*arguments, seeds=[0], iters=4, options={'train_cfg.total_batch': 4})
    (tmp_path / 'out' / 'outcomes.json').write_text('{"a": ')
    with pytest.raises(UserError, match='is no file of outcomes'):
        module.sweep(*arguments, seeds=[0], iters=4)


def test_divergence_is_an_outcome(config, tmp_path):
    plain, clipped = sweep(config, tmp_path / 'out', [0.01], ['SGD=1e4'], [0], iters=60, schedule='constant')
    assert plain.diverged and plain.loss is None
    rows = summarise([plain, clipped])
    assert (rows[0].diverged, rows[0].seeds) == (1, 1)
    assert any('1 of 1' in line for line in table(rows))


def test_command_writes_table_csv_and_figure(config, tmp_path, capsys):
    out = tmp_path / 'out'
    argv = ['sweep-clipping', config, '--values', '0.1', '--optimizers', 'config', 'AdamW', '--seeds', '0', '1']
    commands.main(argv=[*argv, '--iters', '4', '--validate', '--out', str(out)])
    said = capsys.readouterr().out
    assert 'AdamW 0.001' in said and 'SGD 0.1: the lowest loss is' in said and 'error' in said
    rows = (out / 'sweep.csv').read_text().splitlines()
    outcomes = json.loads((out / 'outcomes.json').read_text())['outcomes']
    assert len(rows) == 1 + len(outcomes) == 9
    assert (out / 'sweep.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(optimizers=['AdmW']), "there is no optimizer 'AdmW'. Did you mean 'AdamW'"),
        (dict(optimizers=['RMSprop']), 'state its learning rate, RMSprop=RATE'),
        (dict(optimizers=['SGD=fast']), "'fast' is no learning rate"),
        (dict(optimizers=['SGD=-1']), 'the learning rate of SGD=-1.0 must be a positive finite number'),
        (dict(values=[0]), 'AGC clipping=0 must be a positive finite number'),
        (dict(seeds=[-1]), 'seed -1 must be an integer'),
        (dict(seeds=[]), 'at least one seed'),
        (dict(iters=0), 'iters=0 must be a positive integer'),
        (dict(schedule='cosin'), "Did you mean 'cosine'"),
    ],
)
def test_bad_arguments_are_one_line(config, tmp_path, change, message):
    with pytest.raises(UserError) as error:
        sweep(config, tmp_path / 'out', **{'values': [0.1], **change})
    assert message in str(error.value) and '\n' not in str(error.value)
    assert not (tmp_path / 'out').exists()


def outcome(clipping, seed, loss, diverged=''):
    return Outcome('SGD 0.1', clipping, seed, 2.0, loss, 0.5, 0.1, 0, diverged)


def test_difference_is_by_seed_with_students_interval():
    outcomes = [outcome(None, seed, 1.0 + seed) for seed in range(3)]
    outcomes += [outcome(0.1, seed, loss) for seed, loss in enumerate([0.9, 1.8, 2.7])]
    plain, row = summarise(outcomes)
    # mean -0.2, deviation 0.1, t of two degrees of freedom 4.303, by hand
    np.testing.assert_allclose(row.against, [-0.2, -0.2 - 0.24841, -0.2 + 0.24841], atol=1e-4)
    assert 'which may be chance' in next(verdicts([plain, row]))
    better = [replace(one, loss=one.loss - 0.1) if one.clipping else one for one in outcomes]
    assert 'more than chance' in next(verdicts(summarise(better)))
    lost = [replace(one, diverged='so', loss=None) if one.clipping is None else one for one in outcomes]
    assert 'without clipping 3 of 3 seeds diverge' in next(verdicts(summarise(lost)))
