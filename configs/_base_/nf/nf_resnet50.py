# Written by tools/write_configs.py from nfnet_mm/recipes.
"""Make an existing ResNet-50 config normalizer-free: inherit it, this file and agc.py, and name what they hold.

    _base_ = [
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        'nfnet_mm::_base_/nf/nf_resnet50.py',
        'nfnet_mm::_base_/nf/agc.py']
    model = _base_.nf_detector
    optim_wrapper = _base_.nf_optim_wrapper  # nf_amp_optim_wrapper if the config's is an AmpOptimWrapper

Nothing is frozen and the weights are random until model['backbone'] is updated: docs/swapping.md has the whole. For a
backbone read by anything but an FPN of all four stages, tools/swap_backbone.py works out the channels.
"""
nf_backbone = dict(_delete_=True, type='nfnet_mm.NFResNet', depth=50)
nf_widths = [256, 512, 1024, 2048]
nf_rgb = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)

# mmdet: any detector whose neck reads four stages, as FPN does
nf_detector = dict(data_preprocessor=nf_rgb, backbone=dict(**nf_backbone), neck=dict(in_channels=nf_widths))
# mmseg: "d8" segmentors, whose decode head reads stage 4 and auxiliary head stage 3, both at stride 8
nf_segmentor = dict(
    data_preprocessor=nf_rgb, pretrained=None,
    backbone=dict(**nf_backbone, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    decode_head=dict(in_channels=nf_widths[3]), auxiliary_head=dict(in_channels=nf_widths[2]))
# mmpretrain: classifiers; its configs normalise images so already
nf_classifier = dict(backbone=dict(**nf_backbone, out_indices=(4, )), head=dict(in_channels=2048))
