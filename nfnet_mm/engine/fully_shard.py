"""A model whose parameters, gradients and momentum are spread over the processes by PyTorch's ``fully_shard``."""

import copy
import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmengine.optim import OptimWrapper
from torch import Tensor, distributed, nn
from torch.autograd import Variable
from torch.nn.modules.conv import _ConvTransposeNd

from nfnet_mm.errors import UserError, check_positive, some
from nfnet_mm.registry import MODEL_WRAPPERS

_DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


@MODEL_WRAPPERS.register_module()
class FullyShard(nn.Module):
    """mmengine's wrapper of a model for training by ``fully_shard`` (FSDP2), where every process holds a part of it.

    The rows of each parameter are spread over all processes. A unit, such as a residual block, is put together when it
    is computed and taken apart afterwards; its gradient is the mean over the processes, as under
    ``DistributedDataParallel``. What AGC calls a unit, a row, stays whole. Kept whole on every process are scalars,
    which have no rows (SkipInit's gains), and the weights of transposed convs, whose rows are no units.

    Set it as ``model_wrapper_cfg = dict(type='nfnet_mm.FullyShard')``; ``tools/train.py`` then uses the runner that
    initialises, loads and saves such a model (:class:`~.sharded_runner.ShardedRunner`). In a run without a launcher
    nothing is sharded.

    Args:
        module: the model.
        min_params: items of ``nn.Sequential`` and ``nn.ModuleList`` become units from so many parameters on, the
            innermost first; what is left is one more.
        units: in place of that, patterns of the names of modules, such as ``('backbone.stages.*.*',)``.
        param_dtype: ``'bfloat16'`` puts the parameters together, and computes, in that; with an
            :class:`~.optim_wrapper.AmpAGCOptimWrapper` of the same type, so that losses stay in float32.
        reduce_dtype: in which gradients are averaged.

    Raises:
        UserError: an argument is none of these, or this PyTorch has no ``fully_shard`` that can leave parameters whole.
    """

    def __init__(
        self,
        module: nn.Module,
        min_params: int = 1_000_000,
        units: Sequence[str] | None = None,
        param_dtype: str | None = None,
        reduce_dtype: str = 'float32',
    ):
        super().__init__()
        _shard_function()
        self.module = module
        self.min_params = check_positive('FullyShard min_params', min_params)
        self.patterns = (units,) if isinstance(units, str) else units
        for name, dtype in (('param_dtype', param_dtype), ('reduce_dtype', reduce_dtype)):
            if dtype not in (*_DTYPES, *((None,) if name == 'param_dtype' else ())):
                raise UserError(f'FullyShard {name}={dtype!r} must be one of {", ".join(map(repr, _DTYPES))}')
        self.dtypes = dict(param_dtype=_DTYPES.get(param_dtype or ''), reduce_dtype=_DTYPES[reduce_dtype])
        self.sharded = False
        self.whole = _MeanOfWhole([])

    def shard(self) -> None:
        """Spread the parameters as they are now, on all processes together. Parameters become other objects."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy

        fully_shard = _shard_function()
        mesh = init_device_mesh(get_device(), (get_world_size(),))
        whole = kept_whole(self.module)
        empty = _skeleton(self.module)
        # as they were given to the model; a loss reads images and labels as they are
        policy = MixedPrecisionPolicy(**self.dtypes, cast_forward_inputs=self.dtypes['param_dtype'] is not None)
        how: dict[str, Any] = dict(mesh=mesh, mp_policy=policy, ignored_params=set(whole))
        for unit in self._units():
            fully_shard(unit, **how)
        fully_shard(self.module, **how, reshard_after_forward=False)
        # of a moving average, which holds the same shards; PyTorch refuses to copy its wrapped modules
        type(self.module).__deepcopy__ = _copy_of_shards  # type: ignore[attr-defined]
        vars(self.module)['_unsharded_skeleton'] = empty
        self.whole = _MeanOfWhole([p for p in whole if p.requires_grad])
        self.sharded = True

    def _units(self) -> list[nn.Module]:
        """The modules that are put together at once, inner ones first; the model itself is not among them."""
        names = dict(self.module.named_modules())
        if self.patterns is not None:
            for pattern in self.patterns:
                if not any(fnmatchcase(name, pattern) for name in names if name):
                    raise UserError(f'FullyShard units={pattern!r} matches no module; those at the top: {_top(names)}')
            chosen = [one for name, one in names.items() if name and any(fnmatchcase(name, p) for p in self.patterns)]
            return chosen[::-1]
        return list(units_of(self.module, self.min_params))

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """As that of mmengine's ``MMDistributedDataParallel``."""
        synchronised = optim_wrapper.should_sync()
        self.module.set_requires_gradient_sync(synchronised)  # type: ignore[operator]
        self.whole.active = synchronised
        with optim_wrapper.optim_context(self):
            data = self.module.data_preprocessor(data, training=True)  # type: ignore[operator]
            losses = self._run(data)
        loss, log_vars = self.module.parse_losses(losses)  # type: ignore[operator]
        optim_wrapper.update_params(loss)
        return log_vars

    def _run(self, data: Any) -> Any:
        if isinstance(data, dict):
            return self.module(**data, mode='loss')
        return self.module(*data, mode='loss')

    def val_step(self, data: Any) -> list:
        """The model's, after which its parameters are the shards again."""
        return self._without_leftovers(self.module.val_step, data)

    def test_step(self, data: Any) -> list:
        """The model's, after which its parameters are the shards again."""
        return self._without_leftovers(self.module.test_step, data)

    def _without_leftovers(self, step: Any, data: Any) -> list:
        dtype = self.dtypes['param_dtype']
        try:
            # what was kept whole is in float32
            with torch.autocast(get_device(), dtype, enabled=dtype is torch.bfloat16):
                return step(data)
        finally:
            if self.sharded:
                self.module.reshard()  # type: ignore[operator]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)


def _shard_function() -> Any:
    from torch.distributed import fsdp

    function = getattr(fsdp, 'fully_shard', None)
    if function is None or 'ignored_params' not in inspect.signature(function).parameters:
        needs = 'needs a fully_shard with ignored_params, as of PyTorch 2.7'
        raise UserError(f'FullyShard {needs}; this is {torch.__version__}: remove model_wrapper_cfg')
    return function


def _top(names: dict[str, nn.Module]) -> str:
    return some(name for name in names if name and '.' not in name)


def kept_whole(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that no rows are taken of: scalars, and the weights of transposed convs."""
    transposed = {p for m in model.modules() if isinstance(m, _ConvTransposeNd) for p in m.parameters() if p.dim() > 1}
    return [p for p in model.parameters() if p.dim() == 0 or p in transposed]


def units_of(model: nn.Module, min_params: int) -> Iterator[nn.Module]:
    """The modules that are put together at once, inner ones first.

    They are called as such, being items of a container, and share no parameter with the rest.

    >>> block = lambda: nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    >>> net = nn.ModuleDict(dict(stages=nn.ModuleList([block(), block()]), fc=nn.Linear(10, 10)))
    >>> [len(list(units_of(net, size))) for size in (100, 200, 300)]
    [4, 2, 0]
    """
    everywhere = Counter(p for _, p in model.named_parameters(remove_duplicate=False))
    taken: set[nn.Parameter] = set()
    seen: set[nn.Module] = set()

    def visit(module: nn.Module, is_item: bool) -> Iterator[nn.Module]:
        if module in seen:
            return
        seen.add(module)
        for child in module.children():
            yield from visit(child, isinstance(module, (nn.Sequential, nn.ModuleList)))
        own = Counter(p for _, p in module.named_parameters(remove_duplicate=False))
        left = [p for p in own if p not in taken]
        called = is_item and type(module).forward is not nn.ModuleList.forward
        if called and sum(p.numel() for p in left) >= min_params and all(own[p] == everywhere[p] for p in left):
            taken.update(left)
            yield module

    yield from visit(model, False)


def _skeleton(model: nn.Module) -> nn.Module:
    """A copy of a model whose parameters and buffers have shapes and no values."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device='meta'), p.requires_grad) for p in model.parameters()
    }
    memo |= {id(b): torch.empty_like(b, device='meta') for b in model.buffers()}
    return copy.deepcopy(model, memo)


def _copy_of_shards(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A deep copy of a sharded model that holds the same parts of its parameters, and cannot be computed."""
    empty = vars(model)['_unsharded_skeleton']
    own: dict[int, Any] = {}
    for kind in ('named_parameters', 'named_buffers'):
        values = dict(getattr(model, kind)(remove_duplicate=False))
        for name, place in getattr(empty, kind)(remove_duplicate=False):
            value = values[name].detach().clone()
            own.setdefault(id(place), nn.Parameter(value, place.requires_grad) if kind == 'named_parameters' else value)
    made = copy.deepcopy(empty, own)
    memo[id(model)] = made
    return made


class _MeanOfWhole:
    """Averages, at the end of each backward pass, the gradients of parameters that every process holds whole.

    What was averaged before, of accumulated batches, is the same everywhere, and stays.
    """

    def __init__(self, params: Sequence[nn.Parameter]):
        self.params, self.active, self.waiting = params, True, False
        for p in params:
            p.register_post_accumulate_grad_hook(self._arrived)

    def _arrived(self, param: Tensor) -> None:
        if self.active and not self.waiting:
            self.waiting = True
            Variable._execution_engine.queue_callback(self._average)

    @torch.no_grad()
    def _average(self) -> None:
        self.waiting = False
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params]
        mean = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(mean)
        mean /= get_world_size()
        for p, grad, part in zip(self.params, grads, mean.split([grad.numel() for grad in grads])):
            p.grad = grad.copy_(part.view_as(grad))
