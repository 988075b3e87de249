"""No score, and no further training, of a model that a checkpoint filled only in part."""
import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, List, Tuple

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from nfnet_mm.errors import UserError, some
from nfnet_mm.registry import HOOKS

from .resume import check_resumed, group_names


@HOOKS.register_module()
class StrictLoadHook(Hook):
    """Hold every checkpoint that a run loads against its model, where mmengine only logs what does not fit.

    A weight that is missing, left over or of another shape is an error, as is a dialect of weight standardisation, where
    the file says one (as converted weights do), that is not the model's: such weights would compute something else. In
    a run that is resumed, what is left over is only warned of; its settings are held against the checkpoint's, too
    (see :func:`~.resume.check_resumed`).

    Args:
        allow_missing: Warn instead, as for a checkpoint that holds more, or less, than the model by intention. One that
            holds nothing of it stays an error.

    Raises:
        UserError: The checkpoint is not of this model; one line that names the weights.
    """

    def __init__(self, allow_missing: bool = False):
        self.allow_missing = allow_missing

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['meta']['param_names'] = group_names(runner)  # for a run that resumes from it

    def after_load_checkpoint(self, runner, checkpoint: Any) -> None:
        model = runner.model
        if runner._resume and isinstance(checkpoint, Mapping):
            check_resumed(runner, checkpoint)
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        wrong, left_over = mismatches(model, checkpoint)
        if wrong or left_over:
            message = f'the checkpoint is not of this model ({type(model).__name__}): {"; ".join(wrong + left_over)}'
            # Resuming, the optimizer's state tells a parameter too many; a buffer may only come with the first forward.
            lenient = self.allow_missing or runner._resume and not wrong
            if not lenient or not _fits_anywhere(model, checkpoint):
                raise UserError(message)
            print_log(message, logger='current', level=logging.WARNING)


def mismatches(model: nn.Module, checkpoint: Any) -> Tuple[List[str], List[str]]:
    """Load what fits of a checkpoint into a model; say what is wrong with the rest, and what is left over, in phrases."""
    if not isinstance(checkpoint, Mapping):
        return [f'the file holds a {type(checkpoint).__name__}, not a dict of weights'], []
    state = checkpoint.get('state_dict', checkpoint)
    if not isinstance(state, Mapping):
        return [f'its state_dict is a {type(state).__name__}, not a dict of weights'], []
    metadata = getattr(state, '_metadata', None)  # tells modules which version of them was saved
    state = OrderedDict((key.removeprefix('module.'), value) for key, value in state.items())  # as mmengine takes it off
    state._metadata = metadata
    shapes: List[str] = []
    try:
        missing, left_over = model.load_state_dict(state, strict=False)
    except RuntimeError as error:  # torch's word on shapes; the names can still be compared
        shapes = [line.strip(' \t.') for line in str(error).splitlines()[1:]][:6]
        own = model.state_dict()
        missing, left_over = own.keys() - state.keys(), state.keys() - own.keys()
    missing = [key for key in missing if 'num_batches_tracked' not in key]  # old BatchNorms have none
    wrong = [f'{len(missing)} missing: {some(missing)}'] if missing else []
    return (wrong + shapes + _other_dialect(model, checkpoint),
            [f'{len(left_over)} left over: {some(left_over)}'] if left_over else [])


def _fits_anywhere(model: nn.Module, checkpoint: Any) -> bool:
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, Mapping) else None
    own = model.state_dict()
    return isinstance(state, Mapping) and (not own or any(key.removeprefix('module.') in own for key in state))


def _other_dialect(model: nn.Module, checkpoint: Mapping) -> List[str]:
    meta = checkpoint.get('meta')
    dialect = meta.get('dialect') if isinstance(meta, Mapping) else None
    own = {module.arch.dialect for module in model.modules() if hasattr(getattr(module, 'arch', None), 'dialect')}
    return [f"its weights were trained in the dialect {dialect!r} of weight standardisation, the model computes in "
            f'{other!r}' for other in sorted(own - {dialect})] if dialect else []

