"""A run says before its first iteration that its weights are random where they were meant to be others."""

import pytest
import torch
from mmengine import Config

from nfnet_mm.models import NFNet
from nfnet_mm.run import build_runner
from tests.adversarial import probe

WRAPPER = dict(
    type='nfnet_mm.AGCOptimWrapper',
    constructor='nfnet_mm.NFOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.1, weight_decay=1e-4),
)
FROZEN = (
    'training begins, and no checkpoint was loaded. NFNet: frozen_stages=2 freezes the stem and the first 2 stages '
    'with random weights. Set init_cfg='
)


def log_of(folder, **more):
    cfg = Config(probe.config(folder, dict(type='Probe', extras=('frozen',)), WRAPPER, updates=2))
    cfg.merge_from_dict(dict(log_level='INFO', default_scope='mmengine', **more))
    build_runner(cfg).train()
    return next(folder.rglob('*.log')).read_text().splitlines()


def test_frozen_random_weights_are_the_last_thing_before_the_first_iteration(tmp_path):
    lines = log_of(tmp_path / 'run')
    (at,) = [i for i, line in enumerate(lines) if FROZEN in line]
    assert ' - WARNING - ' in lines[at]
    assert 'of what is logged under agc/' in lines[at + 1] and 'Iter(train) [1/2]' in lines[at + 2]


def test_frozen_parameters_are_one_line_and_agc_is_explained_once(tmp_path):
    lines = log_of(tmp_path / 'run')
    every = sum(1 for _ in probe.Probe(extras=('frozen',)).parameters())
    few = NFNet(probe.ARCH, frozen_stages=2, out_indices=(1,))
    frozen = sum(1 for _ in few.parameters())
    assert not any(p.requires_grad for p in few.parameters())
    said = f'{frozen} of {every} parameters are frozen: backbone.stem, backbone.stages.0, backbone.stages.1'
    assert sum(line.endswith(said) for line in lines) == 1
    (explained,) = [i for i, line in enumerate(lines) if 'of what is logged under agc/: clipped_fraction is' in line]
    first = next(i for i, line in enumerate(lines) if 'agc/clipped_fraction: ' in line)
    assert explained < first
    assert not [line for line in lines if 'requires_grad' in line]


def test_a_checkpoint_that_is_loaded_says_nothing(tmp_path):
    torch.manual_seed(0)
    torch.save(dict(state_dict=probe.Probe(extras=('frozen',)).state_dict()), tmp_path / 'x.pth')
    lines = log_of(tmp_path / 'run', load_from=str(tmp_path / 'x.pth'))
    assert not [line for line in lines if 'no checkpoint was loaded' in line]


@pytest.mark.parametrize('frozen,also', [(-1, ''), (1, ', and frozen_stages=1 keeps some of them so')])
def test_a_recipe_without_its_weights_notes_it(frozen, also):
    net = NFNet('nano', frozen_stages=frozen, init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint=None))
    net.init_weights()
    assert net.random_start == (
        f'NFNet starts from RANDOM weights, though its recipe starts from trained ones{also}: set weights in the '
        'config, or --cfg-options weights=FILE'
    )
    assert NFNet('nano').random_start is None
