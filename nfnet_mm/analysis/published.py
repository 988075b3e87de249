"""The papers, and the weights that others published with their accuracies."""

from collections.abc import Mapping
from dataclasses import dataclass

from nfnet_mm.models.backbones.arch import find_network
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


@dataclass(frozen=True)
class PublicWeights:
    """Weights that others trained and published."""

    file: str  # DeepMind's file, or timm's name of a model and its training
    accuracy: Accuracy | None = None
    size: int | None = None  # pixels the accuracy was measured at

    @property
    def owner(self) -> str:
        """A key of ``CODE``."""
        return 'DeepMind' if self.file.endswith('.npz') else 'timm'


# By the full name of the network whose function they were published for.
PUBLIC_WEIGHTS: Mapping[str, PublicWeights] = {
    **{f'nfnet_f{n}': PublicWeights(f'F{n}_haiku.npz') for n in range(7)},
    **{
        find_network(f'timm/{file.split(".")[0]}').name: PublicWeights(
            file, Accuracy(top1, top5, "timm's results-imagenet.csv"), size
        )
        for file, top1, top5, size in (
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
    },
    'timm/test_nfnet': PublicWeights('test_nfnet.r160_in1k'),
}
