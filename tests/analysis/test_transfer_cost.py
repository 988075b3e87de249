"""What detectors, segmentors and depth estimators cost, against published figures and in the page of the docs."""

from pathlib import Path

import pytest
from mmengine import Config

from nfnet_mm.analysis.transfer_cost import SIZES, cost_files, transfer_cost
from nfnet_mm.named_configs import find_config
from nfnet_mm.recipes import COCO, NYU, TRANSFERS, VOC

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / 'docs/training_cost.md').read_text()


def test_published_figures():
    """Mask R-CNN with ResNet-50: 44 M and 260 G at 800 x 1280 (Swin Transformer, Table 2)."""
    cfg = Config.fromfile(find_config('mask-rcnn_r50_fpn_1x_coco').path)
    spent = transfer_cost(cfg, (800, 1280), regions=1000, objects=100)
    assert (round(spent.parameters / 1e6), round(spent.macs / 1e9, -1)) == (44, 260)


@pytest.mark.parametrize('name', ['mask_rcnn_nfnet_f0_fpn', 'fcn_nf_resnet50_voc', 'depth_nf_resnet50_nyu'])
def test_a_row_of_the_page(name):
    row = next(row for row in TRANSFERS.values() if row.name == name)
    cfg = Config.fromfile(ROOT / row.config)
    height, width = SIZES[row.task.title]
    said = dict(
        mask=lambda: tuple(cfg.model.data_preprocessor.batch_augments[0].size),
        fcn=lambda: tuple(cfg.model.data_preprocessor.size),
        depth=lambda: tuple(reversed(cfg.size)),
    )
    assert said[name.split('_')[0]]() == (height, width)
    spent = transfer_cost(cfg, (height, width))
    assert f'(../{row.config}) | {spent.parameters / 1e6:.2f} | {spent.macs / 1e9:.1f} |' in PAGE, (
        'run python tools/write_configs.py'
    )


def test_the_heads_get_what_the_sampler_chooses():
    sampler = Config.fromfile(ROOT / 'configs/mask_rcnn_nfnet_f0_fpn.py').model.train_cfg.rcnn.sampler
    assert (sampler.num, sampler.num * sampler.pos_fraction) == (512, 128)


def test_every_config_has_a_row():
    assert {row.task.title for row in TRANSFERS.values()} == {COCO.title, VOC.title, NYU.title}
    assert [row.name for row in TRANSFERS.values() if f'[{row.name}](' not in PAGE] == []


@pytest.mark.slow
def test_the_page_is_up_to_date():
    assert list(cost_files(ROOT).values()) == [PAGE], 'run python tools/write_configs.py'
