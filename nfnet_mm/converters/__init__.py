"""Public weights to ours and back; needs torch, NumPy and mmengine alone."""
# ruff: noqa: F401

from .convert import Summary, convert_file
from .errors import ConversionError, ReadError
from .formats.read import read_weights
from .hub import PUBLIC_WEIGHTS, local_file
from .initializer import NFPretrained
from .layout import Layout, describe
from .load import Weights, load_weights
from .names.deepmind import from_deepmind
from .names.timm import from_timm, to_timm
