"""What the siblings' train and test tools have options for, as changes of a config."""

from typing import Any

from mmengine import Config

from nfnet_mm.errors import UserError, check_positive
from nfnet_mm.registry import type_name

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def use_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate linearly to the batch that the devices take at once, as ``cfg.auto_scale_lr`` says.

    A config with ``TotalBatchTrainLoop`` keeps its total batch on any number of devices, and its rate with it: there
    is nothing to scale, which a line says.

    Raises:
        UserError: the config states no batch size that its rate is meant for.
    """
    train = cfg.get('train_cfg') or {}
    if type_name(train) == 'TotalBatchTrainLoop':
        total, batch = train.get('total_batch'), train.get('lr_batch')
        if batch is None:
            raise UserError(
                f'--auto-scale-lr: train_cfg.total_batch={total} is kept on any number of devices; '
                'train_cfg.lr_batch, the batch that the learning rate is meant for, would scale it, and is not set'
            )
        print(
            f'--auto-scale-lr has nothing to do: TotalBatchTrainLoop keeps the total batch of {total} on any number of '
            f'devices, and the learning rate follows it from train_cfg.lr_batch={batch}',
            flush=True,
        )
        return
    scale = cfg.get('auto_scale_lr') or {}
    if 'base_batch_size' not in scale:
        needs = 'needs auto_scale_lr=dict(base_batch_size=...) in the config'
        raise UserError(f'--auto-scale-lr {needs}: the batch, over all devices, that its learning rate is meant for')
    check_positive('auto_scale_lr.base_batch_size', scale['base_batch_size'])
    cfg.auto_scale_lr['enable'] = True


def skip_validation(cfg: Config) -> None:
    """Train without validating."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def set_loaders(cfg: Config, pin_memory: bool = True, persistent_workers: bool = True) -> None:
    """Turn off ``pin_memory`` or ``persistent_workers`` of every data loader; True leaves what the config says.

    Raises:
        UserError: workers are to persist where there are none, which torch refuses.
    """
    for key in _LOADERS:
        loader: dict[str, Any] | None = cfg.get(key)
        if loader is None:
            continue
        if not pin_memory:
            loader['pin_memory'] = False
        if not persistent_workers:
            loader['persistent_workers'] = False
        if loader.get('persistent_workers') and not loader.get('num_workers', 0):
            what = f'{key}.persistent_workers=True needs workers, and num_workers is 0'
            raise UserError(f'{what}: add --no-persistent-workers')


def use_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation, as the config's ``tta_model`` and ``tta_pipeline`` say.

    In a config of mmpretrain that has neither, scores are averaged over an image and its mirror image.

    Raises:
        UserError: another config lacks one of them.
    """
    if cfg.get('default_scope') == 'mmpretrain':
        cfg.setdefault('tta_model', dict(type='AverageClsScoreTTA'))
        *before, last = cfg.test_dataloader.dataset.pipeline
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        cfg.setdefault('tta_pipeline', [*before, dict(type='TestTimeAug', transforms=[flips, [last]])])
    if missing := [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]:
        raise UserError(f'--tta needs {" and ".join(missing)} in the config')
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def use_amp_in_test(cfg: Config) -> None:
    """Evaluate in mixed precision: by ``fp16`` of mmengine's loop, or of one that is like it."""
    cfg.test_cfg = dict(cfg.get('test_cfg') or {}, fp16=True)
