"""Swapping backbones in configs: what becomes of every option, and what is refused."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from nfnet_mm.errors import UserError
from nfnet_mm.models.backbones.arch import FAMILIES, find_network, network_names
from nfnet_mm.registry import MODELS
from nfnet_mm.swap.settings import MEAN, STD
from nfnet_mm.swap.swap import backbone_hosts, swap_config


def detector(backbone=(), **model):
    """A config as mmdet's RetinaNet has it, in what matters here."""
    resnet = dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        style='caffe',
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet50'),
    )
    return dict(
        default_scope='mmdet',
        model=dict(
            dict(
                type='RetinaNet',
                data_preprocessor=dict(
                    type='DetDataPreprocessor',
                    mean=[103.53, 116.28, 123.675],
                    std=[1.0, 1.0, 1.0],
                    bgr_to_rgb=False,
                    pad_size_divisor=32,
                ),
                backbone=dict(resnet, **dict(backbone)),
                neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=256),
                bbox_head=dict(type='RetinaHead', in_channels=256),
            ),
            **model,
        ),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, weight_decay=1e-4)),
    )


def segmentor(backbone=(), **model):
    """A config as mmseg's FCN at stride 8 has it."""
    resnet = dict(
        type='ResNetV1c',
        depth=50,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
        norm_cfg=dict(type='SyncBN'),
        contract_dilation=True,
    )
    return dict(
        default_scope='mmseg',
        model=dict(
            dict(
                type='EncoderDecoder',
                pretrained='open-mmlab://resnet50_v1c',
                data_preprocessor=dict(type='SegDataPreProcessor', size=(512, 512)),
                backbone=dict(resnet, **dict(backbone)),
                decode_head=dict(type='FCNHead', in_channels=2048, in_index=3, norm_cfg=dict(type='SyncBN')),
                auxiliary_head=[dict(type='FCNHead', in_channels=1024, in_index=2)],
            ),
            **model,
        ),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
    )


def test_names_build():
    for name in network_names():
        variant = find_network(name)
        with torch.device('meta'):
            net = MODELS.build(dict(variant.cfg, out_indices=(0, 1, 2, 3, 4)))
        assert tuple(map(variant.channels, range(5))) == net.out_channels, name


@pytest.mark.parametrize(
    'name, cfg',
    [
        ('nfnet_f7', dict(type='nfnet_mm.NFNet', arch='F7')),
        ('NFNet_F0+', dict(type='nfnet_mm.NFNet', arch='F0+')),
        ('eca_nfnet_l0', dict(type='nfnet_mm.NFNet', arch='ECA-L0')),
        ('nf_resnet200', dict(type='nfnet_mm.NFResNet', depth=200)),
        ('nf_seresnet50', dict(type='nfnet_mm.NFResNet', arch='timm/nf_seresnet50')),
        ('timm/nf_resnet50', dict(type='nfnet_mm.NFResNet', arch='timm/nf_resnet50')),
        ('timm/nfnet_f0', dict(type='nfnet_mm.NFNet', arch='timm/nfnet_f0')),
        ('nf_regnet_b1', dict(type='nfnet_mm.NFRegNet', arch='B1')),
    ],
)
def test_names(name, cfg):
    assert find_network(name).cfg == cfg


def test_every_variant_has_a_name():
    shapes = {repr(find_network(name).arch) for name in network_names()}
    assert shapes == {repr(arch) for _, rows in FAMILIES.values() for arch in rows.values()}


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="'nfnet_f9' is unknown. Did you mean 'nfnet_f"):
        swap_config(detector(), 'nfnet_f9')


@pytest.mark.parametrize(
    'name, cfg, told',
    [
        (
            'nf_resnet50',
            dict(type='nfnet_mm.NFResNet', depth=50),
            "nf_resnet50 is the paper's network, for the authors' weights; timm's of that name is 'timm/nf_resnet50'",
        ),
        (
            'timm/nf_resnet50',
            dict(type='nfnet_mm.NFResNet', arch='timm/nf_resnet50'),
            "timm/nf_resnet50 is timm's network, for timm's weights; the paper's of that name is 'nf_resnet50'",
        ),
        ('nf_resnet152', dict(type='nfnet_mm.NFResNet', depth=152), None),
        ('nf_seresnet50', dict(type='nfnet_mm.NFResNet', arch='timm/nf_seresnet50'), None),
    ],
)
def test_of_two_networks_of_one_name_the_taken_is_told(name, cfg, told):
    new, notes = swap_config(detector(), name)
    assert new['model']['backbone'].items() >= cfg.items()
    assert [note for note in notes if 'of that name' in note] == [told] * bool(told)


def test_detector():
    cfg = detector()
    before = copy.deepcopy(cfg)
    new, notes = swap_config(cfg, 'nfnet_f0', weights='F0_haiku.npz', clipping=0.04)
    assert cfg == before
    model = new['model']
    assert model['backbone'] == dict(
        type='nfnet_mm.NFNet',
        arch='F0',
        out_indices=(0, 1, 2, 3),
        frozen_stages=1,
        init_cfg=dict(type='nfnet_mm.NFPretrained', checkpoint='F0_haiku.npz'),
    )
    assert model['neck']['in_channels'] == [256, 512, 1536, 1536]
    assert model['bbox_head']['in_channels'] == 256  # reads the neck
    assert model['data_preprocessor'] == dict(
        type='DetDataPreprocessor', mean=MEAN, std=STD, bgr_to_rgb=True, pad_size_divisor=32
    )
    assert new['optim_wrapper'] == dict(
        type='nfnet_mm.AGCOptimWrapper',
        constructor='nfnet_mm.NFOptimWrapperConstructor',
        agc=dict(clipping=0.04, eps=1e-3),
        optimizer=cfg['optim_wrapper']['optimizer'],
        paramwise_cfg=dict(agc_exclude=['bbox_head.retina_cls.weight', 'bbox_head.retina_reg.weight']),
    )
    assert 'model.backbone: dropped norm_cfg, norm_eval, style, init_cfg' in notes
    assert any(note.startswith('model.data_preprocessor: mean [103.53') for note in notes)
    assert not any('random' in note for note in notes)


def test_segmentor_keeps_strides_and_dilations():
    new, notes = swap_config(segmentor(), 'nfnet_f1')
    model = new['model']
    assert model['backbone'] == dict(
        type='nfnet_mm.NFNet', arch='F1', out_indices=(0, 1, 2, 3), strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)
    )
    assert (model['decode_head']['in_channels'], model['auxiliary_head'][0]['in_channels']) == (1536, 1536)
    assert model['pretrained'] is None
    assert any('contract_dilation has no counterpart' in note for note in notes)
    assert any('random weights' in note for note in notes)
    assert 'BatchNorm stays in decode_head' in notes


def test_stem_of_another_stride():
    """NF-RegNets stride in the stem by 2 only; the outputs' strides are what the config asked for all the same."""
    backbone = swap_config(segmentor(), 'nf_regnet_b0')[0]['model']['backbone']
    assert MODELS.build(backbone).out_strides == (4, 8, 8, 8)
    assert 'strides' not in swap_config(detector(), 'nf_regnet_b0')[0]['model']['backbone']


def test_fewer_stages():
    model = swap_config(
        detector(
            dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,)),
            neck=dict(type='ChannelMapper', in_channels=[1024]),
        ),
        'nfnet_f0',
    )[0]['model']
    assert model['backbone']['out_indices'] == (2,) and 'strides' not in model['backbone']
    assert model['neck']['in_channels'] == [1536]
    assert MODELS.build(model['backbone']).out_strides == (16,)


def test_dilated_c5():
    model = swap_config(
        detector(
            dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), out_indices=(3,)),
            neck=None,
            rpn_head=dict(type='RPNHead', in_channels=2048, feat_channels=2048),
            roi_head=dict(
                type='StandardRoIHead',
                bbox_roi_extractor=dict(out_channels=2048, featmap_strides=[16]),
                bbox_head=dict(type='Shared2FCBBoxHead', in_channels=2048),
            ),
            bbox_head=None,
        ),
        'nfnet_f0',
    )[0]['model']
    assert model['rpn_head'] == dict(type='RPNHead', in_channels=1536, feat_channels=2048)
    assert model['roi_head']['bbox_roi_extractor']['out_channels'] == 1536
    assert model['roi_head']['bbox_head']['in_channels'] == 1536
    assert MODELS.build(model['backbone']).out_strides == (16,)


C4 = dict(
    neck=None,
    bbox_head=None,
    rpn_head=dict(type='RPNHead', in_channels=1024),
    roi_head=dict(
        type='StandardRoIHead',
        shared_head=dict(type='ResLayer', depth=50, stage=3),
        bbox_roi_extractor=dict(out_channels=1024),
        bbox_head=dict(type='BBoxHead', in_channels=2048),
        mask_head=dict(type='FCNMaskHead', in_channels=2048),
    ),
)


@pytest.mark.parametrize(
    'name, network, widths',
    [
        ('nfnet_f0', dict(type='nfnet_mm.NFNet', arch='F0'), (1536, 1536)),
        ('nf_resnet101', dict(type='nfnet_mm.NFResNet', depth=101), (1024, 2048)),
        ('nf_regnet_b0', dict(type='nfnet_mm.NFRegNet', arch='B0'), (156, 330)),
    ],
)
def test_c4_gets_the_new_networks_own_last_stage(name, network, widths):
    cfg = detector(dict(num_stages=3, out_indices=(2,), drop_path_rate=0.2), **copy.deepcopy(C4))
    cfg['model']['roi_head']['shared_head'].update(dilation=2, with_cp=True, norm_cfg=dict(type='BN'), norm_eval=True)
    new, notes = swap_config(cfg, name, weights='w.pth')
    init = dict(type='nfnet_mm.NFPretrained', checkpoint='w.pth')
    roi_head = new['model']['roi_head']
    assert roi_head['shared_head'] == dict(
        type='nfnet_mm.NFStage',
        backbone=dict(network, with_cp=True, drop_path_rate=0.2),
        stage=3,
        stride=2,
        dilation=2,
        init_cfg=init,
    )
    assert new['model']['backbone']['init_cfg'] == init
    assert new['model']['rpn_head']['in_channels'] == roi_head['bbox_roi_extractor']['out_channels'] == widths[0]
    assert roi_head['bbox_head']['in_channels'] == roi_head['mask_head']['in_channels'] == widths[1]
    with torch.device('meta'):
        stage = MODELS.build(roi_head['shared_head'])
    assert (stage.in_channels, stage.out_channels) == widths
    assert any(note.startswith('model.roi_head.shared_head: ResLayer -> stage 3 of') for note in notes)
    assert not any('BatchNorm stays' in note for note in notes)
    assert [path for path, *_ in backbone_hosts(new['model'], 'model')] == ['model']


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(type='SomeHead'), "shared_head of type 'SomeHead' cannot be replaced; what can: ResLayer"),
        (dict(surprise=1), 'model.roi_head.shared_head.surprise=1 has no counterpart in nfnet_f0'),
        (dict(dcn=dict(type='DCNv2')), 'shared_head.dcn (deformable convs in its stages) has no counterpart'),
    ],
)
def test_c4_refused(options, message):
    cfg = detector(dict(num_stages=3, out_indices=(2,)), **copy.deepcopy(C4))
    cfg['model']['roi_head']['shared_head'].update(options)
    with pytest.raises(UserError) as caught:
        swap_config(cfg, 'nfnet_f0', strict=True)
    assert message in str(caught.value)


def test_heads_that_read_several_levels():
    aspp = dict(type='DepthwiseSeparableASPPHead', in_channels=2048, in_index=3, c1_in_channels=256, c1_channels=48)
    knet = dict(
        type='IterativeDecodeHead',
        kernel_generate_head=dict(type='UPerHead', in_channels=[256, 512, 1024, 2048], in_index=[0, 1, 2, 3]),
        kernel_update_head=[dict(type='KernelUpdateHead', in_channels=512)],
    )
    cascade = [dict(type='FCNHead', in_channels=1024, in_index=2), dict(type='OCRHead', in_channels=2048, in_index=-1)]
    heads = [
        swap_config(segmentor(decode_head=h), 'nf_regnet_b0')[0]['model']['decode_head'] for h in (aspp, knet, cascade)
    ]
    assert heads[0] == dict(aspp, in_channels=330, c1_in_channels=36)
    assert heads[1]['kernel_generate_head']['in_channels'] == [36, 78, 156, 330]
    assert heads[1]['kernel_update_head'] == knet['kernel_update_head']  # reads the first head, not the backbone
    assert [h['in_channels'] for h in heads[2]] == [156, 330]


@pytest.mark.parametrize('width, becomes', [(0, 0), (None, None), (256, 36), (512, 78)])
def test_skip_connection_of_deeplab(width, becomes):
    aspp = dict(type='DepthwiseSeparableASPPHead', in_channels=2048, in_index=3, c1_in_channels=width)
    head = swap_config(segmentor(decode_head=aspp), 'nf_regnet_b0')[0]['model']['decode_head']
    assert head['c1_in_channels'] == becomes
    with pytest.raises(UserError, match='decode_head.c1_in_channels holds 24, which is none of the channels'):
        swap_config(segmentor(decode_head=dict(aspp, c1_in_channels=24)), 'nf_regnet_b0')


def test_jpu_hands_levels_on():
    """FastFCN: the heads read the neck's own output at the last level, the backbone's below it."""
    neck = dict(type='JPU', in_channels=(512, 1024, 2048), mid_channels=512, start_level=0, end_level=-1)
    cfg = segmentor(
        dict(out_indices=(1, 2, 3)),
        neck=neck,
        decode_head=dict(type='EncHead', in_channels=[512, 1024, 2048], in_index=[0, 1, 2]),
        auxiliary_head=dict(type='FCNHead', in_channels=1024, in_index=1),
    )
    model = swap_config(cfg, 'nfnet_f0')[0]['model']
    assert model['neck']['in_channels'] == (512, 1536, 1536)
    assert model['decode_head']['in_channels'] == [512, 1536, 2048]
    assert model['auxiliary_head']['in_channels'] == 1536


def test_bisenet():
    bisenet = dict(
        type='BiSeNetV1',
        context_channels=(512, 1024, 2048),
        spatial_channels=(256, 256, 256, 512),
        backbone_cfg=dict(type='ResNet', depth=50, out_indices=(0, 1, 2, 3)),
    )
    cfg = segmentor()
    cfg['model'].update(
        backbone=bisenet,
        decode_head=dict(type='FCNHead', in_channels=1024, in_index=0),
        auxiliary_head=dict(type='FCNHead', in_channels=512, in_index=1),
    )
    model = swap_config(cfg, 'nfnet_f0')[0]['model']
    assert model['backbone']['context_channels'] == (512, 1536, 1536)
    assert model['backbone']['spatial_channels'] == (256, 256, 256, 1024)
    assert model['backbone']['backbone_cfg']['arch'] == 'F0'
    with pytest.raises(UserError, match='BiSeNetV1 keeps 512 channels of the 156'):
        swap_config(cfg, 'nf_regnet_b0')


def test_classifier_reads_the_classification_feature():
    cfg = dict(
        default_scope='mmpretrain',
        data_preprocessor=dict(num_classes=1000, mean=[0, 0, 0], std=[1, 1, 1]),
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='ResNet', depth=50),
            head=dict(type='LinearClsHead', num_classes=1000, in_channels=2048),
            neck=dict(type='GlobalAveragePooling'),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
    )
    new, _ = swap_config(cfg, 'nfnet_f0')
    assert new['model']['backbone']['out_indices'] == (4,)
    assert new['model']['head']['in_channels'] == 3072
    assert new['data_preprocessor'] == dict(num_classes=1000, mean=MEAN, std=STD, to_rgb=True)


def test_model_around_a_detector():
    """Semi-supervised training and tracking hold a detector; its weights as a whole are another network's."""
    cfg = detector()
    inner = cfg['model'].pop('data_preprocessor')
    cfg['model'] = dict(
        type='SoftTeacher',
        detector=dict(cfg['model'], init_cfg=dict(checkpoint='whole.pth')),
        data_preprocessor=dict(type='MultiBranchDataPreprocessor', data_preprocessor=inner),
    )
    cfg['load_from'] = 'whole.pth'
    new, notes = swap_config(cfg, 'nfnet_f0')
    assert new['model']['detector']['backbone']['arch'] == 'F0'
    assert new['model']['detector']['init_cfg'] is None and new['load_from'] is None
    outer = new['model']['data_preprocessor']
    assert outer['data_preprocessor']['mean'] == MEAN and 'mean' not in outer
    assert "load_from = 'whole.pth' dropped" in notes


def test_optimizer_wrapper_keeps_its_settings():
    cfg = detector()
    cfg['optim_wrapper'] = dict(
        type='AmpOptimWrapper',
        loss_scale=512.0,
        accumulative_counts=4,
        clip_grad=dict(max_norm=0.1, norm_type=2),
        optimizer=dict(type='AdamW', lr=1e-4),
        paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0.1)}),
    )
    new, notes = swap_config(cfg, 'nfnet_f0')
    assert new['optim_wrapper'] == dict(
        cfg['optim_wrapper'],
        type='nfnet_mm.AmpAGCOptimWrapper',
        agc=dict(clipping=0.01, eps=1e-3),
        constructor='nfnet_mm.NFOptimWrapperConstructor',
        paramwise_cfg=dict(
            custom_keys={'backbone': dict(lr_mult=0.1)},
            agc_exclude=['bbox_head.retina_cls.weight', 'bbox_head.retina_reg.weight'],
        ),
    )
    assert 'optim_wrapper.clip_grad (max_norm 0.1, norm_type 2) stays, and applies after AGC' in notes


@pytest.mark.parametrize('scope', ['mmengine.', 'mmdet.', ''])
def test_scoped_wrappers_are_mmengines(scope):
    cfg = detector()
    cfg['optim_wrapper'].update(type=f'{scope}AmpOptimWrapper', constructor=f'{scope}DefaultOptimWrapperConstructor')
    assert swap_config(cfg, 'nfnet_f0')[0]['optim_wrapper']['type'] == 'nfnet_mm.AmpAGCOptimWrapper'


def test_a_run_of_the_resnet_is_not_resumed():
    new, notes = swap_config(dict(detector(), resume=True, work_dir='work_dirs/mine'), 'nfnet_f0')
    assert new['resume'] is False and new['work_dir'] == 'work_dirs/mine'
    assert 'resume = True -> False: there is no run of the new network to resume yet' in notes
    assert any(note.startswith("WARNING: work_dir = 'work_dirs/mine' stays") for note in notes)
    assert not any('resum' in note for note in swap_config(dict(detector(), resume=False), 'nfnet_f0')[1])


@pytest.mark.parametrize(
    'channels, trained_with, adapted',
    [(4, 3, 'mean'), (1, 3, 'mean'), (3, 1, 'mean'), (3, 3, None), (4, 4, None), (1, 1, None)],
)
def test_weights_for_other_images_start_from_the_mean_kernel(channels, trained_with, adapted):
    new, notes = swap_config(detector(dict(in_channels=channels)), 'nfnet_f0', 'w.pth', weights_channels=trained_with)
    assert new['model']['backbone']['init_cfg'].get('in_channels') == adapted
    said = f"model.backbone.init_cfg.in_channels='mean': the mean kernel of the {trained_with} channels of the weights"
    assert any(note.startswith(said) for note in notes) == bool(adapted)


def test_without_weights_nothing_is_frozen():
    new, notes = swap_config(detector(), 'nfnet_f0')
    assert new['model']['backbone']['frozen_stages'] == -1
    assert 'model.backbone.frozen_stages: 1 -> -1: frozen random weights would never be trained' in notes
    new, notes = swap_config(detector(), 'nfnet_f0', 'w.pth')
    assert new['model']['backbone']['frozen_stages'] == 1 and not any('frozen random' in note for note in notes)
    assert 'frozen_stages' not in swap_config(segmentor(), 'nfnet_f0')[0]['model']['backbone']  # as it was


def test_one_mean_for_all_channels_stays():
    grey = dict(type='DetDataPreprocessor', mean=[33.46], std=[78.87], bgr_to_rgb=False)
    for channels in (1, 3):
        new, notes = swap_config(detector(dict(in_channels=channels), data_preprocessor=grey), 'nfnet_f0')
        assert new['model']['data_preprocessor'] == grey
        (note,) = [note for note in notes if 'model.data_preprocessor' in note]
        assert 'mean [33.46]' in note and 'stay' in note
        assert note.startswith('WARNING') == (channels == 3)


def test_parameter_names_are_translated():
    cfg = detector()
    cfg['optim_wrapper'].update(
        type='nfnet_mm.AGCOptimWrapper',
        paramwise_cfg=dict(
            custom_keys={
                'backbone': dict(lr_mult=0.1),
                'backbone.layer4': dict(lr_mult=0.5),
                'backbone.bn1': dict(decay_mult=0),
                'bbox_head': dict(lr_mult=2),
            },
            agc_exclude=['backbone.layer1.0.conv3.weight', 'bbox_head.*'],
        ),
    )
    new, notes = swap_config(cfg, 'nfnet_f0')
    paramwise = new['optim_wrapper']['paramwise_cfg']
    assert paramwise['custom_keys'] == {
        'backbone': dict(lr_mult=0.1),
        'backbone.stages.3': dict(lr_mult=0.5),
        'backbone.bn1': dict(decay_mult=0),
        'bbox_head': dict(lr_mult=2),
    }
    assert paramwise['agc_exclude'] == ['backbone.stages.0.0.conv2.weight', 'bbox_head.*']
    keys = 'optim_wrapper.paramwise_cfg.custom_keys: '
    assert f"{keys}'backbone.layer4' -> 'backbone.stages.3'" in notes
    assert [note for note in notes if note.startswith(f"{keys}'backbone.bn1' named 2 parameters of norm layers")]
    assert len([note for note in notes if keys in note]) == 2
    # the parameters that the keys are for, in the model that they are for
    net = torch.nn.ModuleDict(dict(backbone=MODELS.build(new['model']['backbone'])))
    new['optim_wrapper']['paramwise_cfg'].pop('agc_exclude')
    groups = build_optim_wrapper(net, new['optim_wrapper']).optimizer.param_groups
    for group in groups:
        fourth = {id(p) for p in net['backbone'].stages[3].parameters()}
        assert {id(p) in fourth for p in group['params']} == {group['lr'] == pytest.approx(0.01 * 0.5)}


def test_weights_are_no_part_with_parameters():
    cfg = detector()
    cfg['optim_wrapper'].update(paramwise_cfg=dict(custom_keys={'backbone.layer4': dict(lr_mult=0.5)}))
    new, _ = swap_config(cfg, 'nfnet_f0', weights='w.pth')
    assert new['optim_wrapper']['paramwise_cfg']['custom_keys'] == {'backbone.stages.3': dict(lr_mult=0.5)}


def test_options_that_name_modules():
    cfg = detector()
    cfg.update(
        activation_checkpointing=['backbone.layer1', 'neck'],
        efficient_conv_bn_eval='backbone',
        custom_hooks=[dict(type='PreciseBNHook'), dict(type='SomeHook', layers=['backbone.layer3', 'neck'])],
    )
    new, notes = swap_config(cfg, 'nfnet_f0')
    assert new['activation_checkpointing'] == ['neck'] and new['efficient_conv_bn_eval'] is None
    assert new['model']['backbone']['with_cp'] is True
    for start in (
        "activation_checkpointing: ['backbone.layer1'] -> model.backbone.with_cp=True",
        "efficient_conv_bn_eval: ['backbone'] dropped",
        "custom_hooks.0: 'PreciseBNHook' has no BatchNorm",
        "WARNING: custom_hooks.1.layers.0 = 'backbone.layer3' names a part of the ResNet",
    ):
        assert [note for note in notes if note.startswith(start)], start
    assert cfg['activation_checkpointing'] == ['backbone.layer1', 'neck']
    # of whole modules mmengine wraps the forward that is called, so this is as before
    assert (
        swap_config(dict(detector(), activation_checkpointing='backbone'), 'nfnet_f0')[0]['activation_checkpointing']
        == 'backbone'
    )


@pytest.mark.parametrize('channels', [1, 4])
def test_other_images_keep_their_normalisation(channels):
    mean, std = [100.0] * channels, [50.0] * channels
    preprocessor = dict(type='DetDataPreprocessor', mean=mean, std=std, bgr_to_rgb=False)
    new, notes = swap_config(detector(dict(in_channels=channels), data_preprocessor=preprocessor), 'nfnet_f0')
    assert new['model']['data_preprocessor'] == preprocessor
    assert new['model']['backbone']['in_channels'] == channels
    assert (
        f'model.data_preprocessor: mean {mean}, std {std} stay, as the backbone has in_channels={channels}: check '
        'that they are of your images'
    ) in notes


def test_images_normalised_in_the_pipeline_too_are_told():
    load, normalize = dict(type='LoadImageFromFile'), dict(type='mmcv.Normalize', mean=[0, 0, 0], std=[1, 1, 1])
    cfg = dict(
        detector(),
        train_dataloader=dict(dataset=dict(pipeline=[load, normalize])),
        test_dataloader=dict(dataset=dict(pipeline=[load])),
    )
    told = [note for note in swap_config(cfg, 'nfnet_f0')[1] if 'normalises again' in note]
    assert [note.split()[1] for note in told] == ['train_dataloader.dataset.pipeline.1']


def test_a_teacher_reads_the_same_images():
    cfg = detector(teacher_backbone=dict(type='ResNet', depth=101), teacher_ckpt='x.pth')
    new, notes = swap_config(cfg, 'nfnet_f0')
    assert new['model']['teacher_backbone'] == cfg['model']['teacher_backbone']
    assert "WARNING: model.teacher_backbone stays 'ResNet', and reads images normalised so, too" in notes


@pytest.mark.parametrize(
    'teacher, told',
    [
        (dict(teacher_config='gfl_r101.py'), "model.teacher_config stays 'gfl_r101.py'"),
        (dict(teacher_config=dict(model=dict(type='GFL'))), "model.teacher_config stays 'a model'"),
        (dict(architecture=dict(teacher=dict(type='GFL'))), "model.architecture.teacher stays 'GFL'"),
    ],
)
def test_a_teacher_given_otherwise_reads_the_same_images(teacher, told):
    notes = swap_config(detector(teacher_ckpt='x.pth', **teacher), 'nfnet_f0')[1]
    assert [note for note in notes if 'reads images normalised so' in note] == [
        f'WARNING: {told}, and reads images normalised so, too'
    ]


CIFAR = dict(mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255], to_rgb=False)


@pytest.mark.parametrize(
    'mean, pipeline, changes',
    [
        (CIFAR['mean'], [dict(type='RandomFlip')], False),  # mmpretrain's CIFAR10: RGB already, and to_rgb swaps
        (MEAN, [], False),
        (CIFAR['mean'], [dict(type='mmcv.LoadImageFromFile')], True),
        (MEAN[::-1], [dict(type='MyReader')], True),
    ],
)
def test_images_not_read_from_files_keep_their_order(mean, pipeline, changes):
    cfg = dict(
        classifier(),
        data_preprocessor=dict(CIFAR, mean=mean),
        train_dataloader=dict(dataset=dict(type='Concat', datasets=[dict(type='CIFAR10', pipeline=pipeline)])),
    )
    new, notes = swap_config(cfg, 'nfnet_f0')
    told = f'data_preprocessor: mean {mean}, std {CIFAR["std"]}, to_rgb False stay, as no LoadImageFromFile'
    assert any(told in note and note.startswith('WARNING') for note in notes) != changes
    assert new['data_preprocessor'] == (dict(mean=MEAN, std=STD, to_rgb=True) if changes else dict(CIFAR, mean=mean))


def classifier(backbone=(), **head):
    """A config as mmpretrain's ResNet-50 has it."""
    return dict(
        default_scope='mmpretrain',
        data_preprocessor=dict(num_classes=1000, mean=MEAN, std=STD, to_rgb=True),
        model=dict(
            type='ImageClassifier',
            backbone=dict(dict(type='ResNet', depth=50), **dict(backbone)),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(dict(type='LinearClsHead', num_classes=1000, in_channels=2048), **head),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
    )


def test_the_head_reads_the_last_of_several_outputs():
    new, notes = swap_config(classifier(dict(out_indices=(0, 1, 2, 3))), 'nfnet_f0')
    assert new['model']['backbone']['out_indices'] == (0, 1, 2, 4) and new['model']['head']['in_channels'] == 3072
    assert 'model.backbone: its last output becomes 4, behind the last activation, in place of 3' in notes
    with torch.device('meta'):
        net = MODELS.build(new['model']['backbone'])
    assert net.out_channels == (256, 512, 1536, 3072)
    # one of which the neck reads all
    cfg = classifier(dict(out_indices=(0, 1, 2, 3)))
    cfg['model']['neck'] = dict(type='HRFuseScales', in_channels=(256, 512, 1024, 2048))
    cfg['model']['head']['in_channels'] = 2048
    model = swap_config(cfg, 'nfnet_f0')[0]['model']
    assert model['backbone']['out_indices'] == (0, 1, 2, 3)
    assert model['neck']['in_channels'] == (256, 512, 1536, 1536)
    # which is not the last stage
    assert swap_config(classifier(dict(out_indices=(2,)), in_channels=1024), 'nfnet_f0')[0]['model']['backbone'][
        'out_indices'
    ] == (2,)


def test_heads_of_several_tasks():
    tasks = dict(
        colour=dict(type='LinearClsHead', num_classes=3, in_channels=2048),
        shape=dict(type='LinearClsHead', num_classes=2),
        more=dict(type='MultiTaskHead', task_heads=dict(a=dict(type='LinearClsHead', in_channels=2048))),
    )
    head = swap_config(classifier(type='MultiTaskHead', task_heads=tasks), 'nfnet_f0')[0]['model']['head']
    assert head['in_channels'] == head['task_heads']['colour']['in_channels'] == 3072
    assert head['task_heads']['more']['task_heads']['a']['in_channels'] == 3072
    assert head['task_heads']['shape'] == tasks['shape']  # it takes the common one
    tasks['colour']['in_channels'] = 512
    with pytest.raises(UserError, match='model.head.task_heads.colour.in_channels holds 512, which is none'):
        swap_config(classifier(type='MultiTaskHead', task_heads=tasks), 'nfnet_f0')


def excluded(cfg):
    new, notes = swap_config(cfg, 'nfnet_f0')
    paramwise = new['optim_wrapper'].get('paramwise_cfg', {})
    return paramwise.get('agc_exclude'), [note for note in notes if 'agc_exclude' in note or 'AGC leaves' in note]


def test_a_classifier_s_last_layer_is_found_by_the_constructor():
    said = "AGC leaves the last weights of the classifier's head unclipped, and the log names them"
    assert excluded(classifier()) == (None, [said])


def test_last_layers_are_not_clipped():
    names, notes = excluded(segmentor())
    assert names == ['decode_head.conv_seg.weight', 'auxiliary_head.*.conv_seg.weight']
    (note,) = notes
    assert note.endswith(
        f'{", ".join(names)}: the last layers of the heads, which train better unclipped (NFNets, section 4.1)'
    )


def test_last_layers_of_mask_rcnn_are_those_of_our_recipe():
    from nfnet_mm.recipes.transfer import COCO

    heads = dict(
        rpn_head=dict(type='RPNHead', in_channels=256),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_head=dict(type='Shared2FCBBoxHead', in_channels=256),
            mask_head=dict(type='FCNMaskHead', in_channels=256),
        ),
    )
    assert tuple(excluded(detector(bbox_head=None, **heads))[0]) == COCO.last_layers


def test_heads_that_are_not_known_are_named():
    names, (note,) = excluded(detector(bbox_head=dict(type='MyHead')))
    assert names is None and note.startswith('AGC clips every weight of bbox_head, the last layers too: name those in ')
    names, notes = excluded(detector(rpn_head=dict(type='RPNHead'), bbox_head=dict(type='MyHead')))
    assert names == ['rpn_head.rpn_cls.weight', 'rpn_head.rpn_reg.weight'] and len(notes) == 2


def test_names_that_the_user_excludes_are_not_doubled():
    cfg = detector()
    cfg['optim_wrapper'].update(
        type='nfnet_mm.AGCOptimWrapper', paramwise_cfg=dict(agc_exclude='bbox_head.retina_cls.weight')
    )
    assert excluded(cfg)[0] == ['bbox_head.retina_cls.weight', 'bbox_head.retina_reg.weight']
    cfg['optim_wrapper']['paramwise_cfg']['agc_exclude'] = 'bbox_head.*'
    assert excluded(cfg) == ('bbox_head.*', [])


def test_a_linear_probe_leaves_the_final_conv_training():
    told = 'WARNING: model.backbone: frozen_stages=4 freezes the four stages as before, but not the final conv that '
    probe = classifier(dict(frozen_stages=4))
    assert any(note.startswith(told) for note in swap_config(probe, 'nfnet_f0', 'w.pth')[1])
    assert not any(note.startswith(told) for note in swap_config(probe, 'nf_resnet50', 'w.pth')[1])


def test_twice_is_refused():
    new, _ = swap_config(detector(), 'nfnet_f0')
    with pytest.raises(UserError, match="'nfnet_mm.NFNet' is normalizer-free already: swap the config it came from"):
        swap_config(new, 'nfnet_f1')


@pytest.mark.parametrize(
    'model, where',
    [
        (dict(aux_backbone=dict(type='ResNet', depth=50)), 'aux_backbone'),
        (dict(branches=[dict(img_backbone=dict(type='mmdet.ResNeXt', depth=50))]), 'branches.0.img_backbone'),
        (dict(teacher=dict(type='GFL', backbone=dict(type='ResNet', depth=101))), 'teacher.backbone'),
    ],
)
def test_a_resnet_under_another_key_is_told(model, where):
    new, notes = swap_config(detector(**model), 'nfnet_f0')
    assert {key: new['model'][key] for key in model} == model
    (note,) = [note for note in notes if "under the key backbone are replaced, but no teacher's" in note]
    assert note.startswith(f'WARNING: model.{where} stays ')
    assert not any('under the key backbone' in note for note in swap_config(detector(), 'nfnet_f0')[1])


def test_a_resnet_under_another_key_alone_is_refused():
    cfg = classifier()
    encoder = [cfg['model'].pop('backbone'), cfg['model'].pop('neck')]
    cfg['model'].update(type='ImageToImageRetriever', image_encoder=encoder)
    with pytest.raises(UserError, match="model.image_encoder.0 is a 'ResNet', but not under the key backbone"):
        swap_config(cfg, 'nfnet_f0')


def test_other_backbones_stay_as_they_are():
    swin = dict(type='SwinTransformer', norm_eval=None)
    new, notes = swap_config(detector(extra=dict(backbone=swin)), 'nfnet_f0')
    assert new['model']['extra']['backbone'] == swin and "model.extra.backbone stays 'SwinTransformer'" in notes


def test_options_of_none_are_the_defaults():
    nones = dict(strides=None, dilations=None, frozen_stages=None, num_stages=None, in_channels=None, plugins=None)
    plain = detector()
    del plain['model']['backbone']['frozen_stages'], plain['model']['backbone']['num_stages']
    new, notes = swap_config(detector(nones), 'nfnet_f0')
    assert (new, notes) == swap_config(plain, 'nfnet_f0')


DCN = dict(dcn=dict(type='DCNv2'), stage_with_dcn=(False, True, True, True))
PLUGINS = dict(plugins=[dict(cfg=dict(type='ContextBlock'))])


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(type='ResNeXt', conv_cfg=dict(type='ConvAWS')), "conv_cfg={'type': 'ConvAWS'} has no counterpart"),
        (dict(surprise=3), 'model.backbone.surprise=3 has no counterpart in nfnet_f0'),
        (dict(type='TridentResNet'), "'TridentResNet' cannot be replaced: its last stage runs three times"),
        (dict(type='DetectoRS_ResNet'), 'switchable atrous convs'),
        (dict(type='ICNet'), "calls ResNet's layers one by one"),
        (dict(type='SwinTransformer'), 'not of the ResNet family'),
        (dict(type=dict), 'is a class, of a config in the style'),
    ],
)
def test_backbones_refused(options, message):
    with pytest.raises(UserError) as caught:
        swap_config(detector(options), 'nfnet_f0')
    assert message in str(caught.value)


@pytest.mark.parametrize(
    'options, what',
    [
        (DCN, 'model.backbone.dcn (deformable convs in its stages) has no counterpart in nfnet_f0'),
        (PLUGINS, 'model.backbone.plugins (modules inside its blocks) has no counterpart in nfnet_f0'),
    ],
)
def test_extras_are_left_out_with_a_warning_or_refused(options, what):
    new, notes = swap_config(detector(options), 'nfnet_f0')
    plain, plain_notes = swap_config(detector(), 'nfnet_f0')
    assert new == plain
    (warning,) = set(notes) - set(plain_notes)
    assert warning.startswith(f'WARNING: {what} and is left out: ') and "'type': '" in warning
    with pytest.raises(UserError) as caught:
        swap_config(detector(options), 'nfnet_f0', strict=True)
    assert what in str(caught.value)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda cfg: cfg.pop('model'), 'the config has no model'),
        (lambda cfg: cfg['model'].pop('backbone'), 'the model has no backbone'),
        (lambda cfg: cfg['model'].pop('data_preprocessor'), 'no data_preprocessor'),
        (
            lambda cfg: cfg['model']['neck'].update(in_channels=[96, 192]),
            'model.neck.in_channels holds 96, which is none',
        ),
        (
            lambda cfg: cfg['optim_wrapper'].update(type='OptimWrapperDict'),
            "type='OptimWrapperDict' has no form with AGC",
        ),
        (
            lambda cfg: cfg['optim_wrapper'].update(constructor='LayerDecay'),
            "constructor='LayerDecay' knows the layers",
        ),
        (lambda cfg: cfg['optim_wrapper'].update(paramwise_cfg=dict(num_layers=12)), "'num_layers' is unknown"),
        (
            lambda cfg: cfg['optim_wrapper'].update(
                optimizer=dict(type='AdamW'), paramwise_cfg=dict(norm_decay_mult=0)
            ),
            "multiplies the weight decay, which optimizer={'type': 'AdamW'} does not state: add weight_decay to it",
        ),
        (lambda cfg: cfg['optim_wrapper'].update(type='mine.OptimWrapper'), "type='mine.OptimWrapper' has no form"),
    ],
)
def test_configs_refused(change, message):
    cfg = detector()
    change(cfg)
    with pytest.raises(UserError) as caught:
        swap_config(cfg, 'nfnet_f0')
    assert message in str(caught.value)


def test_arguments_refused():
    with pytest.raises(UserError, match='clipping=0'):
        swap_config(detector(), 'nfnet_f0', clipping=0)
    cfg = segmentor()
    cfg['model']['decode_head']['in_index'] = 2
    with pytest.raises(UserError, match='in_channels=2048 with in_index=2 does not fit'):
        swap_config(cfg, 'nfnet_f0')
    with pytest.raises(UserError, match='in_channels=2048 with in_index=3 does not fit'):  # of one output
        swap_config(segmentor(dict(out_indices=(3,)), auxiliary_head=None), 'nfnet_f0')
