"""Normalizer-free networks and adaptive gradient clipping for the OpenMMLab stack."""

__version__ = '0.8.0'
