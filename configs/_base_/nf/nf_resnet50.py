"""As nfnet_f0.py, with an NF-ResNet-50: the channels are the ResNet's own."""
nf_backbone = dict(_delete_=True, type='nfnet_mm.NFResNet', depth=50)
nf_rgb = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)

# frozen_stages as mmdet's detectors have it; with random weights: -1, see nfnet_f0.py
nf_detector = dict(data_preprocessor=nf_rgb, backbone=dict(**nf_backbone, frozen_stages=1))
nf_segmentor = dict(
    data_preprocessor=nf_rgb, pretrained=None,
    backbone=dict(**nf_backbone, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)))
nf_classifier = dict(backbone=dict(**nf_backbone, out_indices=(4, )))
