"""Layers: scaled weight standardisation, activations of unit variance, channel attention, stochastic depth, padding.

And the plain conv and the BatchNorm of the papers' baselines.
"""

from .activations import ScaledActivation, activation_gain, get_activation
from .attention import EfficientChannelAttention, SqueezeExcite, build_attention
from .batch_norm import BatchNorm2d
from .conv import SameConv2d
from .drop_path import drop_path_mask
from .padding import avg_pool2d_same, max_pool2d_same, same_padding
from .ws_conv import WSConv2d, standardize_weight

__all__ = [
    'BatchNorm2d',
    'EfficientChannelAttention',
    'SameConv2d',
    'ScaledActivation',
    'SqueezeExcite',
    'WSConv2d',
    'activation_gain',
    'avg_pool2d_same',
    'build_attention',
    'drop_path_mask',
    'get_activation',
    'max_pool2d_same',
    'same_padding',
    'standardize_weight',
]
