"""What others published: the papers' accuracies on ImageNet, and weights with theirs.

NFNets = Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without Normalization"; NF-ResNets = Brock
et al. 2021, "Characterizing signal propagation to close the performance gap in unnormalized ResNets".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NFNETS = dict(
    URL='https://arxiv.org/abs/2102.06171', Title='High-Performance Large-Scale Image Recognition Without Normalization'
)
_NF_RESNETS = dict(
    URL='https://arxiv.org/abs/2101.08692',
    Title='Characterizing signal propagation to close the performance gap in unnormalized ResNets',
)
PAPERS = {'NFNet': _NFNETS, 'NFResNet': _NF_RESNETS, 'NFRegNet': _NF_RESNETS}


@dataclass(frozen=True)
class Accuracy:
    """On ImageNet's validation images, in percent."""

    top1: float
    top5: float | None
    source: str


def _accuracies(source: str, rows: Mapping[str, Any]) -> dict[str, Accuracy]:
    return {name: Accuracy(*(row if isinstance(row, tuple) else (row, None)), source) for name, row in rows.items()}


# What the papers report for a recipe, by the name of its config.
PAPER_ACCURACY: Mapping[str, Accuracy] = {
    **_accuracies(
        'NFNets, Table 3',
        dict(
            nfnet_f0=(83.6, 96.8),
            nfnet_f1=(84.7, 97.1),
            nfnet_f2=(85.1, 97.3),
            nfnet_f3=(85.7, 97.5),
            nfnet_f4=(85.9, 97.6),
            nfnet_f5=(86.0, 97.6),
            nfnet_f5_sam=(86.3, 97.9),
            nfnet_f6_sam=(86.5, 97.9),
        ),
    ),
    **_accuracies(
        'NFNets, Table 4, pre-trained on JFT-300M',
        {
            f'finetune_nf_resnet{depth}_{size}px': top1
            for depth, row in (
                (50, (79.5, 80.9, 81.1)),
                (101, (81.4, 82.7, 83.2)),
                (152, (82.7, 83.6, 84.0)),
                (200, (82.9, 84.1, 84.3)),
            )
            for size, top1 in zip((224, 320, 384), row)
        },
    ),
    **_accuracies('NFNets, Table 5, pre-trained on JFT-300M', dict(finetune_nfnet_f4=89.2, finetune_nfnet_f4plus=89.2)),
    **_accuracies('NF-ResNets, Table 1', dict(nf_resnet288=79.5)),
    **_accuracies(
        'NF-ResNets, Table 2, 15 epochs',
        dict(nf_resnet50_15e_batch1024=69.9, nf_resnet50_15e_batch8=69.6, nf_resnet50_15e_batch4=69.9),
    ),
    **_accuracies(
        'NF-ResNets, Table 3, with MixUp and CutMix',
        dict(
            nf_regnet_b0=77.0,
            nf_regnet_b1=78.7,
            nf_regnet_b2=80.0,
            nf_regnet_b3=81.2,
            nf_regnet_b4=82.5,
            nf_regnet_b5=83.0,
        ),
    ),
}
# The same of the BatchNorm twins.
TWIN_ACCURACY: Mapping[str, Accuracy] = {
    **_accuracies(
        'NFNets, Table 4, pre-trained on JFT-300M',
        {
            f'finetune_bn_resnet{depth}_{size}px': top1
            for depth, row in (
                (50, (78.1, 79.6, 79.9)),
                (101, (80.8, 82.2, 82.5)),
                (152, (81.8, 83.1, 83.4)),
                (200, (81.8, 83.1, 83.5)),
            )
            for size, top1 in zip((224, 320, 384), row)
        },
    ),
    **_accuracies(
        'NF-ResNets, Table 2, 15 epochs',
        dict(bn_resnet50_15e_batch1024=70.9, bn_resnet50_15e_batch8=65.7, bn_resnet50_15e_batch4=55.7),
    ),
}


@dataclass(frozen=True)
class Weights:
    """Weights that others trained and published."""

    file: str  # DeepMind's file, or timm's name of a model and its training
    accuracy: Accuracy | None = None
    size: int | None = None  # pixels the accuracy was measured at

    @property
    def owner(self) -> str:
        return 'DeepMind' if self.file.endswith('.npz') else 'timm'


CODE = {
    'DeepMind': 'https://github.com/deepmind/deepmind-research/tree/master/nfnets',
    'timm': 'https://github.com/huggingface/pytorch-image-models',
}
# By the name of the variant whose function they were published for. Accuracies: timm, results/results-imagenet.csv.
PUBLIC_WEIGHTS: Mapping[str, Weights] = {
    **{f'F{n}': Weights(f'F{n}_haiku.npz') for n in range(7)},
    **{
        file.split('.')[0]: Weights(file, top1 and Accuracy(top1, top5, "timm's results-imagenet.csv"), size)
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
            ('test_nfnet.r160_in1k', None, None, None),
        )
    },
}
