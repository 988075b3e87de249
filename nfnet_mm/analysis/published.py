"""The papers, and the accuracies of the weights that others published."""

from collections.abc import Mapping

from nfnet_mm.recipes import Accuracy

_NF_RESNETS = dict(
    URL='https://arxiv.org/abs/2101.08692',
    Title='Characterizing signal propagation to close the performance gap in unnormalized ResNets',
)
_NFNETS = dict(
    URL='https://arxiv.org/abs/2102.06171', Title='High-Performance Large-Scale Image Recognition Without Normalization'
)
PAPERS = {
    'NFNet': _NFNETS,
    'NFResNet': _NF_RESNETS,
    'NFRegNet': _NF_RESNETS,
    'BNResNet': _NF_RESNETS,
    'FixupResNet': _NF_RESNETS,
    'SkipInitResNet': _NF_RESNETS,
    'BNNFNet': _NFNETS,
}
ARCHITECTURES = {
    **dict.fromkeys(('NFNet', 'NFResNet', 'NFRegNet'), 'Scaled Weight Standardization'),
    **dict.fromkeys(('BNResNet', 'BNNFNet'), 'Batch Normalization'),
    'FixupResNet': 'FixUp Initialization',
    'SkipInitResNet': 'SkipInit',
}
CODE = {
    'DeepMind': 'https://github.com/deepmind/deepmind-research/tree/master/nfnets',
    'timm': 'https://github.com/huggingface/pytorch-image-models',
}


# {public weights: (accuracy, size in pixels that it was measured at)}
ACCURACIES: Mapping[str, tuple[Accuracy, int]] = {
    f'timm/{name}': (Accuracy(top1, top5, "timm's results-imagenet.csv"), size)
    for name, top1, top5, size in (
        ('dm_nfnet_f0.dm_in1k', 83.486, 96.568, 256),
        ('dm_nfnet_f1.dm_in1k', 84.702, 97.182, 320),
        ('dm_nfnet_f2.dm_in1k', 85.194, 97.346, 352),
        ('dm_nfnet_f3.dm_in1k', 85.686, 97.570, 416),
        ('dm_nfnet_f4.dm_in1k', 85.836, 97.664, 512),
        ('dm_nfnet_f5.dm_in1k', 86.098, 97.688, 544),
        ('dm_nfnet_f6.dm_in1k', 86.362, 97.896, 576),
        ('nfnet_l0.ra2_in1k', 82.752, 96.516, 288),
        ('eca_nfnet_l0.ra2_in1k', 82.578, 96.494, 288),
        ('eca_nfnet_l1.ra2_in1k', 84.010, 97.026, 320),
        ('eca_nfnet_l2.ra3_in1k', 84.702, 97.266, 384),
        ('nf_resnet50.ra2_in1k', 80.640, 95.332, 288),
        ('nf_regnet_b1.ra2_in1k', 79.306, 94.740, 288),
    )
}
