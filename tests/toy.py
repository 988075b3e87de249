"""A linear model on fixed numbers, as a plain mmengine config: trains in milliseconds, in any number of processes."""

import time

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS

CONFIG = """
custom_imports = dict(imports=['tests.toy'])
model = dict(type='ToyLinear')
data = dict(batch_size=2, num_workers=0, dataset=dict(type='ToyNumbers'),
            sampler=dict(type='DefaultSampler', shuffle=False))
train_dataloader = data
val_dataloader = data
test_dataloader = data
val_evaluator = dict(type='ToyError')
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
train_cfg = dict(type='nfnet_mm.TotalBatchTrainLoop', total_batch=8, lr_batch=8, max_iters=4, val_interval=4)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[2], gamma=0.1)]
default_hooks = dict(logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
                     checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2))
log_processor = dict(by_epoch=False, window_size=1)
randomness = dict(seed=0)
"""


@MODELS.register_module(force=True)
class ToyLinear(BaseModel):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.linear = torch.nn.Linear(3, 1)
        torch.nn.init.constant_(self.linear.weight, 0.5)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, inputs, data_samples, mode='tensor'):
        error = self.linear(torch.stack(inputs)).squeeze(1) - torch.stack(data_samples)
        return dict(loss=error.square().mean()) if mode == 'loss' else error


@DATASETS.register_module(force=True)
class ToyNumbers(torch.utils.data.Dataset):
    metainfo = {}

    def __init__(self, delay=0.0):
        self.delay = delay  # of each sample, in seconds
        random = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(32, 3, generator=random)
        self.targets = torch.randn(32, generator=random)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        time.sleep(self.delay)
        return dict(inputs=self.inputs[index], data_samples=self.targets[index])


@METRICS.register_module(force=True)
class ToyError(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += [float(error.abs()) for error in data_samples]

    def compute_metrics(self, results):
        return dict(error=sum(results) / len(results))
