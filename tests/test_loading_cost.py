"""The cost of loading pictures, by a clock that the steps themselves put forward."""

import os
import statistics
from types import SimpleNamespace

import cv2
import pytest
from mmengine import Config
from mmengine.registry import FUNCTIONS, TRANSFORMS

from nfnet_mm.errors import UserError
from nfnet_mm.pack import write_pack
from nfnet_mm.training_cost import loading


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0, seen=[])
    monkeypatch.setattr(loading.time, 'process_time', lambda: clock.now)
    return clock


def config(clock, collate=None):
    class Slow:
        def __init__(self, seconds):
            self.seconds = seconds

        def __call__(self, results):
            clock.now += self.seconds
            clock.seen.append(results['img_path'])
            return results

    def two_by_two(batch, seconds):
        clock.now += seconds
        return batch

    two_by_two.images_per_output = lambda **arguments: 2
    TRANSFORMS.register_module('SlowStep', force=True, module=Slow)
    FUNCTIONS.register_module('two_by_two', force=True, module=two_by_two)
    pipeline = [dict(type='SlowStep', seconds=0.003)]
    return Config(dict(train_dataloader=dict(dataset=dict(pipeline=pipeline), collate_fn=collate)))


def test_each_step_s_time_by_image(clock):
    cost = loading.loading_cost(config(clock, dict(type='two_by_two', seconds=0.004)), ['a', 'b', 'c', 'd'], repeats=2)
    assert cost.steps == pytest.approx(dict(SlowStep=0.003, two_by_two=0.001))
    assert clock.seen == list('abcd') * 3  # the first time warms up
    assert cost.images_per_second == pytest.approx(250)
    # 1500 samples are 3000 images, and a worker loads 250
    assert (cost.workers(1500), cost.workers(1501), cost.workers(1)) == (12, 13, 1)


def test_a_recipe_that_does_not_mix_loads_one_image_for_a_sample(clock):
    cost = loading.loading_cost(config(clock), ['a'], repeats=1)
    assert cost.images_per_sample == 1 and cost.workers(1000) == 3


def test_what_cannot_be_measured(clock):
    with pytest.raises(UserError, match='train_dataloader.dataset.pipeline is missing'):
        loading.loading_cost(Config(dict(train_dataloader=None)), ['a'])
    with pytest.raises(UserError, match='samples_per_second=0 must be a positive finite number'):
        loading.loading_cost(config(clock), ['a'], repeats=1).workers(0)


def test_photos_are_of_imagenet_s_size(tmp_path):
    """Its training JPEGs have 110 kB in the mean, and 500 x 375 is their most frequent size."""
    paths = loading.write_photos(str(tmp_path), 24)
    assert statistics.mean(map(os.path.getsize, paths)) == pytest.approx(110e3, rel=0.05)
    heights, widths, _ = zip(*(cv2.imread(path).shape for path in paths))
    assert statistics.mean(heights) == pytest.approx(375, rel=0.05)
    assert statistics.mean(widths) == pytest.approx(500, rel=0.05)
    assert len(set(heights)) > 12


def test_what_is_read_is_read_in_a_pack_too(tmp_path):
    (tmp_path / 'data').mkdir()
    loading.write_photos(str(tmp_path / 'data'), 2)
    write_pack(str(tmp_path / 'data'), str(tmp_path / 'data.tar'))
    assert loading.reading_cost([f'pack://{tmp_path}/data.tar/1.jpg'], repeats=1) >= 0
    with pytest.raises(FileNotFoundError, match='has no file'):
        loading.reading_cost([f'pack://{tmp_path}/data.tar/2.jpg'], repeats=1)
