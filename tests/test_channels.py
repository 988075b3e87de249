"""A neck or head that reads other channels than the backbone gives: one line, not a failing convolution."""

from pathlib import Path

import pytest

from nfnet_mm.errors import UserError
from nfnet_mm.run import build_runner, load_config

CONFIGS = Path(__file__).parents[1] / 'configs'
RIGHT = {  # of nano: docs/own_data_*.md, and `python -m nfnet_mm.models.backbones NFNet nano`
    'finetune_nfnet_f0': {'model.head.in_channels': 256},
    'finetune_mask_rcnn_nfnet_f0': {'model.neck.in_channels': [32, 64, 96, 128]},
    'finetune_fcn_nfnet_f0': {'model.decode_head.in_channels': 128},
}


def built(tmp_path, name, options):
    options = {'model.backbone.arch': 'nano', **options}
    return build_runner(load_config(str(CONFIGS / f'{name}.py'), options, str(tmp_path)))


@pytest.mark.parametrize(
    ('name', 'package', 'message'),
    [
        (
            'finetune_nfnet_f0',
            'mmpretrain',
            'model.head.in_channels=3072, and the backbone, NFNet nano, gives 256 channels: '
            'set model.head.in_channels=256',
        ),
        (
            'finetune_mask_rcnn_nfnet_f0',
            'mmdet',
            'model.neck.in_channels=[256, 512, 1536, 1536], and the backbone, NFNet nano, gives [32, 64, 96, 128] '
            'channels: set model.neck.in_channels=[32, 64, 96, 128]',
        ),
        (
            'finetune_fcn_nfnet_f0',
            'mmseg',
            'model.decode_head.in_channels=1536, and the backbone, NFNet nano, gives 128 channels: '
            'set model.decode_head.in_channels=128',
        ),
    ],
)
def test_another_network_in_a_recipe_without_its_channels(tmp_path, name, package, message):
    pytest.importorskip(package)
    with pytest.raises(UserError) as error:
        built(tmp_path, name, {})
    assert str(error.value) == message
    assert built(tmp_path, name, RIGHT[name]).model.backbone.arch.widths == (32, 64, 96, 128)


def test_what_reads_another_output_is_compared_with_that_one(tmp_path):
    pytest.importorskip('mmseg')
    levels = {'model.backbone.out_indices': (0, 2, 3), 'model.decode_head.in_index': 1}
    assert built(tmp_path, 'finetune_fcn_nfnet_f0', {**levels, 'model.decode_head.in_channels': 96})
    with pytest.raises(UserError, match='gives 96 channels: set model.decode_head.in_channels=96'):
        built(tmp_path, 'finetune_fcn_nfnet_f0', {**levels, 'model.decode_head.in_channels': 128})
