"""Folding whole models of the four tasks, as the demos have them."""

from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.registry import init_default_scope
from torch import nn

from nfnet_mm.deploy import fold
from nfnet_mm.models.layers import WSConv2d
from nfnet_mm.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'demo' / 'configs'


def tensors(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for one in outputs for tensor in tensors(one)]


@pytest.mark.parametrize('name', sorted(path.stem for path in CONFIGS.glob('*.py')))
def test_folded_model(name):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    for key, p in model.named_parameters():
        if key.endswith('skip_gain'):
            nn.init.constant_(p, 0.5)
    folded = fold(model)
    assert type(folded) is type(model)
    assert not any(isinstance(module, WSConv2d) for module in folded.modules())
    images = torch.randn(2, 3, 96, 64)
    extra = {}
    if 'rcnn' in name:  # whose heads want proposals; those of the model itself
        from mmdet.structures import DetDataSample

        extra = dict(data_samples=[DetDataSample(metainfo=dict(img_shape=(96, 64))) for _ in images])
    with torch.no_grad():
        ours, expected = (tensors(one(images, mode='tensor', **extra)) for one in (folded, model))
    assert len(ours) == len(expected) > 0
    for one, other in zip(ours, expected):
        assert (one - other).norm() <= 1e-5 * other.norm()
