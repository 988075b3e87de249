"""Which parameters decay and which are clipped."""
import difflib
from fnmatch import fnmatchcase
from typing import Any, Dict, List, Optional

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS
from torch import Tensor, nn

from nfnet_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

_KNOWN = ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult', 'flat_decay_mult',
          'bypass_duplicate', 'dcn_offset_lr_mult', 'agc_exclude')
# The classifier of mmpretrain's heads, ours among them; it is last there and called so nowhere else.
_CLASSIFIER = 'head.fc.weight'


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NFOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Parameter groups as the authors' training code has them (NFNets, section 4.1 and Appendix A).

    No weight decay on biases, gains and SkipInit scalars, that is on any parameter of fewer than two dimensions,
    whatever other rule matches it. No AGC on the weight of an image classifier's last layer, ``head.fc.weight`` (its
    bias is clipped). Parameters with equal settings share one group, so that foreach and fused optimizers get long
    lists. Works with any optimizer wrapper; without AGC, only the groups matter.

    Args:
        optim_wrapper_cfg: as in mmengine.
        paramwise_cfg: as in mmengine's ``DefaultOptimWrapperConstructor``, and ``agc_exclude``: a name, glob or list
            of them of weights that are not clipped besides ``head.fc.weight``. In a detector nothing is excluded
            unless named here, e.g. ``'roi_head.bbox_head.fc_cls.weight'``.

    Raises:
        ValueError: an unknown key of ``paramwise_cfg``, or an ``agc_exclude`` that matches no parameter.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> wrapper = NFOptimWrapperConstructor(dict(
        ...     type='nfnet_mm.AGCOptimWrapper', optimizer=dict(type='SGD', lr=0.1, weight_decay=2e-5)))(net)
        >>> [(len(g['params']), g['weight_decay']) for g in wrapper.optimizer.param_groups]
        [(2, 2e-05), (2, 0.0)]
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: Optional[dict] = None):
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        for key in self.paramwise_cfg:
            if key not in _KNOWN:
                near = difflib.get_close_matches(key, _KNOWN, n=1)
                hint = f' Did you mean {near[0]!r}?' if near else ''
                raise ValueError(f'paramwise_cfg key {key!r} is unknown.{hint} Known: {", ".join(_KNOWN)}')
        exclude = self.paramwise_cfg.get('agc_exclude', ())
        self.agc_exclude = (exclude, ) if isinstance(exclude, str) else tuple(exclude)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        model = getattr(model, 'module', model)
        params: List[dict] = []
        self.add_params(params, model)
        optimizer = OPTIMIZERS.build(self.optimizer_cfg, default_args=dict(params=self._merged(params)))
        cfg = dict(dict(type='OptimWrapper'), **self.optim_wrapper_cfg)
        wrapper = ROOT_OPTIM_WRAPPERS.build(cfg, default_args=dict(optimizer=optimizer))
        excluded = self._excluded(model)
        if hasattr(wrapper, 'bind'):
            wrapper.bind(model, excluded)
        elif self.agc_exclude:
            raise ValueError(f'agc_exclude={self.agc_exclude} goes with an AGC wrapper, not with {type(wrapper).__name__}')
        return wrapper

    def _merged(self, params: List[dict]) -> List[dict]:
        """One group for each setting, in the order of first appearance; no decay below two dimensions."""
        merged: Dict[Any, dict] = {}
        for group in params:
            if self.base_wd is not None and group['params'][0].dim() < 2:
                group['weight_decay'] = 0.0
            options = {key: value for key, value in group.items() if key != 'params'}
            merged.setdefault(repr(sorted(options.items())), dict(params=[], **options))['params'] += group['params']
        return list(merged.values())

    def _excluded(self, model: nn.Module) -> List[Tensor]:
        named = dict(model.named_parameters())
        excluded = [named[_CLASSIFIER]] if _CLASSIFIER in named else []
        for pattern in self.agc_exclude:
            hits = [p for name, p in named.items() if fnmatchcase(name, pattern)]
            if not hits:
                near = difflib.get_close_matches(pattern, named, n=3, cutoff=0.3)
                raise ValueError(f'agc_exclude={pattern!r} matches no parameter; near ones: {", ".join(near) or "none"}')
            excluded += hits
        return excluded
