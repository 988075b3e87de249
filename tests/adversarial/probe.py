"""A small classifier that can be given whatever people's models have, its data, and an mmengine runner around it."""

import math

import torch
import torch.nn.functional as F
from mmengine import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.checkpoint import checkpoint

from nfnet_mm.engine.finite import FiniteWeightsHook
from nfnet_mm.models import NFNet

SIZE, CLASSES = 16, 5
ARCH = dict(widths=(8, 8, 8, 12), depths=(1, 1, 1, 1), group_width=4, stem_channels=(4, 4, 4, 8))


@MODELS.register_module(force=True)
class Probe(BaseModel):
    """What ``extras`` names is added: see the branches below."""

    def __init__(self, extras=(), channels=3, data_preprocessor=None):
        super().__init__(data_preprocessor)
        torch.manual_seed(0)
        self.extras = extras
        self.backbone = NFNet(
            ARCH,
            in_channels=channels,
            out_indices=(4,),
            frozen_stages=2 if 'frozen' in extras else -1,
            drop_path_rate=0.5 if 'drops' in extras else 0.0,
        )
        for block in self.backbone.modules():
            if hasattr(block, 'skip_gain'):
                nn.init.constant_(block.skip_gain, 0.5)  # every branch counts
        self.mix = nn.Conv2d(24, 24, 1)
        if 'tied' in extras:
            self.levels = nn.ModuleList([nn.Sequential(self.mix), nn.Sequential(self.mix)])
        if 'transposed' in extras:
            self.up = nn.ConvTranspose2d(24, 24, 2, 2)
        if 'norm' in extras:
            self.norm = nn.BatchNorm2d(24, eps=0.1)  # of two samples, a small eps would amplify rounding
        if 'unused' in extras:
            self.unused = nn.Linear(3, 3)
        if 'empty' in extras:
            self.none = nn.Parameter(torch.zeros(0, 3))
        self.head = nn.Module()
        self.head.fc = nn.Linear(24, CLASSES)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        inputs = torch.stack(inputs) if isinstance(inputs, (list, tuple)) else inputs
        labels = torch.stack(list(data_samples)) if isinstance(data_samples, (list, tuple)) else data_samples
        if 'buffer' in self.extras and not hasattr(self, 'seen'):
            self.register_buffer('seen', torch.zeros(3))
        x = self.backbone(inputs)[0]
        for mix in self.levels if 'tied' in self.extras else [self.mix]:
            x = checkpoint(mix, x, use_reentrant=True) if 'reentrant' in self.extras else mix(x)
        if 'transposed' in self.extras:
            x = self.up(x)
        if 'norm' in self.extras:
            x = self.norm(x)
        pooled = x.mean((2, 3))
        if 'drops' in self.extras:
            pooled = F.dropout(pooled, 0.3, self.training)
        logits = self.head.fc(pooled)
        losses = dict(loss=F.cross_entropy(logits.float(), labels))
        if 'losses' in self.extras:
            losses.update(loss_size=0.1 * logits.float().square().mean(), accuracy=(logits.argmax(1) == labels).float())
        return losses if mode == 'loss' else logits


@DATASETS.register_module(force=True)
class ProbeData(torch.utils.data.Dataset):
    """Random pictures; in the order in which one process sees the batches of ``replicas`` ones, each of ``batch``."""

    metainfo: dict = {}

    def __init__(self, channels=3, samples=48, replicas=1, batch=1):
        random = torch.Generator().manual_seed(1)
        self.inputs = torch.randn(samples, channels, SIZE, SIZE, generator=random)
        self.labels = torch.arange(samples) % CLASSES
        # process r of W has the samples r, W + r, 2 W + r, ... : (round, process, sample) instead of (..., process)
        order = torch.arange(samples).view(-1, batch, replicas).transpose(1, 2).flatten()
        self.inputs, self.labels = self.inputs[order], self.labels[order]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return dict(inputs=self.inputs[index], data_samples=self.labels[index])


@HOOKS.register_module(force=True)
class Draws(Hook):
    """Write down the state of the random number generator before each iteration, a file for each process."""

    def __init__(self):
        self.states = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.states.append(torch.get_rng_state())

    def after_train(self, runner):
        torch.save(self.states, f'{runner.work_dir}/draws_{get_rank()}.pth')


@HOOKS.register_module(force=True)
class Spoil(Hook):
    """Make a value of the batches of some iterations not finite, on one process; check the weights after each."""

    def __init__(self, at=(), rank=0, value=math.nan):
        self.at, self.rank, self.value = at, rank, value

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 in self.at and runner.rank == self.rank:
            data_batch['inputs'] = [x.clone() for x in data_batch['inputs']]
            data_batch['inputs'][-1].view(-1)[0] = self.value

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        assert all(p.isfinite().all() for p in runner.model.parameters())


def config(work_dir, model, wrapper, batch=4, total=8, updates=3, hooks=(), channels=3, collate='pseudo_collate'):
    loader = dict(
        batch_size=batch,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='ProbeData', channels=channels),
        collate_fn=dict(type=collate),
    )
    return dict(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader,
        optim_wrapper=wrapper,
        custom_hooks=list(hooks),
        train_cfg=dict(type='nfnet_mm.TotalBatchTrainLoop', total_batch=total, lr_batch=total, max_iters=updates),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1),
            logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
        ),
        log_processor=dict(by_epoch=False, window_size=1),
        randomness=dict(seed=0),
        default_scope='mmengine',
        experiment_name=str(work_dir).replace('/', '_'),
        log_level='WARNING',
    )


def run(cfg):
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def run_in_group(cfg, **more):
    """The same as one of several processes on CPUs, with changes by dotted key.

    Returns: the weights, and how many steps were left out.
    """
    extras = cfg['model'].get('extras', ())
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    wrapper['find_unused_parameters'] = bool({'unused', 'empty'} & set(extras))
    cfg = Config(dict(cfg, launcher='pytorch', model_wrapper_cfg=wrapper))
    cfg.merge_from_dict(more)
    runner = run(cfg)
    skipped = [one.skipped for one in runner.hooks if isinstance(one, FiniteWeightsHook)]
    skipped += [getattr(runner.optim_wrapper, 'skipped_steps', 0)]
    return dict(weights={name: p.detach().numpy() for name, p in runner.model.named_parameters()}, skipped=sum(skipped))


def updates_of(count, batch=4, total=8, replicas=1, channels=3, as_lists=True):
    """The batches that mmengine's sampler deals out: [update][replica][micro-batch]."""
    data = ProbeData(channels)
    streams = [[i % len(data) for i in range(rank, 4 * len(data), replicas)] for rank in range(replicas)]
    each = total // replicas // batch
    out = []
    for u in range(count):
        update = []
        for stream in streams:
            update.append([])
            for part in range(each):
                at = (u * each + part) * batch
                items = [data[i] for i in stream[at : at + batch]]
                batch_of = {key: [item[key] for item in items] for key in items[0]}
                update[-1].append(batch_of if as_lists else {k: torch.stack(v) for k, v in batch_of.items()})
        out.append(update)
    return out
