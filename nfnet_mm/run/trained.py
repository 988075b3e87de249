"""A config's model with the weights of a checkpoint, outside of a run."""

from typing import Any

from mmengine import Config
from mmengine.registry import init_default_scope
from torch import nn

from nfnet_mm.converters.formats.read import read_weights
from nfnet_mm.converters.hub import local_file
from nfnet_mm.converters.recognise import is_run_checkpoint
from nfnet_mm.deploy import fold
from nfnet_mm.engine.folded_checkpoint import is_folded
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
    content = None if checkpoint is None else read_trained(cfg, checkpoint)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = MODELS.build(without_initial_weights(cfg).model).eval()
    if content is None:
        return model, {}
    return fill(model, content, checkpoint), dict(content.get('meta') or {})


def read_trained(cfg: Config, checkpoint: str) -> dict[str, Any]:
    """The weights of a run's checkpoint, or of public ones, and what is told of them: {'state_dict', 'meta'}.

    Raises:
        UserError: there is no such checkpoint, or it cannot be read.
    """
    path = local_file(checkpoint, 'checkpoint')
    if not is_run_checkpoint(path):
        return read_public_weights(cfg, path)
    weights = read_weights(path)
    return dict(state_dict=weights.state_dict or {}, meta=weights.meta)


def without_initial_weights(cfg: Config) -> Config:
    """A copy whose backbone is not read from a file first: all of the model comes from the checkpoint.

    Raises:
        UserError: the config has no model.
    """
    if not isinstance(cfg.get('model'), dict):
        raise UserError(f'the config has no model: model={cfg.get("model")!r}')
    cfg = Config(cfg.to_dict())
    if isinstance(cfg.model.get('backbone'), dict):
        cfg.model.backbone.pop('init_cfg', None)
    return cfg


def fill(model: nn.Module, content: dict[str, Any], checkpoint: str | None) -> nn.Module:
    """The model with weights that were read; of a folded checkpoint the folded model.

    Raises:
        UserError: they are not the model's, whole.
    """
    if is_folded(content):
        model = fold(model)
    wrong, left_over, _ = mismatches(model, content)
    if wrong or left_over:
        raise UserError(f'checkpoint {checkpoint!r} is not of this model: {"; ".join(wrong + left_over)}')
    return model
