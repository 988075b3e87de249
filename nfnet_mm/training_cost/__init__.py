"""What one training step of a config costs on this machine: counted, timed, its peak memory measured."""

from .measure import Result, compare

__all__ = ['Result', 'compare']
