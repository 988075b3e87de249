"""As nfnet_f0.py, twice as deep."""
_base_ = './nfnet_f0.py'
nf_backbone = dict(arch='F1')
nf_detector = dict(backbone=nf_backbone)
nf_segmentor = dict(backbone=nf_backbone)
nf_classifier = dict(backbone=nf_backbone)
