"""What AGC clips of each parameter: told by the wrapper, written by the hook."""

import json

import pytest
import torch
from mmengine import Config
from torch import nn

from nfnet_mm.engine import AGCOptimWrapper
from nfnet_mm.engine.agc import clip_, of_each_parameter
from nfnet_mm.errors import UserError
from nfnet_mm.run import build_runner
from tests.toy import CONFIG


def params():
    """Limits by hand at clipping 0.1: rows 0.5 and 1.0; the vector 0.2; the transposed conv's two outputs 0.1 * 2."""
    rows = nn.Parameter(torch.tensor([[3.0, 4.0], [6.0, 8.0]]))
    rows.grad = torch.tensor([[0.6, 0.8], [0.3, 0.4]])  # norms 1 and 0.5: the first is halved
    vector = nn.Parameter(torch.tensor([2.0, 0.0]))
    vector.grad = torch.tensor([0.8, 0.0])  # a quarter
    conv = nn.Parameter(torch.ones(4, 2, 1, 1))
    conv.grad = torch.tensor([1.0, 0.05]).repeat(4, 1).view(4, 2, 1, 1)  # norms 2 and 0.1: a tenth, and not
    return rows, vector, conv


def test_of_each_parameter_by_hand():
    rows, vector, conv = params()
    left = nn.Parameter(torch.ones(3))
    left.grad = torch.full((3,), 100.0)
    verdict = clip_([left, rows, vector, conv], 0.1, transposed={conv: 1}, exclude={left})
    found, units, told = of_each_parameter(verdict)
    assert [p is q for p, q in zip(found, (rows, vector, conv))] == [True] * 3 and units == [2, 1, 2]
    torch.testing.assert_close(told, torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.25, 0.1]]))


@pytest.mark.parametrize('flat', [True, False])
def test_the_gpus_ways_tell_the_same(monkeypatch, flat):
    from nfnet_mm.engine.agc import clip

    monkeypatch.setattr(clip, 'on_device', lambda tensor: True)
    monkeypatch.setattr(clip, 'clip_by_kernel_', lambda *args: None)
    monkeypatch.setattr(clip, 'can_be_flat', lambda job: flat)
    rows, vector, conv = params()
    verdict = clip_([rows, vector, conv], 0.1, transposed={conv: 1})
    monkeypatch.undo()
    torch.testing.assert_close(of_each_parameter(verdict)[2], torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.25, 0.1]]))


def test_the_wrapper_tells_once_and_of_no_step_that_is_left_out():
    net = nn.Linear(2, 2)
    wrapper, told = AGCOptimWrapper(torch.optim.SGD(net.parameters(), lr=0.0), agc=dict(clipping=0.1)), []
    wrapper.bind(net)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[3.0, 4.0], [6.0, 8.0]]))
        net.bias.copy_(torch.tensor([2.0, 0.0]))
    wrapper.tell_layers(lambda *args: told.append(args))
    for bias in (float('nan'), 0.8, 0.8):
        net.weight.grad, net.bias.grad = torch.tensor([[0.6, 0.8], [0.3, 0.4]]), torch.tensor([bias, 0.0])
        wrapper.step()
    ((names, units, clipped, scale),) = told
    assert (names, units, clipped) == (['weight', 'bias'], [2, 1], [1, 1])
    torch.testing.assert_close(scale, [0.5, 0.25], rtol=1e-6, atol=0)


def toy(tmp_path, wrapper='nfnet_mm.AGCOptimWrapper', **change):
    path = tmp_path / 'toy.py'
    path.write_text(CONFIG)
    cfg = Config.fromfile(str(path))
    cfg.optim_wrapper.type = wrapper
    cfg.merge_from_dict(dict(work_dir=str(tmp_path), experiment_name=tmp_path.name, **change))
    return cfg


def rows_of(folder):
    return [json.loads(line) for path in sorted(folder.rglob('clipping.jsonl')) for line in path.open()]


def test_a_run_logs_layers_sparsely_without_being_asked(tmp_path):
    build_runner(toy(tmp_path)).train()
    header, row = rows_of(tmp_path)
    assert header == dict(layers=['linear.weight', 'linear.bias'], units=[1, 1])
    assert row['step'] == 1 and len(row['clipped']) == len(row['scale']) == 2


def test_interval_and_sums_equal_the_overall_figures(tmp_path):
    hook = dict(type='nfnet_mm.ClippingLogHook', interval=2)
    runner = build_runner(toy(tmp_path, custom_hooks=[hook]))
    runner.train()
    _, *rows = rows_of(tmp_path)
    assert [row['step'] for row in rows] == [1, 3]
    overall = {
        name: runner.message_hub.get_scalar(f'train/agc/{name}').data[0] for name in ('clipped_fraction', 'min_scale')
    }
    for row in rows:
        i = row['step'] - 1
        assert sum(row['clipped']) / 2 == pytest.approx(overall['clipped_fraction'][i])
        assert min(row['scale']) == pytest.approx(overall['min_scale'][i], rel=1e-3)


def test_without_agc_nothing_is_written(tmp_path):
    build_runner(toy(tmp_path, 'OptimWrapper')).train()
    assert rows_of(tmp_path) == []


def test_a_bad_interval_is_refused():
    from nfnet_mm.engine.clipping_log import ClippingLogHook

    with pytest.raises(UserError, match='ClippingLogHook interval=0 must be a positive integer'):
        ClippingLogHook(0)


def test_a_file_that_cannot_be_written_does_not_end_the_run(tmp_path, caplog):
    from nfnet_mm.engine.clipping_log import ClippingLogHook

    blocked = tmp_path / 'file'
    blocked.touch()
    hook = ClippingLogHook()
    for step in (1, 2):
        hook._write(blocked, step, ['a'], [1], [0], [1.0])
    (tmp_path / 'log').mkdir()
    hook._write(tmp_path / 'log', 3, ['a'], [1], [0], [1.0])
    assert rows_of(tmp_path) == [dict(layers=['a'], units=[1]), dict(step=3, clipped=[0], scale=[1.0])]
