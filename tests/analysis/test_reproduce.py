"""docs/reproduce.md: every command loads and means what its row says, and every table of the papers is there."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
from mmengine import DictAction

from nfnet_mm import run
from nfnet_mm.analysis.reproduce import PAPERS, reproduce_files
from nfnet_mm.engine.total_batch import plan_accumulation
from nfnet_mm.recipes import IMAGENET, TRANSFERS

ROOT = Path(__file__).parents[2]
RUNS = [one for items in PAPERS.values() for item in items for one in item.runs]


def parsed(command):
    """The config of a command, as tools/train.py would load it."""
    words = shlex.split(command)
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args(words[2:])
    assert words[:2] == ['python', 'tools/train.py']
    return run.load_config(str(ROOT / args.config), args.cfg_options)


def test_the_page_is_up_to_date():
    for page, text in reproduce_files().items():
        assert (ROOT / page).read_text() == text, 'run python tools/write_configs.py'


def test_every_experiment_that_a_paper_reports_is_in_a_table():
    used = {one.recipe for one in RUNS}
    reported = {name for name, row in {**IMAGENET, **TRANSFERS}.items() if row.source}
    assert reported <= used


def test_what_trainings_cost():
    """ResNet-50 has 4.1 GMAC at 224 px; the papers' table has 12.38 for F0 at 256 px; SAM takes a fifth more."""
    operations = {one.recipe: one.exaflop for one in RUNS if not one.options}
    images = 1_281_167
    assert operations['nf_resnet50'] == pytest.approx(6 * 4.1e9 * 90 * images / 1e18, rel=0.01)
    assert operations['nfnet_f0'] == pytest.approx(6 * 12.38e9 * (192 / 256) ** 2 * 360 * images / 1e18, rel=0.01)
    assert operations['nfnet_f5_sam'] == pytest.approx(1.2 * operations['nfnet_f5'], rel=1e-9)
    assert operations['mask_rcnn_nfnet_f0_fpn'] is None


@pytest.mark.parametrize('one', RUNS, ids=lambda one: re.sub(r'\W+', '-', one.what))
def test_a_command_is_what_its_row_says(one):
    """On the eight GPUs of the arithmetic the total batch comes out even; what the words say stands in the config."""
    if one.recipe in TRANSFERS:
        pytest.importorskip('mmdet' if 'mask_rcnn' in one.recipe else 'mmseg')
    cfg = parsed(one.command)
    loop = cfg.train_cfg
    if one.recipe in IMAGENET:
        row = IMAGENET[one.recipe]
        plan_accumulation(loop.total_batch, cfg.train_dataloader.batch_size // (1 + row.mixing), row.devices)
        assert (loop.get('max_epochs'), loop.get('max_iters')) == (
            (None, row.steps) if row.steps else (row.epochs, None)
        )
    if said := re.search(r'batch (\d+)', one.what):
        assert loop.total_batch == int(said[1])
    if said := re.search(r'AGC (0\.\d+)', one.what):
        assert cfg.optim_wrapper.agc.clipping == float(said[1])
    if said := re.search(r'(\d+) layers', one.what):
        assert int(said[1]) == cfg.model.backbone.depth
    if said := re.search(r'(\d+) px', one.what):
        assert cfg.train_dataloader.dataset.pipeline[1].scale == int(said[1])
    if 'weights' in one.options:
        assert cfg.model.backbone.init_cfg.checkpoint == 'PRETRAINED'


def test_the_learning_rate_of_the_sweeps_is_the_papers():
    """0.1 for every 256 images (NFNets, section 4.1): the configured rate belongs to lr_batch."""
    sweeps = [one for one in RUNS if 'batch' in one.what and 'layers' in one.what]
    assert len(sweeps) == 70
    for one in sweeps:
        cfg = parsed(one.command)
        assert cfg.optim_wrapper.optimizer.lr / cfg.train_cfg.lr_batch == pytest.approx(0.1 / 256)


def test_figures_are_those_of_the_papers():
    """Some of every table, typed from the papers."""
    paper = {(place, one.what): one.paper for items in PAPERS.values() for place, one in _placed(items)}
    for key, figure in {
        ('Table 1', 'NF, 101 layers, unregularised'): '77.1',
        ('Table 1', 'NF, 288 layers, dropout and stochastic depth'): '79.5',
        ('Table 1', 'BatchNorm, 288 layers, unregularised'): '78.8',
        ('Table 1', 'FixUp, 288 layers, dropout and stochastic depth'): '78.4',
        ('Table 1', 'SkipInit, 288 layers, unregularised'): '76.3',
        ('Table 2', 'BN-ResNet-50, batch 4'): '55.7',
        ('Table 2', 'F0: Baseline'): '80.4',
        ('Table 2', 'F2: + RandAugment'): '84.8',
        ('Table 2', 'F3: default width and augmentation'): '85.5',
        ('Table 3', 'B4, crops and flips'): '81.7',
        ('Table 3', 'NFNet-F6 with SAM'): '86.5 / 97.9',
        ('Table 4', 'BatchNorm, 152 layers, 320 px'): '83.1',
        ('Table 6', 'F1: - NF, + BatchNorm'): '84.4',
        ('Table 6', 'BN-ResNet-50'): 'mIoU 75.4',
        ('Table 7', 'NF-ResNet-200'): 'delta1/2/3 84.0/96.7/99.2, rms 0.552, rel 0.130',
        ('Table 5', 'NFNet-F1'): 'box AP 48.1, mask AP 41.7',
        ('Appendix A.5, Table 5', 'NFNet-F4+, fine-tuning'): '89.2',
    }.items():
        assert paper[key] == figure, key


def _placed(items):
    return [(item.place, one) for item in items for one in item.runs]
