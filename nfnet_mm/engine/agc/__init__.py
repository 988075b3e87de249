"""Adaptive gradient clipping (NFNets, section 4; where paper and released code differ, the code)."""

from .clip import ClipStats, Verdict, adaptive_clip_grad_, check_agc, clip_, of_each_parameter

__all__ = ['ClipStats', 'Verdict', 'adaptive_clip_grad_', 'check_agc', 'clip_', 'of_each_parameter']
