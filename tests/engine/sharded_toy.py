"""A small classifier with SkipInit scalars, as a config that can be trained on any number of processes."""

import torch
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS

from nfnet_mm.models import NFNet
from tests import toy

CONFIG = toy.CONFIG.replace("'tests.toy'", "'tests.engine.sharded_toy'").replace('ToyLinear', 'ToyNet')
CONFIG = CONFIG.replace("dict(type='ToyNumbers')", "dict(type='ToyImages')")
CONFIG = CONFIG.replace('max_iters=4, val_interval=4', 'max_iters=10, val_interval=5')
CONFIG = CONFIG.replace('interval=2', 'interval=5').replace('milestones=[2]', 'milestones=[8]')
CONFIG += """
optim_wrapper = dict(type='nfnet_mm.AGCOptimWrapper', constructor='nfnet_mm.NFOptimWrapperConstructor',
                     agc=dict(clipping=0.05),
                     optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3))
custom_hooks = [dict(type='EMAHook', ema_type='nfnet_mm.WarmupEMA')]
"""
SHARDED = "model_wrapper_cfg = dict(type='nfnet_mm.FullyShard', min_params=2000)\n"


@MODELS.register_module(force=True)
class ToyNet(BaseModel):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        widths = dict(widths=(8, 16, 24, 32), depths=(1, 1, 2, 1), group_width=4, stem_channels=(4, 4, 4, 8))
        self.backbone = NFNet(arch=widths, out_indices=(3,))
        self.up = torch.nn.ConvTranspose2d(32, 6, 2)  # whose rows are no units
        self.fc = torch.nn.Linear(6, 3)

    def init_weights(self):
        super().init_weights()
        for p in self.parameters():
            if p.dim() == 0:  # gains of zero would leave nothing to learn
                p.data.fill_(0.5)

    def forward(self, inputs, data_samples, mode='tensor'):
        scores = self.fc(self.up(self.backbone(torch.stack(inputs))[-1]).mean((2, 3)))
        if mode == 'loss':
            return dict(loss=torch.nn.functional.cross_entropy(scores.float(), torch.stack(data_samples)))
        return list(scores.softmax(1)[:, 0])


@DATASETS.register_module(force=True)
class ToyImages(torch.utils.data.Dataset):
    metainfo = {}

    def __init__(self):
        random = torch.Generator().manual_seed(0)
        self.images = torch.randn(24, 3, 32, 32, generator=random)
        self.labels = torch.randint(3, (24,), generator=random)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return dict(inputs=self.images[index], data_samples=self.labels[index])
