"""Training: adaptive gradient clipping, the average of the weights, sharpness-aware minimisation, batches, resuming.

Loops and hooks are not imported here: mmengine's bases for them need OpenCV.
"""

from .agc import ClipStats, adaptive_clip_grad_
from .amp_optim_wrapper import AmpAGCOptimWrapper
from .constructor import NFOptimWrapperConstructor
from .ema import WarmupEMA
from .optim_wrapper import AGCOptimWrapper

__all__ = [
    'AGCOptimWrapper',
    'AmpAGCOptimWrapper',
    'ClipStats',
    'NFOptimWrapperConstructor',
    'WarmupEMA',
    'adaptive_clip_grad_',
]
