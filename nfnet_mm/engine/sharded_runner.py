"""mmengine's runner of a model under :class:`~.fully_shard.FullyShard`."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import mmengine
import torch
from mmengine.device import get_device
from mmengine.dist import broadcast
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint, _load_checkpoint_to_model
from torch import Tensor, nn

from nfnet_mm.errors import UserError

from .fully_shard import FullyShard
from .sharded import is_sharded
from .sharded_checkpoint import STATE, is_sharded_checkpoint, put_back, read_tensors, write_folder


class ShardedRunner(Runner):
    """A runner that shards its model before it trains or tests, and saves and loads it in parts.

    Weights are initialised whole, then sharded, then the optimizer is built. Checkpoints are folders (see
    :mod:`~.sharded_checkpoint`) that hold what an unsharded run's file does; they, and such files, are gone on from on
    any number of processes. Where the model is not under ``FullyShard``, as in a run without a launcher, it is
    mmengine's.
    """

    def train(self) -> nn.Module:
        if isinstance(self.model, FullyShard) and not self.model.sharded:
            super()._init_model_weights()
            for value in self.model.module.state_dict().values():
                broadcast(value)
            self.model.shard()
        return super().train()

    def val(self) -> dict:
        self._shard()
        return super().val()

    def test(self) -> dict:
        self._shard()
        return super().test()

    def _shard(self) -> None:
        if isinstance(self.model, FullyShard) and not self.model.sharded:
            self.model.shard()

    def _init_model_weights(self) -> None:
        if not isinstance(self.model, FullyShard):
            super()._init_model_weights()

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        wrapper = super().build_optim_wrapper(optim_wrapper)
        if isinstance(self.model, FullyShard):
            _check_wrapper(wrapper, self.model)
        return wrapper

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Save a checkpoint, on all processes together."""
        options = dict(file_client_args=file_client_args, backend_args=backend_args, by_epoch=by_epoch)
        if not isinstance(self.model, FullyShard):
            super().save_checkpoint(
                out_dir,
                filename,
                save_optimizer=save_optimizer,
                save_param_scheduler=save_param_scheduler,
                meta=meta,
                **options,
            )
            return
        meta = dict(meta or {})
        meta.setdefault('epoch', self.epoch + by_epoch)
        meta.setdefault('iter', self.iter + (not by_epoch))
        meta.update(cfg=self.cfg.pretty_text, seed=self.seed, experiment_name=self.experiment_name)
        meta.update(time=time.strftime('%Y%m%d_%H%M%S'), mmengine_version=mmengine.__version__)
        if hasattr(self.train_dataloader.dataset, 'metainfo'):
            meta['dataset_meta'] = self.train_dataloader.dataset.metainfo
        checkpoint = dict(
            meta=meta, state_dict=self.model.module.state_dict(), message_hub=on_host(self.message_hub.state_dict())
        )
        if save_optimizer:
            checkpoint['optimizer'] = self.optim_wrapper.state_dict()
        if save_param_scheduler and self.param_schedulers is not None:
            checkpoint['param_schedulers'] = [one.state_dict() for one in self.param_schedulers]
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        write_folder(os.path.join(out_dir, filename), checkpoint)

    def load_checkpoint(
        self, filename: str, map_location: Any = 'cpu', strict: bool = False, revise_keys: list = [(r'^module.', '')]
    ) -> Any:
        """Load a folder that a sharded run wrote, or a file of a whole model, into the parts of the parameters."""
        if not isinstance(self.model, FullyShard):
            return super().load_checkpoint(filename, map_location, strict, revise_keys)
        shards = _Shards(self.model.module, self.optim_wrapper if self._resume else None)
        if is_sharded_checkpoint(filename):
            rest = _load_checkpoint(os.path.join(filename, STATE), map_location)
            ways = rest['ways']
            read = read_tensors(filename, lambda name, *one: shards.empty(ways[name], *one), alone=False)
            checkpoint: Any = put_back(rest, read)
        else:
            checkpoint = shards.spread(_load_checkpoint(filename, map_location='cpu'))
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        checkpoint = _load_checkpoint_to_model(self.model.module, checkpoint, strict, revise_keys=revise_keys)
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint


def _check_wrapper(wrapper: Any, model: FullyShard) -> None:
    """Raise a UserError for what does not go with shards."""
    if not isinstance(wrapper, OptimWrapper):
        raise UserError(f'FullyShard goes with one optimizer, not with {type(wrapper).__name__}')
    scaler = getattr(wrapper, 'loss_scaler', None)
    if scaler is not None and scaler.is_enabled():
        raise UserError(
            f"FullyShard does not go with the loss scaling of {type(wrapper).__name__}: take dtype='bfloat16', which "
            'needs none'
        )
    if wrapper.clip_grad_kwargs:
        raise UserError(f'FullyShard does not go with clip_grad={wrapper.clip_grad_kwargs}: clip by AGC alone')
    dtype = model.dtypes['param_dtype']
    if dtype is torch.bfloat16 and str(getattr(wrapper, 'cast_dtype', None)).rpartition('.')[2] != 'bfloat16':
        raise UserError(
            f"FullyShard param_dtype='bfloat16' leaves losses in bfloat16 under {type(wrapper).__name__}: take "
            "type='nfnet_mm.AmpAGCOptimWrapper' with dtype='bfloat16'"
        )


def on_host(value: Any) -> Any:
    """The same with the tensors in it, however nested, on the host."""
    if isinstance(value, Tensor):
        return value.cpu()
    if type(value) in (list, tuple):
        return type(value)(on_host(one) for one in value)
    return {key: on_host(one) for key, one in value.items()} if isinstance(value, dict) else value


class _Shards:
    """How the tensors of a checkpoint are spread over the processes: as the parameters that they are of.

    Args:
        model: the sharded one.
        wrapper: of its optimizer; None leaves the state of the optimizer out.
    """

    def __init__(self, model: nn.Module, wrapper: OptimWrapper | None):
        self.named = dict(model.named_parameters(remove_duplicate=False))
        self.with_optimizer = wrapper is not None
        groups = wrapper.optimizer.param_groups if wrapper is not None else ()
        self.numbered = [p for group in groups for p in group['params']]

    def _param(self, way: tuple) -> Tensor | None:
        if way[0] == 'optimizer':
            number = way[2]
            return self.numbered[number] if isinstance(number, int) and number < len(self.numbered) else None
        return self.named.get(str(way[1]).removeprefix('module.'))

    def empty(self, way: tuple, shape: torch.Size, dtype: torch.dtype) -> Tensor | None:
        """A tensor for what comes from there."""
        if way[0] == 'optimizer' and not self.with_optimizer:
            return None
        param = self._param(way)
        if param is not None and is_sharded(param) and param.shape == shape:
            return torch.empty_like(param.detach(), dtype=dtype)
        return torch.empty(shape, dtype=dtype, device=get_device())

    def spread(self, checkpoint: Any) -> Any:
        """A whole checkpoint with the parts of this process in the place of its tensors, in the same dicts."""
        if not isinstance(checkpoint, dict):
            return checkpoint
        if not isinstance(checkpoint.get('state_dict'), Mapping):  # weights alone
            self._spread_in(checkpoint, lambda key: ('state_dict', key))
            return checkpoint
        for root in ('state_dict', 'ema_state_dict'):
            if root in checkpoint:
                self._spread_in(checkpoint[root], lambda key: ('state_dict', key))
        if self.with_optimizer:
            for number, state in (checkpoint.get('optimizer') or {}).get('state', {}).items():
                self._spread_in(state, lambda key, number=number: ('optimizer', 'state', number, key))
        else:
            checkpoint.pop('optimizer', None)
        return checkpoint

    def _spread_in(self, values: dict, way: Callable[..., tuple]) -> None:
        from torch.distributed.tensor import distribute_tensor

        for key, value in values.items():
            param = self._param(way(key)) if isinstance(value, Tensor) else None
            if param is not None and is_sharded(param) and param.shape == value.shape:
                parts: Any = param
                values[key] = distribute_tensor(value.to(get_device()), parts.device_mesh, parts.placements)
