"""A model as a file for other runtimes, held against the model itself at five sizes."""

from .export import BOUND, Exported, check_target, export_model
from .outputs import Deployed, deployed

__all__ = ['BOUND', 'Deployed', 'Exported', 'check_target', 'deployed', 'export_model']
