"""Hooks that count, in a run that is resumed."""

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from nfnet_mm import run
from tests import toy
from tests.engine.test_exact_resume import train

CONFIG = f"""{toy.CONFIG}
train_cfg.update(max_iters=40, val_interval=1)
default_hooks['checkpoint'].update(interval=1, save_best='error', rule='less')
custom_imports['imports'].append('tests.engine.test_hook_states')
custom_hooks = [dict(type='EarlyStoppingHook', monitor='error', rule='less', min_delta=10.0, patience=5),
                dict(type='Counting')]
"""


@HOOKS.register_module(force=True)
class Counting(Hook):
    counts = []

    def __init__(self):
        self.count = 0

    def state_dict(self):
        return dict(count=self.count)

    def load_state_dict(self, state):
        self.count = state['count']

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.count += 1
        self.counts.append(self.count)


def last(folder):
    return max(int(path.stem.rpartition('_')[2]) for path in folder.glob('iter_*.pth'))


@pytest.mark.parametrize('at', [2, 4])
def test_early_stopping_and_a_counter_go_on(tmp_path, at):
    """Of a score that never improves by as much as is asked for: it stops after the sixth, resumed or not."""
    train(CONFIG, tmp_path / 'whole')
    assert last(tmp_path / 'whole') == 6
    state = run.read_checkpoint(tmp_path / f'whole/iter_{at}.pth')['hook_states']
    # the first score is the best one; one saved before its validation has not seen it
    assert state['EarlyStoppingHook']['wait_count'] in (at - 1, at - 2)
    Counting.counts.clear()
    train(CONFIG, tmp_path / 'part', tmp_path / f'whole/iter_{at}.pth')
    assert last(tmp_path / 'part') == 6
    assert Counting.counts == list(range(at + 1, 7))


def test_a_checkpoint_without_the_state_is_told(tmp_path):
    train(CONFIG.split('custom_hooks')[0] + "custom_hooks = []\ntrain_cfg['max_iters'] = 2\n", tmp_path / 'run')
    train(CONFIG.replace('max_iters=40', 'max_iters=3'), tmp_path / 'again', tmp_path / 'run/iter_2.pth')
    log = next((tmp_path / 'again').rglob('*.log')).read_text()
    assert 'EarlyStoppingHook begins anew: the checkpoint holds no state of it' in log
