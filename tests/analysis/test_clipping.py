"""The log of a run, read, put in words and drawn."""

import json

import numpy as np
import pytest

from nfnet_mm import commands
from nfnet_mm.analysis.clipping import as_csv, most_clipped, read_clipping
from nfnet_mm.errors import UserError


def write_log(folder, steps, fraction, layers=(), cut=''):
    """A log: scalars at all steps, lines of layers at some, and what is left of a last line."""
    data = folder / 'vis_data'
    data.mkdir(parents=True)
    rows = [{'loss': 1.0, 'agc/clipped_fraction': fraction, 'agc/min_scale': 0.5, 'step': step} for step in steps]
    (data / 'scalars.json').write_text(''.join(json.dumps(row) + '\n' for row in [*rows, dict(acc=1.0, step=9)]) + cut)
    (data / 'clipping.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in layers) + cut)


NAMES = dict(layers=['stem.weight', 'head.bias'], units=[4, 1])


@pytest.fixture
def resumed(tmp_path):
    """Killed at 40, resumed at 20, with a layer more."""
    first = [NAMES, *(dict(step=s, clipped=[4, 0], scale=[0.25, 1.0]) for s in (1, 21, 31))]
    write_log(tmp_path / '20260101_000000', range(10, 41, 10), 0.8, first, cut='{"step": 50, "agc/cl')
    more = dict(layers=['stem.weight', 'new.weight'], units=[4, 2])
    second = [more, dict(step=21, clipped=[1, 2], scale=[0.5, 0.125])]
    write_log(tmp_path / '20260102_000000', (30, 40), 0.2, second)
    return tmp_path


def test_logs_of_a_resumed_run_are_one(resumed):
    log = read_clipping(resumed)
    assert log.steps.tolist() == [10, 20, 30, 40]
    assert log.fraction.tolist() == [0.8, 0.8, 0.2, 0.2]
    assert log.layers == ['stem.weight', 'head.bias', 'new.weight'] and log.units.tolist() == [4, 1, 2]
    assert log.layer_steps.tolist() == [1, 21]
    np.testing.assert_array_equal(log.layer_fraction, [[1, 0.25], [0, np.nan], [np.nan, 1]])
    np.testing.assert_array_equal(log.layer_scale, [[0.25, 0.5], [1, np.nan], [np.nan, 0.125]])
    one = read_clipping(resumed / '20260102_000000')
    assert one.steps.tolist() == [30, 40] and one.layer_steps.tolist() == [21]


def test_words(resumed):
    lines = list(most_clipped(read_clipping(resumed)))
    assert '50.0% of the units on average, 80.0% in the first tenth and 20.0% in the last' in lines[0]
    assert lines[1] == 'Of 3 parameters, at 2 iterations, 1 never were. Most were:'
    assert [line.split() for line in lines[3:]] == [
        ['new.weight', '2', '100.0%', '100.0%', '0.125'],
        ['stem.weight', '4', '62.5%', '25.0%', '0.25'],
        ['head.bias', '1', '0.0%', '0.0%', '1'],
    ]
    assert as_csv(read_clipping(resumed)).splitlines()[-1] == '21,new.weight,2,1,0.125'


def test_command_draws_several_runs_and_those_without_layers(resumed, tmp_path, capsys):
    write_log(tmp_path / 'plain' / 'log', [10], 0.1)
    out = tmp_path / 'out'
    commands.main(argv=['clipping', str(resumed), str(tmp_path / 'plain'), '--out', str(out)])
    assert 'ClippingLogHook' in capsys.readouterr().out
    assert [path.suffix for path in sorted(out.iterdir())] == ['.csv', '.png'] * 2
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in out.glob('*.png'))


def test_folders_that_hold_nothing_are_one_line(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').touch()
    write_log(tmp_path / 'sgd' / 'log', [], 0.0)
    for name, message in [
        ('emty', "in .* did you mean 'empty'"),
        ('empty', 'holds no log'),
        ('file', 'is a file'),
        ('sgd', 'tells nothing of AGC'),
    ]:
        with pytest.raises(UserError, match=message):
            read_clipping(tmp_path / name)
