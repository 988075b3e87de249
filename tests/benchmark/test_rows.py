"""Rows and suites: what fails does not stop the rest, what does not fit is accumulated, and what the suites state."""

import dataclasses
import statistics

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import nn

from nfnet_mm.benchmark import MEASURES, SUITES, Row, Run, Runner, find_implementation
from nfnet_mm.benchmark.detector import config_text
from nfnet_mm.benchmark.growth import growth
from nfnet_mm.benchmark.report import cells
from nfnet_mm.errors import UserError
from nfnet_mm.run import load_config

SETTINGS = dict(device='cpu', dtype='float32', layout='contiguous', batch=2, size=32, compiled=None, fused=False)
HUNGRY = "dict(type='ToyHungry', room={})"


@MODELS.register_module(force=True)
class ToyHungry(BaseModule):
    """A conv that takes so many images at once, and no more."""

    def __init__(self, room=2):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.room, self.seen = room, []

    def forward(self, x):
        if len(x) > self.room:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        self.seen.append(len(x))
        return (self.conv(x),)


def test_rows_go_on_after_one_that_fails():
    rows = [
        Row('no such model', 'train', 'nfnet_nano', 'timm/no_such_model'),
        Row('not of a network without it', 'agc', HUNGRY.format(2)),
        Row('needs a GPU', 'peak', 'nfnet_nano'),
        Row('out of memory', 'eval', HUNGRY.format(1)),
        Row('good', 'eval', 'nfnet_nano', HUNGRY.format(2), target=1e9),
        Row('never so fast', 'eval', 'nfnet_nano', HUNGRY.format(2), target=0),
    ]
    pytest.importorskip('timm')
    found = list(Runner(Run(SETTINGS, pairs=3)).results(rows))
    failures = [result.failure for result in found]
    assert "no model 'no_such_model'" in failures[0] and 'has no adaptive gradient clipping' in failures[1]
    assert failures[2:] == ['peak memory is that of CUDA', 'out of memory', '', '']
    assert [result.met for result in found] == [None, None, None, None, True, False]
    assert cells(found[4])[-1] == '<= 1e+09: met' and cells(found[5])[-1] == '<= 0: missed'
    good = found[4]
    ours, theirs = (side.values for side in good.sides)
    assert good.ratio.median == pytest.approx(statistics.median(a / b for a, b in zip(ours, theirs)))
    assert good.ratio.low <= good.ratio.median <= good.ratio.high


def test_a_step_that_does_not_fit_is_accumulated():
    """Of 8 images where 2 fit: 4 passes of 2; the other side keeps its batch."""
    row = Row('', 'train', HUNGRY.format(2), HUNGRY.format(8), options=dict(batch=8))
    runner = Runner(Run(SETTINGS, pairs=2))
    result = runner.measure(row)
    first, second = (side.settings for side in result.sides)
    assert (first.batch, first.micro_batches) == (2, 4) and (second.batch, second.micro_batches) == (8, 1)
    (subject,) = [one for (name, _), one in runner.subjects.items() if 'room=2' in name]
    assert set(subject.network.backbone.seen[1:]) == {2}
    with pytest.raises(UserError, match='not divisible'):
        raise UserError(next(iter(runner.results([Row('', 'train', HUNGRY.format(1), options=dict(batch=6))]))).failure)


def test_the_slower_layout_is_not_in_memory_while_growth_is_measured():
    runner = Runner(Run(dict(SETTINGS, layout='best'), pairs=1))
    subjects = runner.subjects_of([find_implementation('nfnet_nano')], 'train', dict(batch=1))
    assert len(runner.layouts) == 1 and list(runner.subjects.values()) == subjects


def test_best_layout_is_chosen_once_and_for_training_and_evaluation_apart():
    runner = Runner(Run(dict(SETTINGS, layout='best'), pairs=1))
    for measure in ('train', 'eval', 'train'):
        (side,) = runner.measure(Row('', measure, 'nfnet_nano')).sides
        kinds = {kind: layout for (_, _, kind), layout in runner.layouts.items()}
        assert side.settings.layout == kinds[measure]
    assert sorted(kinds) == ['eval', 'train']


def test_time_over():
    run = Run(SETTINGS, pairs=1, until=0.0)
    assert [r.failure for r in Runner(run).results([Row('', 'eval', 'nfnet_nano')])] == [
        'the time for the suite was over'
    ]


@pytest.mark.parametrize('name', SUITES)
def test_suites_name_what_there_is(name):
    pytest.importorskip('timm')
    suite = SUITES[name]()
    for row in suite.rows:
        if row.measure == 'detector':
            continue
        assert {row.measure, row.their_measure or row.measure} <= set(MEASURES)
        for side in filter(None, (row.ours, row.theirs)):
            found = find_implementation(side)
            normalizer_free = side.startswith(('nf', 'timm/dm')) and 'agc=False' not in side
            assert (found.clipping is not None) == normalizer_free, side
    assert len({row.what for row in suite.rows}) == len(suite.rows) and suite.pairs >= 7


def bars(name):
    return {row.what: row.target for row in SUITES[name]().rows if row.target is not None}


def test_the_bars_of_the_suites():
    assert bars('cpu') == {
        'training step': 0.88,
        'evaluation': 0.95,
        'folded evaluation': 0.80,
        'AGC, no unit clipped': 0.30,
        'AGC, all units clipped': 0.30,
        'accumulation of 4 micro-batches': 0.85,
        'saved tensors, batch 16': 0.75,
        'held for the backward pass, batch 16': 0.75,
        'saved tensors, activations recomputed': 0.55,
        'held, activations recomputed': 0.55,
        'training step, activations recomputed': 1.08,
        'launches of a training step': 900,
        'NF-ResNet-50 step, batch 4': 1.00,
        'NF-ResNet-50 step, batch 16': 0.92,
    }
    assert bars('h200') == {
        'training step': 0.60,
        'compiled training step': 0.90,
        'training step, batch 128': 0.70,
        'folded evaluation': 0.55,
        'compiled folded evaluation': 0.95,
        'AGC, no unit clipped': 0.10,
        'AGC, all units clipped': 0.10,
        'AGC of the training step': 0.02,
        'weight standardisation of the step': 0.03,
        'F0 / ResNet-50': 1.45,
        'F1 / ResNet-50': 3.40,
        'NF-ResNet-50 step': 0.90,
        'Mask R-CNN, nfnet_f0 / bn_resnet50 (NFNets, ICML version, Table 5)': 1.18,
        'synchronisations of 100 training steps': 0,
        'launches of a training step': 900,
        'launches of a captured step': 1,
    }


def test_the_papers_ratios():
    """As their texts state them: F0 costs 1.61 ResNet-50 steps, F1 3.79, and so on."""
    published = {row.what: row.published for row in SUITES['papers']().rows}
    for start, ratio in {
        'NFNet-F0 / ResNet-50': 1.61,
        'NFNet-F1 / ResNet-50': 3.79,
        'NFNet-F5 / ResNet-50': 61.67,
        'NFNet-F6 / ResNet-50': None,
        'NFNet-F0 / the same with BatchNorm': 0.66,
        'Mask R-CNN, nfnet_f0': 1.18,
        'Mask R-CNN, nfnet_f1': 1.72,
        'NF- / BN-ResNet-50, batch 32': 0.90,
        'NF- / BN-ResNet-288, batch 64': None,
        'NF-RegNet- / EfficientNet-B0, batch 16': 0.43,
    }.items():
        (found,) = [value for what, value in published.items() if what.startswith(start)]
        assert found == ratio, start
    assert len(published) == 7 + 4 + 3 + 5 * 3 + 6 * 3


def test_growth_with_depth_counts_blocks():
    """Nano has four blocks; three points, whose line goes through their mean."""
    (found,) = growth(['nfnet_nano'], 'depth', (1, 2, 3), Run(SETTINGS, pairs=1))
    assert [point.x for point in found.points] == [4, 8, 12]
    mean = statistics.mean(point.seconds.median for point in found.points)
    assert found.line.intercept + found.line.slope * 8 == pytest.approx(mean)


def test_growth_with_size_counts_pixels():
    (found,) = growth([HUNGRY.format(2)], 'size', (32, 48, 64), Run(SETTINGS, pairs=1))
    assert [(point.value, point.x) for point in found.points] == [(32, 1024), (48, 2304), (64, 4096)]


def test_growth_ends_where_memory_does():
    run = Run(SETTINGS, pairs=1)
    (found,) = growth([HUNGRY.format(3)], 'batch', (1, 2, 3, 4), run)
    assert [point.x for point in found.points] == [1, 2, 3]
    with pytest.raises(UserError, match='out of memory at 3; name smaller ones by --values'):
        growth([HUNGRY.format(2)], 'batch', (1, 2, 3, 4), run)


@pytest.mark.parametrize('dtype, wrapper', [('float32', 'OptimWrapper'), ('bfloat16', 'AmpOptimWrapper')])
def test_detectors_are_measured_with_one_optimizer(tmp_path, dtype, wrapper):
    """Whatever their own configs have: NFNet-F0's has AGC."""
    pytest.importorskip('mmdet')
    found = []
    for row in SUITES['papers']().rows:
        if row.measure == 'detector':
            for i, name in enumerate((row.ours, row.theirs)):
                (tmp_path / f'{i}.py').write_text(config_text(name, dtype))
                found.append(load_config(str(tmp_path / f'{i}.py')))
    optimizer = dict(type='SGD', lr=1e-4, momentum=0.9, nesterov=True)
    assert len(found) == 6 and all(cfg.optim_wrapper.optimizer == optimizer for cfg in found)
    assert {cfg.optim_wrapper.type for cfg in found} == {wrapper}
    assert not any('agc' in cfg.optim_wrapper or 'paramwise_cfg' in cfg.optim_wrapper for cfg in found)
    assert {cfg.model.backbone.type for cfg in found} == {'nfnet_mm.NFNet', 'nfnet_mm.BNResNet'}


@pytest.mark.slow
def test_a_step_of_the_detectors():
    """Small pictures, in processes of their own."""
    pytest.importorskip('mmdet')
    row = next(row for row in SUITES['h200']().rows if row.measure == 'detector')
    run = Run(dict(SETTINGS, size=64, batch=1), pairs=2)
    result = Runner(run).measure(dataclasses.replace(row, options={}))
    assert [len(side.values) for side in result.sides] == [2, 2] and result.ratio.median > 0.1
