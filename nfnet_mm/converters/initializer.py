"""Start a backbone from public weights or checkpoints, by one line of a config."""

import logging
import os
from typing import cast

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.model.weight_init import update_init_info
from torch import Tensor, nn

from nfnet_mm.errors import UserError, some
from nfnet_mm.models.backbones import NFStage
from nfnet_mm.models.backbones.plan import NFArch
from nfnet_mm.registry import WEIGHT_INITIALIZERS, type_name

from .errors import ConversionError
from .layout import method_of
from .load import Weights, load_weights
from .recognise import METHOD_NAMES, PARTS, networks_of

_FIRST = 'stem.conv0.weight'
_HEAD = 'head.fc.'


@WEIGHT_INITIALIZERS.register_module()
class NFPretrained:
    """Load DeepMind's, timm's or our weights into a backbone, a single stage or a whole classifier, strictly.

    Unlike mmengine's ``Pretrained``, a weight that is missing, left over or of another shape is an error. Only these
    parts of a file may stay unused, and the log names them: what is not of the backbone (a classifier's head, a
    detector's neck and heads), and the parts that the module was built without: the final conv and the last stages of
    a backbone, all but its own stage of an ``NFStage``.

    Args:
        checkpoint: the file (DeepMind's pickle or Orbax checkpoint, timm's ``.pth`` or ``.safetensors``, or a
            checkpoint of one of our classifiers, detectors or segmentors), its address, or the name of public weights
            (:data:`nfnet_mm.converters.PUBLIC_WEIGHTS`), which are downloaded once. None, as recipes that start from
            weights have it until they are named, keeps the random ones, and warns.
        prefix: of the backbone's keys where it is not ``'backbone.'``, or nothing, e.g. ``'teacher.backbone.'``.
        in_channels: what to do if the images have another number of channels than the weights: ``'mean'`` gives
            every channel the mean kernel, ``'cycle'`` repeats the kernels in order (RGBRGB...); by default it is an
            error. The standardisation of the weights takes care of their scale; where there is none, in a baseline,
            they are scaled by the old number of channels over the new.
        new_head: for a whole classifier: keep its head as it was initialised instead of loading it, as for
            fine-tuning with another number of classes. A backbone never takes a head.

    Raises:
        ConversionError: the file is unreadable, or does not fit the module; one line that names the keys and shapes.

    Example:
        >>> from nfnet_mm.registry import MODELS
        >>> weights = dict(type='nfnet_mm.NFPretrained', checkpoint='deepmind/f0')
        >>> MODELS.build(dict(type='nfnet_mm.NFNet', arch='nano', init_cfg=weights)).init_weights()
        Traceback (most recent call last):
        ...
        nfnet_mm.converters.errors.ReadError: 'deepmind/f0' names no public weights. Did you mean 'deepmind/F0'?
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike | None,
        prefix: str | None = None,
        in_channels: str | None = None,
        new_head: bool = False,
    ):
        if in_channels not in (None, 'mean', 'cycle'):
            raise UserError(f"in_channels={in_channels!r} must be 'mean', 'cycle' or None")
        self.checkpoint, self.prefix, self.in_channels, self.new_head = checkpoint, prefix, in_channels, new_head

    def __call__(self, module: nn.Module) -> None:
        if self.checkpoint is None:
            print_log(
                f'{type(module).__name__} starts from RANDOM weights, though its recipe starts from trained ones: set '
                'weights in the config, or --cfg-options weights=FILE',
                logger='current',
                level=logging.WARNING,
            )
            return
        self._check_last(module)
        self._check_host(module)
        weights = load_weights(self.checkpoint, self.prefix)
        state, unused = self.fit(module, weights)
        module.load_state_dict(state, strict=False)  # held against each other just now, but for a new head
        self._report(module, weights, _arch(module), len(state), unused)
        if _is_classifier(module):
            # mmengine initialises children after their parent, over what was loaded, unless they count as done.
            for child in module.children():
                if isinstance(child, BaseModule) and not (self.new_head and child is module.head):
                    child.is_init = True

    def fit(self, module: nn.Module, weights: Weights) -> tuple[dict[str, Tensor], list[str]]:
        """What a module, which may be on the meta device, takes of weights, and the names of what it does not take.

        Raises:
            ConversionError: they do not fit the module.
        """
        whole, target = _is_classifier(module), module.state_dict()
        head = whole and not self.new_head
        own = 'backbone.' if whole else ''  # what the backbone's keys begin with in the module
        target = {k: v for k, v in target.items() if head or not k.startswith(_HEAD)}
        wanted = ('backbone.', _HEAD) if head else 'backbone.'
        absent = tuple(own + part for part in PARTS if not any(key.startswith(own + part) for key in target))
        state, unused = {}, []
        for name, value in weights.state_dict.items():
            key = name if whole else name.removeprefix('backbone.')
            if name.startswith(wanted) and not key.startswith(absent):
                state[key] = value
            else:
                unused.append(name)
        arch = _arch(module)
        if self.in_channels and (first := own + _FIRST) in state:
            state[first] = self._with_channels(state[first], target[first].shape[1], arch.method == 'nf')
        self._check(weights, arch, state, target)
        return state, unused

    def _check_host(self, module: nn.Module) -> None:
        if not _is_classifier(module) and _FIRST not in module.state_dict() and not isinstance(module, NFStage):
            what = f'{type(module).__name__} is neither a backbone of nfnet_mm nor a classifier with one'
            raise ConversionError(f'{what}: put init_cfg into the config of the backbone')

    def _check_last(self, module: nn.Module) -> None:
        """Of several initialisations mmengine runs only its own ``Pretrained`` last, whatever their order."""
        cfgs = getattr(module, 'init_cfg', None)
        kinds = [type_name(cfg) for cfg in cfgs] if isinstance(cfgs, (list, tuple)) else []
        own = type(self).__name__
        if own in kinds and any(kind not in (own, 'Pretrained') for kind in kinds[kinds.index(own) :]):
            after = f'what comes after {own} would overwrite the weights that it loads; put it last'
            raise ConversionError(f'init_cfg of {type(module).__name__} lists {", ".join(kinds)}: {after}')

    def _report(self, module: nn.Module, weights: Weights, arch: NFArch, taken: int, unused: list[str]) -> None:
        other = arch.method == 'nf' and weights.dialect != arch.dialect
        dialect = f' (dialect {weights.dialect})' if arch.method == 'nf' else ''
        source = f'{weights.source}{dialect} from {str(self.checkpoint)!r}'
        said = f'{type(module).__name__}: took {taken} weights of {source}'
        if unused:
            said += f'; left {len(unused)} in the file: {some(unused)}'
        if weights.foreign:
            said += f'; passed over {len(weights.foreign)} that are not of {self.prefix!r}: {some(weights.foreign)}'
        if other:
            said += f'; the backbone computes in the dialect {arch.dialect}'
        print_log(said, logger='current', level=logging.WARNING if other else logging.INFO)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'NFPretrained: load from {self.checkpoint}')

    def _with_channels(self, kernel: Tensor, channels: int, standardised: bool) -> Tensor:
        """The first conv (O,I,k,k) with as many input channels as the module has."""
        if kernel.shape[1] == channels:
            return kernel
        scale = 1.0 if standardised else kernel.shape[1] / channels
        if self.in_channels == 'mean':
            return scale * kernel.mean(1, keepdim=True).expand(-1, channels, -1, -1)
        return scale * kernel[:, torch.arange(channels) % kernel.shape[1]]

    def _check(self, weights: Weights, arch: NFArch, state: dict[str, Tensor], target: dict[str, Tensor]) -> None:
        missing, left_over = target.keys() - state.keys(), state.keys() - target.keys()
        method = method_of(k for k in weights.state_dict if k.startswith('backbone.'))  # not a detector's neck
        told = [f'it holds {METHOD_NAMES[method]}, not {METHOD_NAMES[arch.method]}'] if method != arch.method else []
        told += [f'{len(missing)} missing in the file: {some(missing)}'] if missing else []
        told += [f'{len(left_over)} left over: {some(left_over)}'] if left_over else []
        told += [
            f'{k} has shape {tuple(state[k].shape)} in the file, {tuple(v.shape)} in the model{_hint(k)}'
            for k, v in target.items()
            if k in state and state[k].shape != v.shape
        ][:6]
        if told:
            known = [network.name for network in networks_of(weights) if network.arch != arch]
            told += [f'it is of {" or ".join(known)}'] if known else []
            raise ConversionError(f'{str(self.checkpoint)!r} does not fit the model: {"; ".join(told)}')


def _is_classifier(module: nn.Module) -> bool:
    return f'backbone.{_FIRST}' in module.state_dict()


def _arch(module: nn.Module) -> NFArch:
    return cast(NFArch, module.get_submodule('backbone' if _is_classifier(module) else '').arch)


def _hint(key: str) -> str:
    if key.endswith(_FIRST):
        return " (in_channels='mean' or 'cycle' adapts input channels)"
    return ' (new_head=True keeps the new head)' if key.startswith(_HEAD) else ''
