"""A trained network on its way out of the training script."""

from .checkpoint import save_folded
from .export import Deployed, Exported, deployed, export_model
from .fold import fold

__all__ = ['Deployed', 'Exported', 'deployed', 'export_model', 'fold', 'save_folded']
