"""``cost``: figures against hand computations and published ones, on toy models and on those of the frameworks."""

import os
import time
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS, TRANSFORMS
from torch import nn

from nfnet_mm import commands
from nfnet_mm.analysis.cost import MacCounter
from nfnet_mm.commands.cost import table
from nfnet_mm.errors import UserError
from nfnet_mm.run import load_config
from nfnet_mm.training_cost import Result, compare
from nfnet_mm.training_cost.batch import made_up_batch
from nfnet_mm.training_cost.measure import _deformable, _Step

pytest.importorskip('cv2')
HELD = 60_000_000
CONFIG = """
custom_imports = dict(imports=['tests.test_training_cost'])
model = dict(type='ToyConv', end_at={end_at})
train_dataloader = dict(batch_size=2, dataset=dict(type='None', pipeline=[dict(type='ToyPicture')]))
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""


@TRANSFORMS.register_module(force=True)
class ToyPicture:
    def __call__(self, seen):
        assert os.path.isfile(seen['img_path'])
        return dict(inputs=torch.zeros(3, seen['height'], seen['width']), data_samples=seen['gt_label'])


@MODELS.register_module(force=True)
class ToyConv(BaseModel):
    """A frozen and a trained conv; holds 60 MB and takes 30 ms at least, and ends its process at a step if told to."""

    def __init__(self, end_at=None, **kwargs):
        super().__init__(**kwargs)
        self.frozen = nn.Conv2d(3, 4, 1).requires_grad_(False)
        self.trained = nn.Conv2d(4, 8, 3, padding=1)
        self.end_at, self.calls = end_at, 0

    def forward(self, inputs, data_samples, mode='tensor'):
        self.calls += 1
        if self.calls == self.end_at:
            os._exit(3)
        time.sleep(0.03)
        held = torch.ones(HELD // 4)
        return dict(loss=self.trained(self.frozen(torch.stack(inputs)[..., :32, :64])).mean() * held[0])


@pytest.mark.slow
def test_two_configs_in_turns(tmp_path):
    """Counted by hand; what one process holds is not in the other's peak, and one that dies leaves the other's."""
    for name, end_at in (('toy', None), ('dies', 3)):
        (tmp_path / f'{name}.py').write_text(CONFIG.format(end_at=end_at))
    toy, dies = compare([str(tmp_path / 'toy.py'), str(tmp_path / 'dies.py')], pairs=3)
    assert (toy.parameters, toy.trained) == (4 * 3 + 4 + 8 * 4 * 9 + 8, 8 * 4 * 9 + 8)
    assert toy.macs == 32 * 64 * (4 * 3 + 8 * 4 * 9) and (toy.batch, toy.size) == (2, (480, 640))
    assert len(toy.seconds) == 3 and 0.03 < toy.step < 5
    assert HELD < toy.memory < 3 * HELD
    assert (dies.memory, dies.parameters) == (None, toy.parameters)
    assert dies.failure == 'its process ended with status 3; its error stands above'


def test_the_table():
    one = Result('a', 2_000_000, 1_000_000, 4, (224, 224), 3e9, ('RoIAlign',), [1.0, 9.0, 2.0], 4_000_000_000)
    two = Result('b', 1_000_000, 1_000_000, 4, (224, 192), 1e9, failure='out of memory')
    lines = list(table(['first', 'second'], [one, two]))
    rows = {line[:38].strip(): line[38:].split() for line in lines[:9]}
    assert rows['pictures'] == ['224', 'x', '224', '224', 'x', '192']
    assert rows['parameters (M)'] == ['2.00', '1.00', '2.00']
    assert rows['multiply-adds, forward, an image (G)'] == ['3.00', '1.00', '3.00']
    assert rows['training step (s)'] == ['2.000', '-'] and rows['images a second'] == ['2.00', '-']
    assert rows['peak memory (GB)'] == ['4.00', '-']
    assert lines[-2:] == ['first: not among the multiply-adds: RoIAlign.', 'second: not measured: out of memory.']


@pytest.mark.slow
def test_published_figures_of_resnet50():
    """torchvision's page: 25,557,032 parameters, 4.09 G multiply-adds at 224 px."""
    pytest.importorskip('mmpretrain')
    step = _Step('mmpretrain::resnet/resnet50_8xb32_in1k.py', {}, 1, None)
    assert (step.result.parameters, step.result.trained) == (25_557_032, 25_557_032)
    assert step.result.macs == pytest.approx(4.09e9, rel=1e-3) and step.result.size == (224, 224)
    before = step.model.head.fc.weight.clone()
    assert step.seconds() > 0 and not torch.equal(step.model.head.fc.weight, before)


def test_deformable_convs_count_as_convs():
    pytest.importorskip('mmcv.ops')
    from mmcv.ops import ModulatedDeformConv2dPack

    model = nn.Sequential(ModulatedDeformConv2dPack(8, 16, 3, padding=1))
    with MacCounter() as counter, torch.no_grad(), _deformable(model, counter):
        model(torch.zeros(1, 8, 10, 12))
    assert counter.macs == 10 * 12 * 9 * 8 * (16 + 27)  # and the conv of 27 channels that makes offsets and masks


@pytest.mark.parametrize(
    'name, framework, batch, shape',
    [
        ('mask_rcnn_nfnet_f0_fpn', 'mmdet', 2, None),  # crops of any size up to 1024, padded in the model
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'mmdet', 2, (3, 800, 1067)),
        ('fcn_nf_resnet50_voc', 'mmseg', 4, None),
        ('depth_nf_resnet50_nyu', 'mmseg', 32, (3, 228, 304)),
        ('nfnet_mm::imagenet/nf_resnet50.py', 'mmpretrain', None, (3, 224, 224)),
    ],
)
def test_a_batch_is_what_the_recipe_says(name, framework, batch, shape):
    pytest.importorskip(framework)
    from mmengine.registry import init_default_scope

    cfg = load_config(name)
    init_default_scope(cfg.default_scope)
    made = made_up_batch(cfg)
    assert len(made['inputs']) == len(made['data_samples']) == (batch or cfg.train_dataloader.batch_size)
    if shape:
        assert {tuple(one.shape) for one in made['inputs']} == {shape}
    small = made_up_batch(cfg, 1, (64, 96))
    assert [tuple(one.shape) for one in small['inputs']] == [(3, 64, 96)]


def test_mixing_takes_two_pictures_for_one(tmp_path):
    """A batch size is what the model sees."""
    pytest.importorskip('mmpretrain')
    from mmengine.registry import init_default_scope

    cfg = load_config('nfnet_mm::imagenet/nfnet_f0.py')
    init_default_scope('mmpretrain')
    assert len(made_up_batch(cfg)['inputs']) == cfg.train_dataloader.batch_size // 2
    assert len(made_up_batch(cfg, 3)['inputs']) == 3


@pytest.mark.parametrize(
    'change, message',
    [
        ('train_dataloader.dataset.pipeline = []', 'the config has no train pipeline'),
        ("train_dataloader.dataset.pipeline = [dict(type='ToyPictrue')]", 'the train pipeline does not run on made-up'),
        ('optim_wrapper = None', 'the config has no model and optim_wrapper'),
    ],
)
def test_what_cannot_be_measured_is_one_line(tmp_path, change, message):
    file = tmp_path / 'toy.py'
    file.write_text(
        CONFIG.format(end_at=None)
        + change.replace('train_dataloader.dataset.pipeline', 'train_dataloader["dataset"]["pipeline"]')
    )
    with pytest.raises(UserError, match=message):
        _Step(str(file), {}, None, None)


@pytest.mark.parametrize(
    'words, message',
    [
        (['toy.py', '--pairs', '0'], '--pairs 0 must be a positive integer'),
        (['toy.py', '--size', '64', '-1'], '--size -1 must be a positive integer'),
        (['toy.py', '--against', 'mask_rcnn_nfnet'], "did you mean 'nfnet_mm::mask_rcnn_nfnet_f"),
    ],
)
def test_options_that_cannot_be_meant(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    Path('toy.py').write_text(CONFIG.format(end_at=None))
    with pytest.raises(SystemExit) as stop:
        commands.main('cost', words)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.startswith('error: ') and said.count('\n') == 1 and message in said


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, framework',
    [
        ('mask_rcnn_nfnet_f0_fpn', 'mmdet'),
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'mmdet'),
        ('mmdet::dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py', 'mmdet'),
        ('fcn_nf_resnet50_voc', 'mmseg'),
        ('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'mmseg'),
        ('depth_nf_resnet50_nyu', 'mmseg'),
        ('nfnet_mm::imagenet/nfnet_f0.py', 'mmpretrain'),
    ],
)
def test_a_step_of_every_kind(name, framework):
    pytest.importorskip(framework)
    step = _Step(name, {}, 2, (128, 128))
    before = {name: p.detach().clone() for name, p in step.model.named_parameters() if p.requires_grad}
    assert step.seconds() > 0 and step.result.batch == 2 and step.memory() > 4 * step.result.parameters
    moved = {name for name, p in step.model.named_parameters() if name in before and not torch.equal(p, before[name])}
    # every part trains, though the branches of a residual network may wait for their gains, which begin at zero
    assert {name.partition('.')[0] for name in moved} == {name.partition('.')[0] for name in before}
