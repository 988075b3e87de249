import json
import math
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('sklearn')
from demo.claims import LETTERS, finished, load_claim
from demo.claims.a_clipping import best
from demo.claims.finished import Job
from demo.claims.measuring import measure
from demo.claims.statistics import interval, spread
from demo.claims.training import batches

ROOT = Path(__file__).parents[2]


def run(folder, *options):
    command = [sys.executable, '-W', 'ignore', '-m', 'demo.claims', '--work-dir', folder, *options]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize('values', [[1.0, 2.0, 4.0], [-3.0, 5.0, 2.0, 0.5, 9.0]])
def test_interval_is_that_of_the_one_sample_t_test(values):
    from scipy import stats

    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = interval(values)
    assert (found.mean, found.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_interval_by_hand():
    found = interval([1.0, 2.0, 3.0])  # t of 2 degrees of freedom is 4.3027, and the standard error 1 / sqrt(3)
    assert (found.low, found.high) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4)
    assert not found.above_zero and interval([2.9, 3.0, 3.1]).above_zero
    assert (interval([5.0]).low, interval([5.0]).high) == (-math.inf, math.inf) and spread([5.0]) == '5.0'


def clipping(none, small, large):
    """Accuracies of two batches, of which the best clipping is ``small`` and ``large``."""

    def row(top):
        return {'none': none, **{c: 90.0 if c == top else 50.0 for c in ('0.1', '0.4', '1.6')}}

    return dict(accuracy={'32': row(small), '512': row(large)})


def small_batch(nf, bn):
    return dict(nf=dict(zip(('4', '64'), nf)), bn=dict(zip(('4', '64'), bn)))


def variances(power):
    planned = [1.04, 1.08, 1.12, 1.16]
    return dict(planned=planned, measured=[p**power for p in planned])


def ap(**curves):
    return {name: dict(zip(('100', '200', '400'), values)) for name, values in curves.items()}


# By claim: numbers that show it, and numbers that do not, each once for every seed with a little more.
SHOWN = dict(
    a=clipping(10.0, '1.6', '0.1'),
    b=small_batch((90, 90), (60, 90)),
    c=variances(1.0),
    d={'x': [[0.8] * 3, [1.0] * 3]},
    e={'none': [1.0] * 3, '0.2': [1.3] * 3, '1.0': [2.0] * 3},
    f=dict(bn=0.4, nf=0.0),
    g=ap(nf=(5, 10, 30), bn=(1, 2, 3)),
    h=ap(pretrained=(30, 40, 50), random=(10, 20, 50)),
)
NOT_SHOWN = dict(
    a=[clipping(90.0, '1.6', '0.1'), clipping(10.0, '0.4', '0.4'), clipping(10.0, '0.1', '1.6')],
    b=[small_batch((90, 90), (90, 90)), small_batch((60, 90), (90, 90)), small_batch((40, 40), (60, 90))],
    c=[variances(0.0), variances(3.0)],
    d=[{'x': [[1.2] * 3, [1.0] * 3]}, {'x': [[0.8] * 3, [1.0] * 3], 'y': [[1.0] * 3, [1.0] * 3]}],
    e=[
        {'none': [1.0] * 3, '0.2': [1.7] * 3, '1.0': [2.0] * 3},
        {'none': [1.0] * 3, '0.2': [1.3] * 3, '1.0': [1.3] * 3},
    ],
    f=[dict(bn=0.0, nf=0.0), dict(bn=0.4, nf=0.1)],
    g=[ap(nf=(1, 2, 3), bn=(5, 10, 30)), ap(nf=(1, 2, 3), bn=(1, 2, 3))],
    h=[ap(pretrained=(10, 40, 50), random=(30, 20, 50)), ap(pretrained=(30, 20, 90), random=(10, 20, 50))],
)


@pytest.mark.parametrize('letter', LETTERS)
def test_verdict_follows_the_numbers_both_ways(letter):
    judge = load_claim(letter).judge
    verdict = judge([SHOWN[letter]] * 3)
    assert verdict.shown and 'NOT' not in verdict.statement
    assert all(len(row) == len(verdict.header) for row in verdict.rows) and verdict.rows
    for numbers in NOT_SHOWN[letter]:
        verdict = judge([numbers] * 3)
        assert not verdict.shown and ('NOT' in verdict.statement or 'SLOWER' in verdict.statement)


@pytest.mark.parametrize('letter', sorted({*LETTERS} - {*'df'}))
def test_one_seed_shows_nothing(letter):
    assert not load_claim(letter).judge([SHOWN[letter]]).shown


def test_best_clipping_of_equal_ones_is_their_geometric_mean():
    assert best({'none': 99.0, '0.1': 50.0, '0.4': 50.0, '1.6': 20.0}) == pytest.approx(0.2)


def test_batches_have_each_sample_once_in_a_pass():
    found = [rows.tolist() for rows in batches(10, 3, 6, seed=0)]
    assert [len(rows) for rows in found] == [3] * 6
    assert len({*chain(*found[:3])}) == len({*chain(*found[3:])}) == 9
    assert found == [rows.tolist() for rows in batches(10, 3, 6, seed=0)]


def test_a_result_that_is_cut_off_or_of_an_older_version_is_measured_again(tmp_path):
    job = Job('c', 1, False)
    assert finished.read(job, tmp_path) is None
    finished.write(job, tmp_path, dict(value=[1.5]), 2.0)
    assert finished.read(job, tmp_path)['found'] == dict(value=[1.5])
    assert finished.read(Job('c', 1, True), tmp_path) is None
    text = job.path(tmp_path).read_text()
    job.path(tmp_path).write_text(text[:-9])
    assert finished.read(job, tmp_path) is None
    job.path(tmp_path).write_text(json.dumps(dict(json.loads(text), version=0)))
    assert finished.read(job, tmp_path) is None


def test_claims_run_go_on_and_write_their_page(tmp_path):
    """Of the two that need no training: what is there is not measured again."""
    job = Job('c', 1, True)
    finished.write(job, tmp_path, dict(planned=[1.0, 2.0], measured=[1.0, 2.0]), 7.0)
    for other in (Job('c', 2, True), Job('c', 3, True), Job('f', 1, True), Job('f', 2, True)):
        measure(other, tmp_path)
    done = run(tmp_path, '--only', 'c', 'f', '--quick', '--jobs', 1)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == 'claim f, seed 3' and '(f) shows: ' in done.stdout
    assert 'in the normalizer-free network by 0 at most' in done.stdout
    page = (tmp_path / 'index.html').read_text()
    assert page.count('<svg') == page.count('<table') == 2 and 'few steps each' in page
    assert json.loads(job.path(tmp_path).read_text())['cpu_seconds'] == 7.0


def test_what_is_wrong_is_one_line(tmp_path):
    done = run(tmp_path, '--seeds', 0)
    assert done.returncode == 2 and done.stderr == 'error: --seeds=0 must be a positive integer\n'
    (tmp_path / 'file').write_text('')
    done = run(tmp_path / 'file', '--only', 'f', '--quick')
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and 'file' in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('letter', sorted({*LETTERS} - {*'cf'}))
def test_the_others_run(letter, tmp_path):
    if letter in 'gh':
        pytest.importorskip('mmdet')
    done = run(tmp_path, '--only', letter, '--seeds', 2, '--quick', '--jobs', 1)
    assert done.returncode == 0, done.stderr
    assert f'({letter}) ' in done.stdout and (tmp_path / 'index.html').is_file()
