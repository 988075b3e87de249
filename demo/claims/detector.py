"""Small detectors of digits, from random weights or from those of the classification demo."""

import os
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

from demo.digits import DigitsSpec, generate
from nfnet_mm import run

CONFIGS = Path(__file__).resolve().parent.parent / 'configs'
BACKBONES = dict(nf='nfnet_mm.NFNet', bn='nfnet_mm.BNNFNet')
PRETRAINING = 200  # iterations


class _Note(Hook):
    """Notes the box AP of each evaluation, in percent, by the iteration."""

    def __init__(self, found: dict[str, float]):
        self.found = found

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        # mmdet leaves the figure out, or has -1, where there is no box at all
        self.found[str(runner.iter)] = 100 * max(0.0, (metrics or {}).get('coco/bbox_mAP', 0.0))


def _runner(config: str, kind: str, work_dir: Path, data: Path, seed: int, options: dict[str, Any]) -> Any:
    run.use_safe_loading()
    cfg = run.load_config(str(CONFIGS / config), None, str(work_dir))
    run.use_data_root(cfg, str(data))
    loaders = {f'{split}_dataloader.num_workers': 0 for split in ('train', 'val')}
    loaders |= {f'{split}_dataloader.persistent_workers': False for split in ('train', 'val')}
    options = {'model.backbone.type': BACKBONES[kind], 'randomness.seed': seed, 'log_level': 'WARNING', **options}
    cfg.merge_from_dict({**loaders, **options})
    if kind == 'bn':  # is trained without AGC, as in the papers
        cfg.optim_wrapper.type = 'OptimWrapper'
        cfg.optim_wrapper.pop('agc')
    cfg.experiment_name = f'{work_dir.parent.name}_{work_dir.name}_{os.getpid()}'
    return run.build_runner(cfg)


def pretrained(kind: str, seed: int, quick: bool, folder: Path) -> Path:
    """The checkpoint of the classification demo, trained for a short while; kept in the folder.

    Args:
        kind: ``'nf'``, or ``'bn'`` for the same network with BatchNorm, without AGC.
        seed: of the data, the weights and their order.
        quick: three iterations.
        folder: for data and checkpoints.
    """
    work_dir = folder / f'classifier_{kind}_{seed}'
    target = work_dir / 'classifier.pth'
    if target.is_file():
        return target
    spec = dict(layout='class_folders', image_size=48, min_digit=24, max_digit=48, max_digits=1, seed=seed)
    data = generate(
        folder / f'classes_{seed}', DigitsSpec(train=32 if quick else 2000, val=8 if quick else 100, **spec)
    )
    steps = 3 if quick else PRETRAINING
    options: dict[str, Any] = {
        'train_cfg.max_iters': steps,
        'train_cfg.val_interval': 10**6,
        'train_dataloader.batch_size': 4 if quick else 32,
        'default_hooks.checkpoint.interval': 10**6,
    }
    runner = _runner('classify_nfnet_nano_digits.py', kind, work_dir, data, seed, options)
    runner.train()
    draft = work_dir / f'.classifier.{os.getpid()}.pth'
    torch.save(dict(state_dict=runner.model.state_dict(), meta={}), draft)
    draft.rename(target)
    return target


def average_precision(
    kind: str, seed: int, quick: bool, folder: Path, name: str, weights: Path | None, batch: int, steps: int
) -> dict[str, float]:
    """Train a detector; its box AP in percent after every 100 iterations, by their number.

    Args:
        kind: ``'nf'`` or ``'bn'``.
        seed: of the data, the weights and their order.
        quick: three iterations.
        folder: for data and logs.
        name: of the training.
        weights: the checkpoint of a classifier, which is all that a config needs to say to start from it.
        batch: pictures of a step.
        steps: iterations.
    """
    spec = DigitsSpec(32 if quick else 1000, 8 if quick else 100, 64, 20, 36, 2, seed)
    data = generate(folder / f'pictures_{seed}', spec)
    every, steps = (3, 3) if quick else (100, steps)
    options: dict[str, Any] = {
        'train_cfg.max_iters': steps,
        'train_cfg.val_interval': every,
        'train_dataloader.batch_size': batch,
    }
    if weights is not None:
        options['model.backbone.init_cfg'] = dict(type='nfnet_mm.NFPretrained', checkpoint=str(weights))
    runner = _runner('faster_rcnn_nfnet_nano_digits.py', kind, folder / name, data, seed, options)
    found: dict[str, float] = {}
    runner.register_hook(_Note(found))
    runner.train()
    return found
