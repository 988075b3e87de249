"""As nf_resnet50.py, deeper."""
_base_ = './nf_resnet50.py'
nf_backbone = dict(depth=101)
nf_detector = dict(backbone=nf_backbone)
nf_segmentor = dict(backbone=nf_backbone)
nf_classifier = dict(backbone=nf_backbone)
