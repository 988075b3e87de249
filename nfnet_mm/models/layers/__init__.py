"""Layers: scaled weight standardisation, activations of unit variance, channel attention, stochastic depth, padding.

And the plain conv and the BatchNorm of the papers' baselines.
"""

from .activations import ScaledActivation, activation_gain, get_activation
from .attention import EfficientChannelAttention, SqueezeExcite, build_attention
from .batch_norm import BatchNorm2d
from .conv import SameConv2d
from .drop_path import drop_path_mask
from .gated_sum import gated_sum
from .padding import avg_pool2d_same, max_pool2d_same, same_padding
from .standardize import standardize_weight
from .ws_conv import Recompute, WSConv2d, conv_of_activation

__all__ = [
    'BatchNorm2d',
    'EfficientChannelAttention',
    'Recompute',
    'SameConv2d',
    'ScaledActivation',
    'SqueezeExcite',
    'WSConv2d',
    'activation_gain',
    'avg_pool2d_same',
    'build_attention',
    'conv_of_activation',
    'drop_path_mask',
    'gated_sum',
    'get_activation',
    'max_pool2d_same',
    'same_padding',
    'standardize_weight',
]
