"""Resuming: what a run may change, against uninterrupted runs; the loops are mmengine's own."""

import pytest
import torch
from mmengine import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, OPTIMIZERS
from mmengine.runner import Runner

from nfnet_mm.run import read_checkpoint
from tests import toy

# the toy's run by epochs of four iterations
EPOCHS = {
    'default_hooks.checkpoint.by_epoch': True,
    'default_hooks.checkpoint.interval': 1,
    'param_scheduler': [],
    'train_dataloader.batch_size': 8,
    'custom_hooks': [dict(type='nfnet_mm.StrictLoadHook')],
    'log_processor.by_epoch': True,
}


@OPTIMIZERS.register_module(force=True)
class ToyAdaptive(torch.optim.SGD):
    """Keeps what it finds out in its groups, as D-Adaptation and Prodigy do."""

    def __init__(self, params, **kwargs):
        super().__init__(params, **kwargs)
        for group in self.param_groups:
            group['d'] = 0.5

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group['params']:
                p.data -= group['lr'] * group['d'] * p.grad
            group['d'] *= 1.25


@HOOKS.register_module(force=True)
class HalveRate(Hook):
    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            for group in runner.optim_wrapper.param_groups:
                group['lr'] *= 0.5


def runner(folder, resume=None, **changes):
    cfg = Config.fromstring(toy.CONFIG, '.py')
    cfg.train_cfg = dict(by_epoch=True, max_epochs=4)
    cfg.merge_from_dict(EPOCHS)
    cfg.work_dir, cfg.experiment_name = str(folder), str(folder).replace('/', '_')
    cfg.merge_from_dict(changes)
    if resume:
        cfg.resume, cfg.load_from = True, str(resume)
    return Runner.from_cfg(cfg)


def weights(run):
    run.train()
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


def schedule(kind, **options):
    return {'param_scheduler': [dict(type=kind, **options)]}


@pytest.mark.parametrize(
    'changes',
    [
        {'optim_wrapper.optimizer': dict(type='ToyAdaptive', lr=0.1)},
        {
            'optim_wrapper.optimizer.weight_decay': 0.1,
            **schedule('CosineAnnealingParamScheduler', param_name='weight_decay', T_max=4, eta_min=0.01),
        },
        schedule('CosineAnnealingMomentum', T_max=4, eta_min=0.5),
        schedule('StepLR', step_size=2, last_step=-1),
        schedule('ReduceOnPlateauLR', monitor='error', rule='less', patience=0),
        schedule('LinearLR', start_factor=0.1, end=2, convert_to_iter_based=True),
        schedule('OneCycleLR', eta_max=0.4, total_steps=4),
        {'custom_hooks': [dict(type='nfnet_mm.StrictLoadHook'), dict(type='HalveRate')]},
        {'optim_wrapper.constructor': 'nfnet_mm.NFOptimWrapperConstructor'},
    ],
    ids=lambda changes: str(list(changes.values())[-1])[:50],
)
@pytest.mark.parametrize('told', [True, False])
def test_an_unchanged_config_resumes_as_if_uninterrupted(tmp_path, changes, told):
    whole = weights(runner(tmp_path / 'whole', **changes))
    path = tmp_path / 'whole/epoch_2.pth'
    if not told:  # a checkpoint that was not written under our hooks
        checkpoint = read_checkpoint(path)
        for key in ('param_names', 'base_lrs', 'group_options', 'param_scheduler'):
            del checkpoint['meta'][key]
        torch.save(checkpoint, path)
        if 'HalveRate' in str(changes):
            pytest.skip('without a record the rate of now is taken for the base rate')
    torch.testing.assert_close(weights(runner(tmp_path / 'resumed', path, **changes)), whole, rtol=0, atol=0)


def test_epochs_of_another_length_are_warned_of(tmp_path, log_lines):
    changes = schedule('LinearLR', start_factor=0.1, end=3, convert_to_iter_based=True)
    weights(runner(tmp_path / 'whole', **changes))
    weights(
        runner(tmp_path / 'resumed', tmp_path / 'whole/epoch_2.pth', **changes, **{'train_dataloader.batch_size': 4})
    )
    logs = ''.join(path.read_text() for path in (tmp_path / 'resumed').rglob('*.log'))
    assert 'param_scheduler.0 (LinearLR) ends at 12 as in the checkpoint, not at 24' in logs + log_lines()


def test_options_that_the_config_changes_are_taken(tmp_path):
    weights(runner(tmp_path / 'whole'))
    resumed = runner(
        tmp_path / 'resumed', tmp_path / 'whole/epoch_2.pth', **{'optim_wrapper.optimizer.weight_decay': 0.25}
    )
    resumed.train()
    (group,) = resumed.optim_wrapper.optimizer.param_groups
    assert (group['weight_decay'], group['momentum']) == (0.25, 0.9)


def test_a_scheduled_option_that_the_config_changes_is_refused(tmp_path):
    changes = schedule('CosineAnnealingParamScheduler', param_name='weight_decay', T_max=4, eta_min=0.01)
    weights(runner(tmp_path / 'whole', **changes, **{'optim_wrapper.optimizer.weight_decay': 0.1}))
    with pytest.raises(ValueError, match='weight_decay, which a scheduler changes, begins at 0.2 .* at 0.1'):
        weights(
            runner(
                tmp_path / 'resumed',
                tmp_path / 'whole/epoch_2.pth',
                **changes,
                **{'optim_wrapper.optimizer.weight_decay': 0.2},
            )
        )


def test_a_checkpoint_without_the_optimizer_is_no_run_to_resume(tmp_path):
    changes = {**schedule('StepLR', step_size=1), 'default_hooks.checkpoint.save_optimizer': False}
    weights(runner(tmp_path / 'whole', **changes))
    with pytest.raises(ValueError, match='saved without the state of its optimizer'):
        weights(runner(tmp_path / 'resumed', tmp_path / 'whole/epoch_2.pth', **changes))
