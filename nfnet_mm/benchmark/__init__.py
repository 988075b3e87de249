"""Two implementations side by side: steps, evaluation, clipping, memory and launches, measured in turns."""

from . import report
from .growth import AXES, growth
from .implementations import find_implementation
from .measures import MEASURES
from .rows import Result, Row, Run, Runner
from .subject import DTYPES, LAYOUTS, Settings, check_settings, has_fused_sgd
from .suites import SUITES, Suite

__all__ = [
    'AXES',
    'DTYPES',
    'LAYOUTS',
    'MEASURES',
    'SUITES',
    'Result',
    'Row',
    'Run',
    'Runner',
    'Settings',
    'Suite',
    'check_settings',
    'find_implementation',
    'growth',
    'has_fused_sgd',
    'report',
]
