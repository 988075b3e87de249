"""The toy of tests/toy.py with all that is random in a training: dropout, and augmentation by all three generators."""

import random

import numpy as np
import torch
from mmengine.registry import DATASETS, MODELS

from tests import toy

CONFIG = toy.CONFIG.replace("'tests.toy'", "'tests.engine.random_toy'").replace('ToyLinear', 'ToyDropout')
CONFIG = CONFIG.replace("dict(type='ToyNumbers')", "dict(type='ToyNoise')").replace('randomness = dict(seed=0)', '')
CONFIG = CONFIG.replace("type='DefaultSampler', shuffle=False", "type='InfiniteSampler', shuffle=True")
CONFIG = CONFIG.replace(
    'val_dataloader = data\n', "val_dataloader = dict(data, sampler=dict(type='DefaultSampler', shuffle=False))\n"
)


@MODELS.register_module(force=True)
class ToyDropout(toy.ToyLinear):
    def forward(self, inputs, data_samples, mode='tensor'):
        drawn = random.random() + np.random.rand() + torch.rand(())  # in the process that trains
        inputs = [torch.nn.functional.dropout(x, 0.5, self.training) + 0.01 * drawn for x in inputs]
        return super().forward(inputs, data_samples, mode)


@DATASETS.register_module(force=True)
class ToyNoise(toy.ToyNumbers):
    def __getitem__(self, index):
        noise = torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])
        return dict(inputs=self.inputs[index] + 0.1 * noise, data_samples=self.targets[index])
