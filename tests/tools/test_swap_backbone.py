"""Shipped configs with a swapped backbone: the written file is the config, and trains."""

import copy
import importlib.util
import json
import math
import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from nfnet_mm.converters import from_deepmind, to_timm
from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones.arch import find_network
from nfnet_mm.named_configs import find_config
from nfnet_mm.swap.config_files import default_name, read_config, write_config
from nfnet_mm.swap.swap import is_resnet, swap_config
from tests.converters.networks import deepmind_tree

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
pytest.importorskip('mmcv.ops')

ROOT = Path(__file__).parents[2]
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
MASK_RCNN_AMP = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_amp-1x_coco.py'
FCN = 'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'
CLASSIFIER = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'


@pytest.fixture(scope='module')
def sweep():
    """tools/sweep_swaps.py, whose batches and steps these tests share."""
    spec = importlib.util.spec_from_file_location('sweep_swaps', ROOT / 'tools' / 'sweep_swaps.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for framework in ('mmdet', 'mmseg', 'mmpretrain'):
        module.register(framework)
    return module


@pytest.mark.parametrize(
    'config, backbone, strides',
    [
        ('mmdet::mask_rcnn/mask-rcnn_r50-caffe_fpn_1x_coco.py', 'nfnet_f0', (4, 8, 16, 32)),
        (RETINANET, 'nf_regnet_b0', (4, 8, 16, 32)),
        ('mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py', 'nf_resnet50', (32,)),
        ('mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py', 'nf_resnet50', (16,)),
        ('mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py', 'nfnet_f0', (16,)),
        (FCN, 'nf_resnet50', (4, 8, 8, 8)),
        ('mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py', 'nf_regnet_b0', (4, 8, 16, 32)),
        ('mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'eca_nfnet_l0', (4, 8, 8, 8)),
        (CLASSIFIER, 'nf_resnet50', (32,)),
    ],
    ids=lambda value: Path(value).stem if isinstance(value, str) else '',
)
def test_shipped(sweep, tmp_path, config, backbone, strides):
    source = find_config(config)
    old = read_config(source.path)
    new, _ = swap_config(old, backbone)
    target, text = write_config(tmp_path / 'new.py', source, old, new, 'title')
    cfg = Config.fromfile(target)
    assert read_config(target) == new
    if rcnn := (cfg.model.get('train_cfg') or {}).get('rcnn'):
        rcnn.sampler.num = 16  # C4 runs a stage of the network on each
    assert len(text.splitlines()) < 30
    init_default_scope(cfg.default_scope)
    model = sweep.build(cfg)
    assert model.backbone.out_strides == strides
    assert sweep.step(new, model) > 0
    assert sweep.gradient_norm(model.backbone) > 0
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    wrapper.step()  # clips and updates
    assert type(wrapper).__name__ == 'AGCOptimWrapper'


def test_c4_takes_all_four_stages_of_one_file(sweep, tmp_path):
    """Backbone and shared head together are the network of the file."""
    whole = MODELS.build(dict(type='nfnet_mm.NFNet', arch='nano'))
    for p in whole.parameters():
        torch.nn.init.normal_(p)
    torch.save(whole.state_dict(), tmp_path / 'nano.pth')
    old = read_config(find_config('mmdet::mask_rcnn/mask-rcnn_r50-caffe-c4_1x_coco.py').path)
    new, _ = swap_config(old, 'nfnet_nano', weights=str(tmp_path / 'nano.pth'))
    model = sweep.build(new)
    model.init_weights()
    state = model.state_dict()
    parts = {
        name: state.get(f'roi_head.shared_head.{name}', state.get(f'backbone.{name}')) for name in whole.state_dict()
    }
    assert all(torch.equal(parts[name], value) for name, value in whole.state_dict().items())
    x = torch.randn(2, 3, 64, 64)
    model.eval()
    with torch.no_grad():
        regions = model.roi_head.shared_head(*model.backbone(x))
        expected = torch.nn.functional.gelu(whole(x)[3], approximate='tanh') * 1.7015043497085571
    assert torch.allclose(regions, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('framework', ['mmdet', 'mmseg', 'mmpretrain'])
def test_every_shipped_custom_key_keeps_its_meaning_or_is_named(sweep, framework):
    """The parameters of the real backbones that each key decides, before and after."""
    root, seen = find_config(f'{framework}::_base_/default_runtime.py').path.parents[1], set()
    for path in sorted(root.rglob('*.py')):
        text = path.read_text(encoding='utf-8')
        if 'custom_keys' not in text or '_base_' in path.relative_to(root).parts:
            continue
        try:
            old = read_config(path)
            backbone = old['model']['backbone']
            shipped = old['optim_wrapper']['paramwise_cfg']['custom_keys']
        except (UserError, KeyError, TypeError):
            continue
        if not is_resnet(backbone) or (str(backbone), str(shipped)) in seen:
            continue
        seen.add((str(backbone), str(shipped)))
        init_default_scope(framework)
        was = [f'backbone.{name}' for name, _ in MODELS.build(dict(backbone, init_cfg=None)).named_parameters()]
        for name in ('nfnet_f0', 'nf_resnet50'):
            new, notes = swap_config(dict(dict(default_scope=framework), **old), name)
            keys = new['optim_wrapper']['paramwise_cfg']['custom_keys']
            now = [f'backbone.{name}' for name, _ in MODELS.build(new['model']['backbone']).named_parameters()]
            for key, settings in shipped.items():
                told = [note for note in notes if repr(key) in note]
                assert keys.get(key) == settings or told, (path, key)
                # a key of the neck or the heads stays theirs alone
                assert any(key in n for n in was) == any(key in n for n in now) or told, (path, key)
    assert len(seen) >= dict(mmdet=8, mmseg=2, mmpretrain=4)[framework]


SOFT_TEACHER = 'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py'
POINT_REND = 'mmseg::point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py'
DANET = 'mmseg::danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024.py'


@pytest.mark.parametrize(
    'config, weights, spared',
    [
        (RETINANET, 'bbox_head.retina_*', 'bbox_head.retina_cls'),
        ('mmdet::rpn/rpn_r50_fpn_1x_coco.py', 'bbox_head.rpn_[cr][le]*', 'bbox_head.rpn_cls'),
        (SOFT_TEACHER, '*.roi_head.bbox_head.fc_*', 'student.roi_head.bbox_head.fc_cls'),
        (
            'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
            'roi_head.mask_head*.conv_logits.*',
            'roi_head.mask_head.2.conv_logits',
        ),
        ('mmdet::detr/detr_r50_8xb2-150e_coco.py', 'bbox_head.fc_*', 'bbox_head.fc_reg'),
        ('mmdet::solo/solo_r50_fpn_1x_coco.py', 'mask_head.conv_mask_list.*', 'mask_head.conv_mask_list.4'),
        (DANET, '*_seg.weight', 'decode_head.pam_conv_seg'),
        (POINT_REND, '*_seg.weight', 'decode_head.1.fc_seg'),
    ],
    ids=lambda value: Path(value).stem,
)
def test_last_layers_are_in_the_model_and_not_clipped(sweep, config, weights, spared):
    """The names that are written are those of the framework's own modules."""
    new, _ = swap_config(read_config(find_config(config).path), 'nfnet_nano')
    with torch.device('meta'):
        model = sweep.build(new)
    wrapper = build_optim_wrapper(model, new['optim_wrapper'])  # refuses a name that is none
    named = dict(model.named_parameters(remove_duplicate=False))
    last = {name for name in named if fnmatchcase(name, weights) and name.endswith('.weight')}
    assert f'{spared}.weight' in last and last <= {name for name, p in named.items() if p in wrapper.excluded}
    assert not any(p in wrapper.excluded for name, p in named.items() if 'backbone' in name or 'convs.' in name)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Weights: timm's NF-ResNet-50, ours, DeepMind's under timm's names, a nano backbone's and a nano detector's."""
    folder = tmp_path_factory.mktemp('weights')

    def state(network, out_indices=(4,), **options):
        net = MODELS.build(dict(find_network(network).cfg, out_indices=out_indices, **options))
        return {f'backbone.{key}': value for key, value in net.state_dict().items()}

    def whole(network):
        weights, channels = state(network), find_network(network).channels(4)
        return weights | {'head.fc.weight': torch.zeros(2, channels), 'head.fc.bias': torch.zeros(2)}

    torch.save(to_timm(whole('timm/nf_resnet50')), folder / 'timm_nf_resnet50.pth')
    torch.save(whole('nf_resnet50'), folder / 'nf_resnet50.pth')
    torch.save(to_timm(whole('nfnet_nano')), folder / 'dm_nano.pth')
    nano = state('nfnet_nano', (0, 1, 2, 3))
    torch.save({key.removeprefix('backbone.'): value for key, value in nano.items()}, folder / 'backbone.pth')
    torch.save(dict(state_dict=nano | {'neck.weight': torch.zeros(1)}), folder / 'detector.pth')
    torch.save(state('nfnet_nano', (2,)), folder / 'c4.pth')
    torch.save(state('nfnet_nano', (0, 1, 2, 3), in_channels=1), folder / 'grey.pth')
    torch.save(from_deepmind(deepmind_tree()), folder / 'nameless.pth')
    torch.save(state('bn_nfnet_nano'), folder / 'baseline.pth')
    (folder / 'text.pth').write_text('not found')
    return folder


def backbone_of(name):
    return Config.fromfile(name).model.backbone


@pytest.mark.parametrize(
    'backbone, file, network, arguments',
    [
        ('nf_resnet50', 'timm_nf_resnet50.pth', 'timm_nf_resnet50', dict(arch='timm/nf_resnet50')),
        ('timm/nf_resnet50', 'timm_nf_resnet50.pth', 'timm_nf_resnet50', dict(arch='timm/nf_resnet50')),
        ('timm/nf_resnet50', 'nf_resnet50.pth', 'nf_resnet50', dict(depth=50)),
        ('nf_resnet50', 'nf_resnet50.pth', 'nf_resnet50', dict(depth=50)),
    ],
)
def test_the_shape_comes_from_the_weights(run_tool, tmp_path, monkeypatch, files, backbone, file, network, arguments):
    monkeypatch.chdir(tmp_path)
    relative = os.path.relpath(files / file)
    assert run_tool('swap_backbone', RETINANET, '--backbone', backbone, '--weights', relative) == (0, '')
    name = f'retinanet_{network}_fpn_1x_coco.py'
    written, text = backbone_of(name), Path(name).read_text()
    assert {key: written[key] for key in arguments} == arguments and written.frozen_stages == 1
    assert written.init_cfg.checkpoint == str(files / file)  # from any folder
    chosen = network.replace('timm_', 'timm/')
    told = f'{relative!r} holds the weights of {chosen}, which is taken in place of its namesake {backbone}'
    assert (told in text) == (chosen != backbone)
    MODELS.build(written).init_weights()  # takes them


@pytest.mark.parametrize('file', ['backbone.pth', 'detector.pth', 'dm_nano.pth'])
def test_weights_may_lack_what_the_config_does_not_need(run_tool, tmp_path, monkeypatch, files, file):
    monkeypatch.chdir(tmp_path)
    assert run_tool('swap_backbone', RETINANET, '--backbone', 'nfnet_nano', '--weights', files / file) == (0, '')
    MODELS.build(backbone_of('retinanet_nfnet_nano_fpn_1x_coco.py')).init_weights()


@pytest.mark.parametrize('channels, file, adapted', [(1, 'dm_nano.pth', 'mean'), (1, 'grey.pth', None)])
def test_grayscale(run_tool, tmp_path, monkeypatch, files, channels, file, adapted):
    monkeypatch.chdir(tmp_path)
    grey = dict(mean=[33.5], std=[78.9], bgr_to_rgb=False)
    model = dict(backbone=dict(in_channels=channels), data_preprocessor=grey)
    Path('grey_r50.py').write_text(f'_base_ = {RETINANET!r}\nmodel = {model!r}\n')
    assert run_tool('swap_backbone', 'grey_r50.py', '--backbone', 'nfnet_nano', '--weights', files / file) == (0, '')
    cfg = Config.fromfile('grey_nfnet_nano.py')
    assert {key: cfg.model.data_preprocessor[key] for key in grey} == grey
    assert cfg.model.backbone.init_cfg.get('in_channels') == adapted
    net = MODELS.build(cfg.model.backbone)
    net.init_weights()
    kernel = torch.load(files / file)['stem.conv1.weight' if adapted else 'backbone.stem.conv0.weight']
    torch.testing.assert_close(net.stem.conv0.weight, kernel.mean(1, keepdim=True))


@pytest.mark.parametrize(
    'config, backbone, file, message',
    [
        (
            RETINANET,
            'nfnet_f1',
            'timm_nf_resnet50.pth',
            'are of timm/nf_resnet50, not of nfnet_f1: --backbone timm/nf_resnet50 takes them',
        ),
        (
            RETINANET,
            'nf_resnet101',
            'nf_resnet50.pth',
            'are of nf_resnet50, not of nf_resnet101: --backbone nf_resnet50',
        ),
        (
            RETINANET,
            'nfnet_f0',
            'nameless.pth',
            'are of a normalizer-free network that has no name, of 1, 2, 1, 1 blocks',
        ),
        (RETINANET, 'nfnet_nano', 'c4.pth', 'does not fit the model: 20 missing in the file: stages.3.0.'),
        (
            CLASSIFIER,
            'nfnet_nano',
            'detector.pth',
            '3 missing in the file: final_conv.bias, final_conv.gain, final_conv',
        ),
        (RETINANET, 'nfnet_nano', 'baseline.pth', "baseline.pth' are of bn_nfnet_nano, not of nfnet_nano\n"),
        (RETINANET, 'nfnet_nano', 'text.pth', "it is text, beginning 'not found'"),
    ],
)
def test_weights_that_do_not_fit_are_refused_at_once(
    run_tool, tmp_path, monkeypatch, files, config, backbone, file, message
):
    monkeypatch.chdir(tmp_path)
    code, err = run_tool('swap_backbone', config, '--backbone', backbone, '--weights', files / file)
    assert code == 2 and message in err and file in err and err.count('\n') == 1
    assert list(tmp_path.iterdir()) == []


def test_command(run_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, err = run_tool('swap_backbone', RETINANET, '--backbone', 'nfnet_f0+', '--clipping', 0.04)
    assert (code, err) == (0, '')
    cfg = Config.fromfile(tmp_path / 'retinanet_nfnet_f0plus_fpn_1x_coco.py')
    assert cfg.model.neck.in_channels == [384, 768, 2048, 2048]
    assert cfg.model.backbone.frozen_stages == -1 and cfg.optim_wrapper.agc.clipping == 0.04
    code, err = run_tool('swap_backbone', RETINANET, '--backbone', 'nfnet_f0+')
    assert code == 2 and 'exists; --force replaces it' in err and err.count('\n') == 1
    assert run_tool('swap_backbone', RETINANET, '--backbone', 'nfnet_f0+', '--force')[0] == 0
    # a file of ours, inherited by its relative path
    (tmp_path / 'sub').mkdir()
    Path('mine_r50.py').write_text(f'_base_ = {RETINANET!r}\nmodel = dict(backbone=dict(frozen_stages=2))\n')
    assert run_tool('swap_backbone', 'mine_r50.py', '--backbone', 'nf_resnet50', '-o', 'sub/new.py')[0] == 0
    assert "_base_ = '../mine_r50.py'" in Path('sub/new.py').read_text()
    assert Config.fromfile('sub/new.py').model.backbone.frozen_stages == -1
    assert sorted(path.name for path in tmp_path.rglob('*.py')) == [
        'mine_r50.py',
        'new.py',
        'retinanet_nfnet_f0plus_fpn_1x_coco.py',
    ]


def test_a_file_is_named_by_the_networks_full_name(run_tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_tool('swap_backbone', RETINANET, '--backbone', 'F0') == (0, '')
    assert [path.name for path in tmp_path.iterdir()] == ['retinanet_nfnet_f0_fpn_1x_coco.py']


@pytest.mark.parametrize(
    'args, message',
    [
        (
            ['mmdet::retinanet/retinanet_r50_fpn_1x_coc.py'],
            "did you mean 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'",
        ),
        (
            [RETINANET, '--weights', 'own_r50.pi'],
            "weights 'own_r50.pi' does not exist; in '.': did you mean 'own_r50.py'?",
        ),
        (['mmyolo::x.py'], "no package 'mmyolo' is installed"),
        (['nowhere.py'], "config 'nowhere.py' does not exist"),
        ([RETINANET, '-o', 'no/folder.py'], "the folder 'no' does not exist"),
        ([RETINANET, '-o', '/proc/new.py'], "output '/proc/new.py' was not written: "),
        ([RETINANET, '-o', 'x.json'], "'x.json' must end in .py"),
        (['lazy.py'], 'in the style of read_base'),
        (['broken.py'], 'does not load'),
        (['own_r50.py', '-o', 'own_r50.py', '--force'], 'is the config itself'),
        (['mmdet::dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py', '--strict'], 'without --strict it is left out'),
        (['mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py'], "'SwinTransformer' cannot be replaced"),
    ],
)
def test_refusals(run_tool, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    Path('lazy.py').write_text('from mmengine.config import read_base\nwith read_base():\n    from .x import *\n')
    Path('broken.py').write_text("_base_ = 'gone.py'\n")
    Path('own_r50.py').write_text(f'_base_ = {RETINANET!r}\n')
    before = sorted(tmp_path.iterdir())
    code, err = run_tool('swap_backbone', *args, '--backbone', 'nfnet_f0')
    assert code == 2 and message in err and err.count('\n') == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize('fragment', ['nfnet_f0', 'nfnet_f1', 'nf_resnet50', 'nf_resnet101'])
@pytest.mark.parametrize(
    'config, model, head, wrapper',
    [
        (RETINANET, 'nf_detector', 'neck', 'nf_optim_wrapper'),
        (MASK_RCNN_AMP, 'nf_detector', 'neck', 'nf_amp_optim_wrapper'),
        (FCN, 'nf_segmentor', 'decode_head', 'nf_optim_wrapper'),
        (CLASSIFIER, 'nf_classifier', 'head', 'nf_optim_wrapper'),
    ],
)
def test_fragments_say_what_the_tool_says(tmp_path, fragment, config, model, head, wrapper):
    source = find_config(config)
    folder = ROOT / 'configs' / '_base_' / 'nf'
    mine = tmp_path / 'mine.py'
    mine.write_text(
        f"_base_ = [{source.base}, {str(folder / fragment)!r} + '.py', {str(folder / 'agc.py')!r}]\n"
        f'model = _base_.{model}\noptim_wrapper = _base_.{wrapper}\n'
    )
    cfg, (new, _) = read_config(mine), swap_config(read_config(source.path), fragment)
    assert 'frozen_stages' not in cfg['model']['backbone'] and new['model']['backbone'].pop('frozen_stages', -1) == -1
    for place in (cfg, new):
        if place['model']['backbone'].get('out_indices') == (0, 1, 2, 3):  # the default
            del place['model']['backbone']['out_indices']
    new['optim_wrapper'].pop('paramwise_cfg', None)  # the names of the heads' last layers
    assert cfg['model'] == new['model'] and cfg['optim_wrapper'] == new['optim_wrapper']
    assert cfg['model'][head]['in_channels'] == new['model'][head]['in_channels']


def test_values_without_a_literal(tmp_path):
    """Infinity and NaN, in what is written out and in what is only inherited."""
    (tmp_path / 'old.py').write_text(
        "model = dict(a=float('nan'), sizes=[(0, float('inf'))], gone=1)\n"
        "other = [float('nan'), dict(x=float('-inf'))]\n"
    )
    source = find_config(tmp_path / 'old.py')
    old = read_config(source.path)
    new = dict(copy.deepcopy(old), model={key: old['model'][key] for key in ('a', 'sizes')})
    target, text = write_config(tmp_path / 'new.py', source, old, new, 'title')
    assert text.splitlines()[-1] == "model = dict(_delete_=True, a=float('nan'), sizes=[(0, float('inf'))])"
    model = Config.fromfile(target).model
    assert math.isnan(model.a) and model.sizes == [(0, math.inf)] and 'gone' not in model


def test_what_cannot_be_read_back_names_no_temporary_file(tmp_path):
    (tmp_path / 'old.py').write_text('model = dict(a=1)\n')
    source = find_config(tmp_path / 'old.py')
    with pytest.raises(UserError) as caught:
        write_config(tmp_path / 'new.py', source, dict(model=dict(a=1)), dict(model=dict(a=object())), 'title')
    assert '.part' not in str(caught.value) and str(source.path) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['old.py']


@pytest.mark.parametrize(
    'name, expected',
    [
        ('fcn_r50-d8_4xb2', 'fcn_nfnet_f0-d8_4xb2'),
        ('dino-4scale_r50_8xb2', 'dino-4scale_nfnet_f0_8xb2'),
        ('mask-rcnn_x101-32x4d_fpn', 'mask-rcnn_nfnet_f0_fpn'),
        ('other', 'other_nfnet_f0'),
    ],
)
def test_default_names(name, expected):
    assert default_name(Path(f'{name}.py'), 'nfnet_f0') == f'{expected}.py'


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize('framework', ['mmdet', 'mmseg', 'mmpretrain'])
def test_every_shipped_resnet50(sweep, tmp_path, monkeypatch, framework):
    """What builds as shipped builds swapped or is refused in words; what trains as shipped trains."""
    out = tmp_path / 'sweep.jsonl'
    monkeypatch.setattr('sys.argv', ['sweep_swaps.py', '--frameworks', framework, '--out', str(out)])
    sweep.main()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) >= dict(mmdet=100, mmseg=30, mmpretrain=15)[framework]
    for row in rows:
        if row['shipped'] != 'builds':
            continue
        for name in ('nf_resnet50', 'nfnet_f0'):
            swapped = row[name]
            if 'refused' in swapped and 'built' not in swapped:
                continue
            assert swapped['built'] and swapped['sizes'], row
            assert swapped.get('ok') or isinstance(row['shipped_step'], str), row
