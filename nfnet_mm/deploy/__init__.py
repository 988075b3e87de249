"""A trained network on its way out of the training script."""

from .checkpoint import save_folded
from .detector import ExportableDetector
from .evaluate import evaluate
from .export import Deployed, Exported, deployed, export_model
from .fold import fold, is_standardised
from .half import half, worst_difference
from .quantize import quantize

__all__ = [
    'Deployed',
    'ExportableDetector',
    'Exported',
    'deployed',
    'evaluate',
    'export_model',
    'fold',
    'half',
    'is_standardised',
    'quantize',
    'save_folded',
    'worst_difference',
]
