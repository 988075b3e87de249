from .activations import ScaledActivation, activation_gain, get_activation
from .attention import EfficientChannelAttention, SqueezeExcite, build_attention, round_to_multiple
from .drop_path import drop_path_mask, drop_path_rates
from .padding import avg_pool2d_same, max_pool2d_same, same_padding
from .ws_conv import WSConv2d, standardize_weight

__all__ = [
    'EfficientChannelAttention',
    'ScaledActivation',
    'SqueezeExcite',
    'WSConv2d',
    'activation_gain',
    'avg_pool2d_same',
    'build_attention',
    'drop_path_mask',
    'drop_path_rates',
    'get_activation',
    'max_pool2d_same',
    'round_to_multiple',
    'same_padding',
    'standardize_weight',
]
