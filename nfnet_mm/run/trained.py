"""A config's model with the weights of a checkpoint, outside of a run."""

from typing import Any

from mmengine import Config
from mmengine.registry import init_default_scope
from torch import nn

from nfnet_mm.converters.formats.read import read_weights
from nfnet_mm.converters.hub import local_file
from nfnet_mm.converters.recognise import is_run_checkpoint
from nfnet_mm.deploy import fold
from nfnet_mm.engine.strict_load import mismatches
from nfnet_mm.errors import UserError
from nfnet_mm.registry import MODELS

from .public_weights import read_public_weights


def load_trained(cfg: Config, checkpoint: str | None) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a config in evaluation, and what its checkpoint tells of it.

    Args:
        cfg: a config of any framework.
        checkpoint: file, address or name of its weights; nothing in it is run. None: random weights.

    Raises:
        UserError: the config has no model, or the checkpoint is not its model's, whole.
    """
    if not isinstance(cfg.get('model'), dict):
        raise UserError(f'the config has no model: model={cfg.get("model")!r}')
    content = None if checkpoint is None else _read(cfg, local_file(checkpoint, 'checkpoint'))
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    part = Config(dict(model=cfg.model)).model  # a copy
    if isinstance(part.get('backbone'), dict):
        part.backbone.pop('init_cfg', None)  # all of the model comes from the checkpoint
    model = MODELS.build(part).eval()
    if ((content or {}).get('meta') or {}).get('folded') is True:
        model = fold(model)
    if content is None:
        return model, {}
    wrong, left_over, _ = mismatches(model, content)
    if wrong or left_over:
        raise UserError(f'checkpoint {checkpoint!r} is not of this model: {"; ".join(wrong + left_over)}')
    return model, dict(content.get('meta') or {})


def _read(cfg: Config, path: str) -> dict[str, Any]:
    """The weights of a run's checkpoint, or of a file of public ones, and what is told of them."""
    if not is_run_checkpoint(path):
        return read_public_weights(cfg, path)
    weights = read_weights(path)
    return dict(state_dict=weights.state_dict or {}, meta=weights.meta)
