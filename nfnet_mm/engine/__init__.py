"""What trains a normalizer-free network; never imports models.

Loops and hooks are not imported here: mmengine's bases for them need OpenCV, adaptive gradient clipping does not.
"""

from .agc import ClipStats, adaptive_clip_grad_
from .constructor import NFOptimWrapperConstructor
from .optim_wrapper import AGCOptimWrapper, AmpAGCOptimWrapper

__all__ = ['AGCOptimWrapper', 'AmpAGCOptimWrapper', 'ClipStats', 'NFOptimWrapperConstructor', 'adaptive_clip_grad_']
