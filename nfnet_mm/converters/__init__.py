"""Public weights to ours and back; needs torch, NumPy and mmengine alone."""

from .convert import Summary, convert_file
from .errors import ConversionError, ReadError
from .formats.read import read_weights
from .hub import PUBLIC_WEIGHTS, local_file
from .initializer import NFPretrained
from .layout import Layout, describe
from .load import Weights, load_weights
from .names.deepmind import from_deepmind
from .names.timm import from_timm, to_timm

__all__ = [
    'PUBLIC_WEIGHTS',
    'ConversionError',
    'Layout',
    'NFPretrained',
    'ReadError',
    'Summary',
    'Weights',
    'convert_file',
    'describe',
    'from_deepmind',
    'from_timm',
    'load_weights',
    'local_file',
    'read_weights',
    'to_timm',
]
