"""Checkpoints of folded models, which say that they are folded."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nfnet_mm import __version__
from nfnet_mm.errors import write_atomically

from .fold import fold


def save_folded(model: nn.Module, path: str | os.PathLike, meta: Mapping[str, Any] | None = None) -> None:
    """Write a model's folded weights: {'state_dict', 'meta'}, of which ``meta['folded']`` is True.

    It is loaded into ``fold(model)``; a model that standardises its weights refuses it (see
    :func:`nfnet_mm.engine.strict_load.mismatches`).

    Args:
        model: with standardised convs.
        path: of the file; it is there whole or not at all.
        meta: what else to tell of it, such as ``dataset_meta``.

    Raises:
        UserError: nothing in the model is standardised, or the file cannot be written.
    """
    state = fold(model).state_dict()
    told = {**(meta or {}), 'folded': True, 'folded_by': f'nfnet_mm {__version__}'}
    content = dict(state_dict=state, meta=told)
    write_atomically(path, lambda file: torch.save(content, file))
