"""Refuse a checkpoint that fills only a part of the model, before it is scored or trained further."""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.module import _IncompatibleKeys

from nfnet_mm.errors import UserError, some
from nfnet_mm.registry import HOOKS

from .folded_checkpoint import FOLDED, is_folded
from .resume import ResumeHook


@HOOKS.register_module()
class StrictLoadHook(ResumeHook):
    """Hold every checkpoint that a run loads against its model, where mmengine only logs what does not fit.

    A weight that is missing, left over or of another shape is an error, as is a dialect of weight standardisation,
    where the file says one (as converted weights do), that is not the model's: such weights would compute something
    else. In a run that is resumed, what is left over is only warned of; its settings are held against the
    checkpoint's, too (see :func:`~.resume.check_resumed`).

    Args:
        allow_missing: warn instead, as for a checkpoint that holds more, or less, than the model by intention. One that
            holds nothing of it stays an error.

    Raises:
        UserError: the checkpoint is not of this model; one line that names the weights.
    """

    def __init__(self, allow_missing: bool = False):
        super().__init__()
        self.allow_missing = allow_missing

    def after_load_checkpoint(self, runner: Runner, checkpoint: Any) -> None:
        """Hold a checkpoint's weights against the model.

        Raises:
            UserError: weights that are missing, left over or of another shape.
        """
        super().after_load_checkpoint(runner, checkpoint)
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.get_submodule('module')
        wrong, left_over, fits = mismatches(model, checkpoint)
        if wrong or left_over:
            message = f'the checkpoint is not of this model ({type(model).__name__}): {"; ".join(wrong + left_over)}'
            if not fits:
                raise UserError(message)
            # Resuming, the optimizer's state tells a parameter too many; a buffer may only come with the first forward.
            if not self.allow_missing and (wrong or not runner._resume):
                how = 'allow_missing=True (--allow-missing of tools/test.py) warns instead'
                raise UserError(f'{message}. Where that is as it should be, {how}')
            print_log(message, 'current', logging.WARNING)


def mismatches(model: nn.Module, checkpoint: Any) -> tuple[list[str], list[str], bool]:
    """Load what fits of a checkpoint into a model.

    Returns: what is wrong with the rest and what is left over, in phrases, and whether anything fits.
    """
    if not isinstance(checkpoint, Mapping):
        return [f'the file holds a {type(checkpoint).__name__}, not a dict of weights'], [], False
    state = checkpoint.get('state_dict', checkpoint)
    if not isinstance(state, Mapping):
        return [f'its state_dict is a {type(state).__name__}, not a dict of weights'], [], False
    if is_folded(checkpoint) and not _is_folded_model(model):
        return [FOLDED], [], False
    metadata = getattr(state, '_metadata', None) or {}  # tells modules which version of them was saved
    # without the prefix that mmengine, too, takes off
    state = OrderedDict((key.removeprefix('module.'), value) for key, value in state.items())
    found: tuple[list[str], list[str], list[str]] = ([], [], [])
    _load(model, state, metadata, '', *found)
    missing, left_over, shapes = found
    own = len(model.state_dict())
    loaded = own - len(missing) - len(shapes)
    missing = [key for key in missing if 'num_batches_tracked' not in key]  # old BatchNorms have none
    wrong = [f'{len(missing)} missing: {some(missing)}'] if missing else []
    return (
        wrong + [shape.strip(' \t.') for shape in shapes[:6]] + _other_dialect(model, checkpoint),
        [f'{len(left_over)} left over: {some(left_over)}'] if left_over else [],
        loaded > 0 or not own,
    )


def _is_folded_model(model: nn.Module) -> bool:
    # by its name: what deploys a model is above this
    return any(type(module).__name__ == 'FoldedConv2d' for module in model.modules())


def _load(module: nn.Module, state: dict[str, Any], metadata: Mapping, prefix: str, *found: list[str]) -> None:
    """``load_state_dict`` with its modules' own hooks, which goes on where a shape differs."""
    module._load_from_state_dict(state, prefix, metadata.get(prefix[:-1], {}), True, *found)
    for name, child in module._modules.items():  # also a shared one under each of its names
        if child is not None:
            inside = f'{prefix}{name}.'
            own = {key: value for key, value in state.items() if key.startswith(inside)}
            _load(child, own, metadata, inside, *found)
    for hook in module._load_state_dict_post_hooks.values():
        hook(module, _IncompatibleKeys(*found[:2]))


def _other_dialect(model: nn.Module, checkpoint: Mapping) -> list[str]:
    meta = checkpoint.get('meta')
    dialect = meta.get('dialect') if isinstance(meta, Mapping) else None
    own: set[Any] = {getattr(getattr(module, 'arch', None), 'dialect', None) for module in model.modules()}
    return [
        f'its weights were trained in the dialect {dialect!r} of weight standardisation, the model computes in {one!r}'
        for one in sorted(own - {dialect, None})
        if dialect
    ]
