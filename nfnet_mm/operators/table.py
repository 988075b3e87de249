"""What the stand-in for ``mmcv._ext`` holds: the names that mmcv's wrappers ask for, and this package's functions."""

from collections.abc import Callable
from typing import Any, NoReturn

from nfnet_mm.errors import UserError

from . import attention, deform, focal, nms, roi
from .remedy import HOW_TO_COMPILE

OPERATORS: dict[str, Callable[..., Any]] = {
    'nms': nms.nms,
    'softnms': nms.softnms,
    'nms_match': nms.nms_match,
    'bbox_overlaps': nms.bbox_overlaps,
    'roi_align_forward': roi.roi_align_forward,
    'roi_align_backward': roi.roi_align_backward,
    'roi_pool_forward': roi.roi_pool_forward,
    'roi_pool_backward': roi.roi_pool_backward,
    'sigmoid_focal_loss_forward': focal.sigmoid_focal_loss_forward,
    'sigmoid_focal_loss_backward': focal.sigmoid_focal_loss_backward,
    'softmax_focal_loss_forward': focal.softmax_focal_loss_forward,
    'softmax_focal_loss_backward': focal.softmax_focal_loss_backward,
    'deform_conv_forward': deform.deform_conv_forward,
    'deform_conv_backward_input': deform.deform_conv_backward_input,
    'deform_conv_backward_parameters': deform.deform_conv_backward_parameters,
    'modulated_deform_conv_forward': deform.modulated_deform_conv_forward,
    'modulated_deform_conv_backward': deform.modulated_deform_conv_backward,
    'ms_deform_attn_forward': attention.ms_deform_attn_forward,
    'ms_deform_attn_backward': attention.ms_deform_attn_backward,
    # as a build of mmcv for CPUs says them; collect_env prints both
    'get_compiler_version': lambda: 'none (nfnet_mm.operators)',
    'get_compiling_cuda_version': lambda: 'not available',
}


def missing(name: str) -> Callable[..., NoReturn]:
    """In place of an operator that only mmcv's compiled module has: it can be imported, not called.

    Raises:
        AttributeError: the name is one of Python's own, such as ``__path__``.
    """
    if name.startswith('__'):
        raise AttributeError(f'module mmcv._ext has no attribute {name!r}')

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(f"mmcv's operator {name!r} has no stand-in and must be compiled: {HOW_TO_COMPILE}")

    refuse.__name__ = refuse.__qualname__ = name
    return refuse
