"""Checkpoints of folded models, as :func:`nfnet_mm.deploy.save_folded` writes them."""

from collections.abc import Mapping
from typing import Any

FOLDED = (
    'it is folded: its weights are standardised already, and the model would do it again, or train them. '
    'Take the checkpoint that it was written from'
)


def is_folded(checkpoint: Any) -> bool:
    """Whether a checkpoint says that it holds a folded model's weights."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    return isinstance(meta, Mapping) and meta.get('folded') is True
