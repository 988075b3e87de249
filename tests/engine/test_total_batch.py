import json

import pytest
import torch
from mmengine import Config
from mmengine.registry import LOOPS
from mmengine.runner import Runner

from nfnet_mm.engine.total_batch import plan_accumulation
from tests import toy


def toy_runner(folder, **changes):
    cfg = Config.fromstring(toy.CONFIG, '.py')
    cfg.work_dir = str(folder)
    cfg.experiment_name = folder.name
    cfg.merge_from_dict(changes)
    return Runner.from_cfg(cfg)


def trained(folder, **changes):
    runner = toy_runner(folder, **changes)
    runner.train()
    return torch.cat([p.detach().flatten() for p in runner.model.parameters()]), runner


@pytest.mark.parametrize('total,per_device,devices,expected', [
    (256, 2, 8, 16), (256, 2, 1, 128), (256, 8, 32, 1), (256, 256, 1, 1), (96, 4, 3, 8)])
def test_plan(total, per_device, devices, expected):
    assert plan_accumulation(total, per_device, devices) == expected


def test_plan_that_does_not_fit_names_what_would():
    with pytest.raises(ValueError, match=r'256 is not a multiple of 2 samples x 3 devices = 6: '
                                         r'set train_cfg.total_batch to 252 or 258'):
        plan_accumulation(256, 2, 3)
    with pytest.raises(ValueError, match=r'batch_size to one of \[1, 2, 4, 8\], or train_cfg.total_batch to 24 or 36'):
        plan_accumulation(32, 3, 4)
    with pytest.raises(ValueError, match='at least 1, got 256, 0 and 1'):
        plan_accumulation(256, 0, 1)


@pytest.mark.parametrize('batch', [1, 2, 4])
def test_any_split_of_the_batch_takes_the_same_steps(tmp_path, batch):
    whole, _ = trained(tmp_path / 'whole', **{'train_dataloader.batch_size': 8})
    parts, runner = trained(tmp_path / f'batch{batch}', **{'train_dataloader.batch_size': batch})
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-7)
    assert runner.iter == 4 and runner.optim_wrapper._inner_count == 4 * 8 // batch


def test_log_schedule_validation_and_checkpoints_count_updates(tmp_path):
    _, runner = trained(tmp_path / 'log')
    scalars = [json.loads(line) for line in next((tmp_path / 'log').rglob('scalars.json')).read_text().splitlines()]
    rows = [row for row in scalars if 'loss' in row]
    assert [row['step'] for row in rows] == [1, 2, 3, 4]
    assert [row['lr'] for row in rows] == pytest.approx([0.1, 0.1, 0.01, 0.01])
    assert [row['step'] for row in scalars if 'error' in row] == [4]
    assert {path.name for path in (tmp_path / 'log').glob('*.pth')} == {'iter_2.pth', 'iter_4.pth'}
    data = toy.ToyNumbers()  # the first logged loss is the mean over all eight samples, not over the last two
    first = (data.inputs[:8].sum(1) * 0.5 - data.targets[:8]).square().mean()
    assert rows[0]['loss'] == pytest.approx(float(first), rel=1e-5)


def test_resumed_equals_uninterrupted(tmp_path):
    whole, _ = trained(tmp_path / 'uninterrupted')
    resumed, runner = trained(tmp_path / 'resumed', resume=True, load_from=str(tmp_path / 'uninterrupted/iter_2.pth'))
    assert runner.iter == 4
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


def test_learning_rate_follows_the_total_batch(tmp_path):
    runner = toy_runner(tmp_path / 'lr', **{'train_cfg.total_batch': 32})
    LOOPS.build(dict(runner.cfg.train_cfg), default_args=dict(runner=runner, dataloader=runner._train_dataloader))
    assert runner.optim_wrapper['optimizer']['lr'] == pytest.approx(0.4)
    assert runner.optim_wrapper['accumulative_counts'] == 16


@pytest.mark.parametrize('change,message', [
    ({'train_cfg.total_batch': 9}, 'a total batch of 9 is not a multiple of 2 samples x 1 devices'),
    ({'optim_wrapper.accumulative_counts': 4}, 'accumulative_counts is 4, but TotalBatchTrainLoop derives it'),
    ({'auto_scale_lr': dict(enable=True, base_batch_size=8)}, 'auto_scale_lr is on'),
])
def test_what_would_change_the_batch_twice_is_refused(tmp_path, change, message):
    runner = toy_runner(tmp_path / message[:12].replace(' ', '_'), **change)
    with pytest.raises(ValueError, match=message):
        runner.train()
