"""A trained network on its way out of the training script."""

from .detector import ExportableDetector
from .evaluate import evaluate
from .fold import fold
from .half import half, worst_difference
from .quantize import quantize

__all__ = ['ExportableDetector', 'evaluate', 'fold', 'half', 'quantize', 'worst_difference']
