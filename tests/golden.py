"""Reference arrays computed by the papers' authors' own modules (tests/data/*_tiny.npz), in our layout."""

from pathlib import Path

import numpy as np
import torch
from mmengine.registry import MODELS

from nfnet_mm.converters import from_deepmind

DATA = Path(__file__).parent / 'data'
# what the authors' modules were built with ("variant_patch" in each file's meta)
BACKBONES = {
    'nfnet': dict(type='nfnet_mm.NFNet', arch=dict(widths=(16, 32, 48, 48), depths=(1, 2, 2, 1), group_width=8)),
    'nf_resnet': dict(
        type='nfnet_mm.NFResNet', arch=dict(widths=(16, 32, 64, 128), depths=(1, 2, 2, 1), stem_channels=4)
    ),
    'nf_regnet': dict(type='nfnet_mm.NFRegNet', arch=dict(widths=(16, 24, 32, 48), depths=(1, 2, 2, 1), group_width=8)),
}
_RESNET = dict(widths=(16, 32, 64, 128), depths=(1, 2, 2, 1), stem_channels=4)
# the papers' baselines
BASELINES = {
    'bn_resnet': dict(type='nfnet_mm.BNResNet', arch=_RESNET),
    'bn_resnet_post': dict(type='nfnet_mm.BNResNet', arch=_RESNET, preact=False),
    'bn_seresnet': dict(type='nfnet_mm.BNResNet', arch=_RESNET, attention='se'),
    'fixup_resnet': dict(type='nfnet_mm.FixupResNet', arch=_RESNET),
    'skipinit_resnet': dict(type='nfnet_mm.SkipInitResNet', arch=_RESNET),
}
FEATURES = {'nfnet': 96, 'nf_resnet': 128, 'nf_regnet': 139}


class Golden:
    """One family's arrays: ``input`` (N, 3, H, W), ``labels``, and the trees by kind, named as our classifier's."""

    def __init__(self, family: str):
        self.family = family
        self.arrays = dict(np.load(DATA / f'{family}_tiny.npz'))
        self.input = torch.from_numpy(self.arrays['input']).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(self.arrays['labels'])

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    def tree(self, kind: str) -> dict[str, torch.Tensor]:
        """``'param'``, ``'grad'``, ``'step3'`` or ``'ema3'``; with the averages of before the step for BatchNorm."""
        return from_deepmind(self.modules(kind), self.modules('state'))

    def modules(self, kind: str) -> dict[str, dict[str, np.ndarray]]:
        """The authors' own tree, also ``'state'`` and ``'newstate'``: BatchNorm's before and after a step."""
        modules: dict[str, dict] = {}
        for key, array in self.arrays.items():
            if key.startswith(f'{kind}|'):
                _, module, name = key.split('|')
                modules.setdefault(module, {})[name] = array
        return modules

    def classifier(self, **backbone) -> torch.nn.Module:
        """The classifier of the contract with the reference parameters, in eval mode."""
        model = MODELS.build(
            dict(
                type='mmpretrain.ImageClassifier',
                backbone=dict((BACKBONES | BASELINES)[self.family], out_indices=(4,), **backbone),
                neck=dict(type='mmpretrain.GlobalAveragePooling'),
                head=dict(type='nfnet_mm.NFClsHead', num_classes=10, in_channels=FEATURES.get(self.family, 128)),
            )
        )
        model.load_state_dict(self.tree('param'))
        return model.eval()


def relative(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """Relative L2 error."""
    ours, reference = ours.detach().double(), reference.double()
    return float((ours - reference).norm() / reference.norm())
