import gc
import json
import os
import socket
import subprocess
import sys
import weakref

import pytest
import torch
from mmengine import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import DATA_SAMPLERS, LOOPS, MODELS
from mmengine.runner import Runner

from nfnet_mm.engine import resume
from nfnet_mm.engine.total_batch import plan_accumulation, set_accumulation
from nfnet_mm.run import read_checkpoint
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


@pytest.mark.parametrize(
    'total,per_device,devices,expected',
    [(256, 2, 8, 16), (256, 2, 1, 128), (256, 8, 32, 1), (256, 256, 1, 1), (96, 4, 3, 8)],
)
def test_plan(total, per_device, devices, expected):
    assert plan_accumulation(total, per_device, devices) == expected


@DATA_SAMPLERS.register_module(force=True)
class ToyBatches(torch.utils.data.BatchSampler):
    """One that a config can name."""


class Saved:
    """Lives as long as the graph that has saved the tensor."""

    def __init__(self, tensor):
        self.tensor = tensor


class Outputs(Hook):
    def __init__(self, logged):
        self.logged = logged

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.logged.append(dict(outputs))
        for key in ('listed', 'nested'):
            outputs.pop(key)


def test_plan_that_does_not_fit_names_what_would():
    with pytest.raises(
        ValueError,
        match=r'256 is not a multiple of 2 samples x 3 devices = 6: '
        r'set train_cfg.total_batch to 252 or 258',
    ):
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
    trained(tmp_path / 'log')
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
    # the same total batch in other parts
    resumed, _ = trained(
        tmp_path / 'in_fours',
        resume=True,
        load_from=str(tmp_path / 'uninterrupted/iter_2.pth'),
        **{'train_dataloader.batch_size': 4},
    )
    torch.testing.assert_close(resumed, whole, rtol=1e-6, atol=1e-7)


GROUPS = {'optim_wrapper.paramwise_cfg': dict(custom_keys=dict(bias=dict(lr_mult=2.0)))}


@pytest.mark.parametrize('told', [True, False])
@pytest.mark.parametrize(
    'change, quoted',
    [
        ({'train_cfg.total_batch': 16}, r'total_batch=16 and a base learning rate of 0\.2, the checkpoint .* 0\.1,'),
        ({'optim_wrapper.optimizer.lr': 0.3}, r'total_batch=8 and a base learning rate of 0\.3, .* 0\.1,'),
        ({'optim_wrapper.paramwise_cfg.custom_keys.bias.lr_mult': 3.0}, r'of 0\.3, the checkpoint .* 0\.2,'),
        ({'train_cfg.total_batch': 16, 'train_cfg.lr_batch': None}, r'total_batch=16 .* the checkpoint total_batch=8 '),
    ],
)
def test_resuming_with_another_rate_is_refused(tmp_path, change, quoted, told):
    """Also from a checkpoint of before the total batch was noted in it, if the rate tells."""
    trained(tmp_path / 'old', **GROUPS)
    path = tmp_path / 'old/iter_2.pth'
    if not told:
        checkpoint = read_checkpoint(path)
        del checkpoint['meta']['total_batch']
        torch.save(checkpoint, path)
    runner = toy_runner(tmp_path / 'new', resume=True, load_from=str(path), **{**GROUPS, **change})
    if not told and 'train_cfg.lr_batch' in change:
        runner.train()
        return
    with pytest.raises(ValueError, match=f'cannot resume: .*{quoted}.*load_from=<the checkpoint> and resume=False'):
        runner.train()
    assert runner.iter == 0 and torch.equal(runner.model.linear.weight, torch.full((1, 3), 0.5))
    _, runner = trained(tmp_path / 'weights', load_from=str(path), **{**GROUPS, **change})  # is free
    assert runner.iter == 4


@pytest.mark.parametrize('told', [True, False])
def test_resuming_other_groups(tmp_path, told):
    trained(tmp_path / 'old', **GROUPS)
    path = tmp_path / 'old/iter_2.pth'
    if not told:  # as checkpoints of before had no names: torch counts the groups
        checkpoint = read_checkpoint(path)
        del checkpoint['meta']['param_names']
        torch.save(checkpoint, path)
    message = r'groups of the config \(1\) are not those of the checkpoint \(2\); linear.bias'
    with pytest.raises(ValueError, match=message if told else 'different number of parameter groups'):
        trained(tmp_path / 'new', resume=True, load_from=str(path))


@pytest.mark.parametrize('scheduler', [[], [dict(type='LinearLR', by_epoch=False, start_factor=0.1, end=3)]])
def test_rates_that_schedulers_or_nobody_changed_are_resumed(tmp_path, scheduler):
    changes = {**GROUPS, 'param_scheduler': scheduler}
    whole, _ = trained(tmp_path / 'whole', **changes)
    resumed, _ = trained(tmp_path / 'resumed', resume=True, load_from=str(tmp_path / 'whole/iter_2.pth'), **changes)
    torch.testing.assert_close(resumed, whole, rtol=0, atol=0)


DISTRIBUTED = """
import os
import sys
from pathlib import Path
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from tests.engine.test_total_batch import trained
torch.cuda.set_device = lambda device: None  # mmengine does without asking
Runner.wrap_model = lambda self, cfg, model: MMDistributedDataParallel(model)  # it names a GPU
weights, runner = trained(Path(sys.argv[1]) / 'two', launcher='pytorch', env_cfg=dict(dist_cfg=dict(backend='gloo')),
                          resume=True, load_from=sys.argv[2])
assert runner.distributed and runner.train_loop.accumulation == 2
if runner.rank == 0:
    torch.save(weights, sys.argv[3])
torch.distributed.barrier()
os._exit(0)  # gloo's threads sometimes never end
"""


@pytest.mark.slow
def test_resumed_on_two_processes(tmp_path):
    whole, _ = trained(tmp_path / 'one')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    environment = dict(os.environ, MASTER_ADDR='127.0.0.1', MASTER_PORT=port, WORLD_SIZE='2', OMP_NUM_THREADS='1')
    arguments = [sys.executable, '-c', DISTRIBUTED, tmp_path, tmp_path / 'one/iter_2.pth', tmp_path / 'weights.pth']
    processes = [
        subprocess.Popen(arguments, env={**environment, 'RANK': str(rank), 'LOCAL_RANK': str(rank)})
        for rank in range(2)
    ]
    assert [process.wait(300) for process in processes] == [0, 0]
    torch.testing.assert_close(torch.load(tmp_path / 'weights.pth'), whole, rtol=1e-6, atol=1e-7)


def test_no_false_warning_after_resuming(tmp_path, caplog):
    trained(tmp_path / 'whole', **{'default_hooks.checkpoint.interval': 1})
    runner = toy_runner(tmp_path / 'resumed', resume=True, load_from=str(tmp_path / 'whole/iter_3.pth'))
    runner.logger.addHandler(caplog.handler)
    runner.train()
    runner.logger.removeHandler(caplog.handler)
    assert runner.optim_wrapper._accumulative_counts == 4 and runner.optim_wrapper._inner_count == 16
    assert caplog.records and not [r for r in caplog.records if 'gradient of some iterations is lost' in r.getMessage()]


def test_wrappers_that_cannot_accumulate():
    wrapper = OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0))
    set_accumulation(wrapper, 3)
    assert [float(wrapper.scale_loss(torch.tensor(6.0))), wrapper.should_sync()] == [2, False]  # as of mmengine's own
    with pytest.raises(RuntimeError, match='cannot make OptimWrapperDict accumulate'):
        set_accumulation(OptimWrapperDict(one=wrapper), 3)


def test_logged_values_keep_no_graph(tmp_path):
    """Over four parts an update: numbers are averaged, other values are the last part's, graphs live for their part."""
    runner = toy_runner(tmp_path / 'graphs')
    model, logged, nodes = runner.model, [], []

    def pack(tensor):
        saved = Saved(tensor)
        nodes.append(weakref.ref(saved))
        return saved

    def train_step(data, optim_wrapper):
        gc.collect()
        assert not any(node() is not None for node in nodes)
        loss = model(**data, mode='loss')['loss']
        optim_wrapper.update_params(loss)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
            extra = model.linear.weight.square()
        part = len(nodes)
        return dict(loss=loss, extra=extra.sum(), listed=[extra, 'word'], nested=dict(a=extra[0]), number=float(part))

    model.train_step = train_step
    runner.register_hook(Outputs(logged), 'HIGHEST')
    runner.train()
    assert len(logged) == 4
    for update, outputs in enumerate(logged):
        tensors = [outputs['loss'], outputs['extra'], outputs['listed'][0], outputs['nested']['a']]
        assert not any(value.requires_grad for value in tensors)
        assert outputs['number'] == 4 * update + 2.5 and outputs['listed'][1] == 'word'


@pytest.mark.parametrize('kind', ['batch size', 'batch sampler'])
def test_a_short_last_batch_is_refused(tmp_path, kind):
    data = {
        'batch size': {'train_dataloader.batch_size': 6, 'train_cfg.total_batch': 6},
        'batch sampler': {
            'train_dataloader.batch_size': 1,
            'train_cfg.total_batch': 6,
            'train_dataloader.batch_sampler': dict(type='ToyBatches', batch_size=6, drop_last=False),
        },
    }[kind]
    with pytest.raises(
        ValueError,
        match=r'DefaultSampler gives each process 32 samples a pass, in batches of 6 and a '
        r"last one of 2 .*type='InfiniteSampler'.*drop_last=True",
    ):
        assert toy_runner(tmp_path / 'finite', **data).train_loop
    dropped = (
        {'train_dataloader.drop_last': True}
        if kind == 'batch size'
        else {'train_dataloader.batch_sampler.drop_last': True}
    )
    for i, right in enumerate((dropped, {'train_dataloader.sampler.type': 'InfiniteSampler'})):
        assert toy_runner(tmp_path / f'right{i}', **{**data, **right}).train_loop.accumulation == 1


def test_torch_samplers_and_iterable_data(tmp_path):
    def loop(i, dataset, **kwargs):
        runner = toy_runner(tmp_path / str(i))
        loader = torch.utils.data.DataLoader(dataset, batch_size=8, **kwargs)
        return LOOPS.build(dict(runner.cfg.train_cfg), default_args=dict(runner=runner, dataloader=loader))

    numbers = toy.ToyNumbers()
    with pytest.raises(ValueError, match='RandomSampler gives each process 30 samples a pass'):
        loop(1, torch.utils.data.Subset(numbers, range(30)), shuffle=True)
    assert loop(2, numbers, shuffle=True).accumulation == 1

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from iter(int, 1)

    assert loop(3, Endless()).accumulation == 1


def test_learning_rate_follows_the_total_batch(tmp_path):
    runner = toy_runner(tmp_path / 'lr', **{'train_cfg.total_batch': 32})
    LOOPS.build(dict(runner.cfg.train_cfg), default_args=dict(runner=runner, dataloader=runner._train_dataloader))
    assert runner.optim_wrapper['optimizer']['lr'] == pytest.approx(0.4)
    assert runner.optim_wrapper['accumulative_counts'] == 16


@pytest.mark.parametrize(
    'change,message',
    [
        ({'train_cfg.total_batch': 9}, 'a total batch of 9 is not a multiple of 2 samples x 1 devices'),
        ({'optim_wrapper.accumulative_counts': 4}, 'accumulative_counts is 4, but TotalBatchTrainLoop derives it'),
        ({'auto_scale_lr': dict(enable=True, base_batch_size=8)}, 'auto_scale_lr is on'),
        ({'train_cfg.total_batch': 8.0}, r'train_cfg\.total_batch=8\.0 must be a positive integer'),
        ({'train_cfg.total_batch': True}, r'train_cfg\.total_batch=True must be'),
        ({'train_cfg.total_batch': 0}, r'train_cfg\.total_batch=0 must be'),
        ({'train_cfg.lr_batch': 0}, r'train_cfg\.lr_batch=0 must be'),
        ({'train_cfg.lr_batch': '8'}, r"train_cfg\.lr_batch='8' must be"),
        (
            {'optim_wrapper.optimizer': dict(type='Adam', _delete_=True)},
            r'lr_batch=8 scales optim_wrapper\.optimizer\.lr, which is None: set it to a number, or lr_batch to None',
        ),
    ],
)
def test_what_would_change_the_batch_twice_is_refused(tmp_path, change, message):
    runner = toy_runner(tmp_path / ''.join(filter(str.isalnum, message)), **change)
    with pytest.raises(ValueError, match=message):
        runner.train()


@MODELS.register_module(force=True)
class ToyTwo(toy.ToyLinear):
    """Two more weights, of one shape."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False)

    def forward(self, inputs, data_samples, mode='tensor'):
        return super().forward([self.second(self.first(x)) for x in inputs], data_samples, mode)


def test_resuming_groups_of_equal_sizes_and_rates_with_other_parameters(tmp_path):
    """torch gives momentum out by position, so that these would get each other's."""

    def keys(name):
        return {
            'optim_wrapper.paramwise_cfg': dict(custom_keys={name: dict(lr_mult=1.0, mark=1)}),
            'optim_wrapper.constructor': 'nfnet_mm.NFOptimWrapperConstructor',
            'model.type': 'ToyTwo',
        }

    trained(tmp_path / 'old', **keys('first'))
    with pytest.raises(ValueError, match='first.*, second.* would get the state of others'):
        trained(tmp_path / 'new', resume=True, load_from=str(tmp_path / 'old/iter_2.pth'), **keys('second'))


@pytest.mark.parametrize(
    'change, message',
    [
        (
            {'param_scheduler.0.milestones': [3]},
            r'param_scheduler.0.milestones is \[3\] in the config and \[2\] in the',
        ),
        ({'param_scheduler.0.gamma': 0.5}, r'param_scheduler.0.gamma is 0.5 in the config and 0.1 in the checkpoint'),
        ({'param_scheduler': []}, 'the config has 0 param_scheduler, the checkpoint 1'),
    ],
)
def test_resuming_with_another_schedule_is_refused(tmp_path, change, message):
    trained(tmp_path / 'old')
    with pytest.raises(ValueError, match=message):
        trained(tmp_path / 'new', resume=True, load_from=str(tmp_path / 'old/iter_2.pth'), **change)


def test_resuming_with_other_options_takes_the_config_s(tmp_path, log_lines):
    trained(tmp_path / 'old')
    _, runner = trained(
        tmp_path / 'new',
        resume=True,
        load_from=str(tmp_path / 'old/iter_2.pth'),
        **{'optim_wrapper.optimizer.weight_decay': 0.25, 'optim_wrapper.optimizer.momentum': 0.5},
    )
    (group,) = runner.optim_wrapper.optimizer.param_groups
    assert (group['weight_decay'], group['momentum']) == (0.25, 0.5)


@pytest.mark.parametrize('hooks', [[], [dict(type='nfnet_mm.StrictLoadHook')]])
def test_a_checkpoint_is_held_against_the_settings_once(tmp_path, monkeypatch, hooks):
    """Where the strict hook of the command line does it, the loop leaves it to that."""
    trained(tmp_path / 'old')
    calls, plain = [], resume.check_resumed
    monkeypatch.setattr(resume, 'check_resumed', lambda *args: (calls.append(1), plain(*args)))
    trained(tmp_path / 'new', resume=True, load_from=str(tmp_path / 'old/iter_2.pth'), custom_hooks=hooks)
    assert len(calls) == 1


def test_resuming_a_moving_average_without_its_hook_is_refused(tmp_path):
    trained(tmp_path / 'old', custom_hooks=[dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA')])
    with pytest.raises(ValueError, match='the config has no EMAHook. Add the hook, or begin a new run'):
        trained(tmp_path / 'new', resume=True, load_from=str(tmp_path / 'old/iter_2.pth'))


def test_the_caller_s_config_keeps_its_rate(tmp_path):
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    for i in range(3):
        runner = toy_runner(tmp_path / str(i), optim_wrapper=wrapper, **{'train_cfg.total_batch': 16})
        runner.train()
        assert runner.optim_wrapper.optimizer.param_groups[0]['initial_lr'] == pytest.approx(0.2)
    assert wrapper == dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))


@pytest.mark.parametrize(
    'scheduler',
    [
        dict(type='OneCycleLR', eta_max=0.4, total_steps=4, by_epoch=False),
        dict(type='CosineAnnealingLR', eta_min=0.05, T_max=4, by_epoch=False),
    ],
)
def test_rates_that_would_not_follow_the_total_batch_are_refused(tmp_path, scheduler):
    key = 'eta_max' if 'eta_max' in scheduler else 'eta_min'
    trained(tmp_path / 'same', param_scheduler=[scheduler])
    with pytest.raises(ValueError, match=rf'param_scheduler.0.{key}=.* is a rate of its own'):
        trained(tmp_path / 'other', param_scheduler=[scheduler], **{'train_cfg.total_batch': 16})


def test_flexible_runner_is_refused_in_words(tmp_path):
    from mmengine.runner import FlexibleRunner

    runner = toy_runner(tmp_path / 'plain')
    with pytest.raises(ValueError, match="works under mmengine's Runner, not under FlexibleRunner"):
        LOOPS.build(
            dict(runner.cfg.train_cfg),
            default_args=dict(runner=FlexibleRunner.__new__(FlexibleRunner), dataloader=runner._train_dataloader),
        )


def test_a_batch_sampler_without_a_batch_size_is_refused(tmp_path):
    runner = toy_runner(tmp_path / 'uneven')
    loader = torch.utils.data.DataLoader(toy.ToyNumbers(), batch_sampler=[[0, 1], [2, 3, 4]])
    with pytest.raises(ValueError, match=r'needs batches of one size, .* batch sampler \(list\) has no batch_size'):
        LOOPS.build(dict(runner.cfg.train_cfg), default_args=dict(runner=runner, dataloader=loader))


def test_a_value_that_some_batches_lack_is_the_mean_of_those_that_have_it(tmp_path):
    class Some(toy.ToyLinear):
        def train_step(self, data, optim_wrapper):
            losses = super().train_step(data, optim_wrapper)
            calls.append(1)
            return dict(losses, rare=torch.tensor(float(len(calls)))) if len(calls) % 2 else losses

    calls, seen = [], []

    class Watch(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            seen.append(float(outputs['rare']))

    runner = toy_runner(tmp_path / 'rare')
    runner.model = Some()
    runner.register_hook(Watch())
    runner.train()
    assert seen == [2.0, 6.0, 10.0, 14.0]  # the means of calls 1 and 3, 5 and 7, ...
