from .agc import ClipStats, adaptive_clip_grad_
from .constructor import NFOptimWrapperConstructor
from .optim_wrapper import AGCOptimWrapper, AmpAGCOptimWrapper
from .total_batch import TotalBatchTrainLoop

__all__ = [
    'AGCOptimWrapper', 'AmpAGCOptimWrapper', 'ClipStats', 'NFOptimWrapperConstructor', 'TotalBatchTrainLoop',
    'adaptive_clip_grad_'
]
