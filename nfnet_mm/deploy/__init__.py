"""A trained network on its way out of the training script."""

from .export import Deployed, Exported, deployed, export_model
from .fold import fold

__all__ = ['Deployed', 'Exported', 'deployed', 'export_model', 'fold']
