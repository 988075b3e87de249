"""Which parameters decay and which are clipped."""

import difflib
import inspect
import logging
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn

from nfnet_mm.errors import UserError, did_you_mean, some
from nfnet_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .bfloat16 import keep_boxes_in_float32
from .fused import can_be_fused, make_safe
from .optim_wrapper import AGCOptimWrapper

_MULTIPLIERS = ('bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult', 'flat_decay_mult')
_KNOWN = ('custom_keys', *_MULTIPLIERS, 'bypass_duplicate', 'dcn_offset_lr_mult', 'agc_exclude', 'agc_last_layers')
# A plain classifier's last weight; it is called so nowhere else.
_CLASSIFIER = 'head.fc.weight'
# The bases of mmpretrain's classification heads, by name, since this package must not import them here.
_HEADS = ('ClsHead', 'MultiLabelClsHead')
# Those with several last layers beside each other: what these are called.
_PARALLEL = {
    'CSRAClsHead': 'csra_heads.*.head.weight',
    'ConformerHead': '*_cls_head.weight',
    'DeiTClsHead': 'layers.head*.weight',
    'EfficientFormerClsHead': '*head.weight',
    'LeViTClsHead': 'head*.linear.weight',
}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NFOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Parameter groups as the authors' training code has them (NFNets, section 4.1 and Appendix A).

    No weight decay on biases, gains and SkipInit scalars, that is on any parameter of fewer than two dimensions,
    whatever other rule matches it and whatever the optimizer's own default is; nor mmpretrain's LARS, which would keep
    a SkipInit scalar near the zero that it starts from, for its steps are in proportion to the parameter. No AGC on the
    weight of an image classifier's last layer: ``head.fc.weight``, and the last weights of every classification head of
    mmpretrain (their biases are clipped); the log names them. A parameter that several modules share is stepped and
    clipped once. Parameters with equal settings share one group, so that foreach and fused optimizers get long lists;
    frozen ones are in them too, should they be unfrozen later. torch's SGD, Adam and AdamW are its fused ones where the
    machine has these and the config states neither ``fused`` nor ``foreach``. Works with any optimizer wrapper; without
    AGC, only the groups matter.

    Args:
        optim_wrapper_cfg: as in mmengine.
        paramwise_cfg: as in mmengine's ``DefaultOptimWrapperConstructor``, and ``agc_exclude``: a name, glob or list
            of them of weights that are not clipped besides the classifier's. In a detector nothing is excluded unless
            named here, e.g. ``'roi_head.bbox_head.fc_cls.weight'``. ``agc_last_layers=True`` clips the last weights of
            an image classifier too, which the paper found to be worse (NFNets, section 4.1).

    Raises:
        ValueError: an unknown key of ``paramwise_cfg``, an ``agc_exclude`` that matches no parameter, or a shared
            parameter that gets different settings under its names (``bypass_duplicate=True`` takes the first).

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> wrapper = NFOptimWrapperConstructor(dict(
        ...     type='nfnet_mm.AGCOptimWrapper', optimizer=dict(type='SGD', lr=0.1, weight_decay=2e-5)))(net)
        >>> [(len(g['params']), g['weight_decay']) for g in wrapper.optimizer.param_groups]
        [(2, 2e-05), (2, 0.0)]
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        for key in self.paramwise_cfg:
            if key not in _KNOWN:
                hint = did_you_mean(key, _KNOWN)
                raise UserError(f'paramwise_cfg key {key!r} is unknown.{hint} Known: {", ".join(_KNOWN)}')
        exclude = self.paramwise_cfg.get('agc_exclude', ())
        self.agc_exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude or ())
        self.agc_last_layers = self.paramwise_cfg.get('agc_last_layers', False)
        if not isinstance(self.agc_last_layers, bool):
            raise UserError(f'paramwise_cfg.agc_last_layers={self.agc_last_layers!r} must be True or False')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = model.get_submodule('module') if is_model_wrapper(model) else model
        self._say_unmatched(model)
        params: list[dict] = []
        frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
        for p in frozen:
            p.requires_grad_(True)  # mmengine's constructor passes over the others
        try:
            self.add_params(params, model)
        finally:
            for p in frozen:
                p.requires_grad_(False)
        options = dict(self.optimizer_cfg)
        if can_be_fused(self._optimizer(), options, model):
            options['fused'] = True
        optimizer = OPTIMIZERS.build(options, default_args=dict(params=self._merged(params, model)))
        make_safe(optimizer)
        cfg = dict(dict(type='OptimWrapper'), **self.optim_wrapper_cfg)
        wrapper = ROOT_OPTIM_WRAPPERS.build(cfg, default_args=dict(optimizer=optimizer))
        if frozen:
            where = ', '.join(frozen_parts(model))
            every = sum(1 for _ in model.parameters())
            print_log(f'{len(frozen)} of {every} parameters are frozen: {where}', 'current')
        excluded = self._excluded(model)
        if isinstance(wrapper, AGCOptimWrapper):
            wrapper.bind(model, excluded.values())
            but = f' but {some(excluded, limit=12)}'
            none = ', the last layers too: paramwise_cfg.agc_exclude names exceptions'
            print_log(f'AGC clips every weight{but if excluded else none}', 'current')
        elif self.agc_exclude:
            kind = type(wrapper).__name__
            raise UserError(f'agc_exclude={self.agc_exclude} goes with an AGC wrapper, not with {kind}')
        elif getattr(wrapper, 'cast_dtype', None) is torch.bfloat16:
            keep_boxes_in_float32(model)
        return wrapper

    def _say_unmatched(self, model: nn.Module) -> None:
        """Warn of ``custom_keys`` that match no parameter: most were written for another network's names."""
        names = [name for name, _ in _visited(model)]
        for key in self.paramwise_cfg.get('custom_keys', {}):
            if not any(key in name for name in names):
                message = f'paramwise_cfg.custom_keys {key!r} matches no parameter of {type(model).__name__}'
                print_log(message, 'current', logging.WARNING)

    def _merged(self, params: list[dict], model: nn.Module) -> list[dict]:
        """One group for each setting, in the order of first appearance; each parameter once."""
        kind = self._optimizer()
        takes = inspect.signature(kind).parameters.values() if kind else ()
        decays = any(p.name == 'weight_decay' or p.kind is p.VAR_KEYWORD for p in takes)  # given or by its own default
        scales = getattr(kind, '__name__', None) == 'LARS'
        merged: dict[Any, dict] = {}
        seen: dict[Tensor, dict] = {}
        for group in params:
            (param,) = group['params']
            if decays and param.dim() < 2:
                group['weight_decay'] = 0.0
            if scales and param.dim() < 2:
                group['lars_exclude'] = True
            options = {key: value for key, value in group.items() if key != 'params'}
            if param in seen:
                self._check_same(param, seen[param], options, model)
            else:
                seen[param] = options
                merged.setdefault(repr(sorted(options.items())), dict(params=[], **options))['params'].append(param)
        return list(merged.values())

    def _optimizer(self) -> Callable | None:
        kind = self.optimizer_cfg.get('type')
        if not isinstance(kind, str):
            return kind
        with OPTIMIZERS.switch_scope_and_registry(None) as registry:  # that of the config's framework
            return registry.get(kind)  # None: refused when it is built

    def _check_same(self, param: Tensor, first: dict, other: dict, model: nn.Module) -> None:
        """Raise UserError unless a shared parameter has the same settings under each of its names."""
        for key in sorted({*first, *other} - {'lr_mult', 'decay_mult'}):  # what these did is in lr and weight_decay
            values = [options.get(key, self.optimizer_cfg.get(key)) for options in (first, other)]
            if values[0] != values[1]:
                names = [name.lstrip('.') for name, p in _visited(model) if p is param]
                raise UserError(
                    f'{" and ".join(names)} are one shared parameter, but paramwise_cfg gives it two '
                    f'values of {key}: {values[0]} and {values[1]}. Give its names the same, or set '
                    'paramwise_cfg.bypass_duplicate=True to take the first'
                )

    def _excluded(self, model: nn.Module) -> dict[str, Tensor]:
        named: dict[str, Tensor] = dict(model.named_parameters())
        excluded = {}
        if not self.agc_last_layers:
            excluded = {_CLASSIFIER: named[_CLASSIFIER]} if _CLASSIFIER in named else {}
            excluded.update(last_weights(model))
        for pattern in self.agc_exclude:
            hits = {name: p for name, p in model.named_parameters(remove_duplicate=False) if fnmatchcase(name, pattern)}
            if not hits:
                near = ', '.join(difflib.get_close_matches(pattern, named, n=3, cutoff=0.3))
                raise UserError(f'agc_exclude={pattern!r} matches no parameter; near ones: {near or "none"}')
            excluded.update(hits)
        return excluded


def _visited(module: nn.Module, prefix: str = '') -> Iterator[tuple[str, Tensor]]:
    """(name, parameter) as mmengine's constructor visits them: shared ones under several names, '.name' at the top."""
    for name, param in module.named_parameters(recurse=False):
        yield f'{prefix}.{name}', param
    for name, child in module.named_children():
        yield from _visited(child, f'{prefix}.{name}' if prefix else name)


def frozen_parts(module: nn.Module, name: str = '') -> Iterator[str]:
    """The names of the largest modules whose parameters are all frozen, and of frozen parameters in others.

    >>> net = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    >>> net[0].requires_grad_(False), net[1].bias.requires_grad_(False)  # doctest: +ELLIPSIS
    (...)
    >>> list(frozen_parts(net))
    ['0', '1.bias']
    """
    trained = [p.requires_grad for p in module.parameters()]
    if trained and not any(trained):
        yield name or 'the whole model'
        return
    for key, param in module.named_parameters(prefix=name, recurse=False):
        if not param.requires_grad:
            yield key
    for key, child in module.named_children():
        yield from frozen_parts(child, f'{name}.{key}'.lstrip('.'))


def last_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, weight) of the last layers of every classification head of mmpretrain in a model.

    Those of heads with several beside each other are in a table. In the others a weight is a hidden layer's if a later
    one could read its output, by their shapes.
    """
    for path, head in model.named_modules():
        bases = [base for base in type(head).__mro__ if base.__module__.startswith('mmpretrain.')]
        if not any(base.__name__ in _HEADS for base in bases):
            continue
        weights = [(name, p) for name, p in head.named_parameters(prefix=path) if p.dim() > 1]
        known = next((_PARALLEL[base.__name__] for base in bases if base.__name__ in _PARALLEL), None)
        for i, (name, weight) in enumerate(weights):
            read_later = any(later.shape[1] == weight.shape[0] for _, later in weights[i + 1 :])
            if fnmatchcase(name.removeprefix(f'{path}.'), known) if known else not read_later:
                yield name, weight
