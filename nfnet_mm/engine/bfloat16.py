"""Detectors under bfloat16 autocast: boxes and RoI features in float32.

mmcv's operators (nms, RoIAlign, deformable convs, ...) have no bfloat16 kernels, and the 8 bits of its significand
place an edge at 1000 px only to the nearest 4. Convs and linear layers, where the time goes, stay in bfloat16.
"""

from typing import Any

import torch
from torch import Tensor, nn

# Told by where a module's class, or a base of it, is defined, since this package must not import the frameworks.
# TOOD's head is an operator here, since it calls one as a function.
_OPERATORS = ('mmcv.ops.', 'mmdet.models.roi_heads.roi_extractors.', 'mmdet.models.dense_heads.tood_head.')
_NO_OPERATORS = 'mmcv.ops.merge_cells.'  # convs and sums only
_HEADS = tuple(f'mmdet.models.{kind}_heads.' for kind in ('dense', 'roi', 'seg', 'tracking'))

_suspensions: list[torch.autocast] = []  # of the operators being computed, the innermost last


def keep_boxes_in_float32(model: nn.Module) -> None:
    """Let a detector's operators and RoI extractors compute, and its heads answer, in float32 whatever autocast says.

    Registers hooks on those modules, once; other models, and all modules outside autocast, are left as they are.
    """
    for module in model.modules():
        places = [f'{base.__module__}.' for base in type(module).__mro__]
        answers = any(place.startswith(_HEADS) for place in places)
        if any(place.startswith(_OPERATORS) and not place.startswith(_NO_OPERATORS) for place in places):
            if _suspend_autocast not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(_suspend_autocast, with_kwargs=True)
                module.register_forward_hook(_resume_autocast, always_call=True)
        elif answers and _answer_in_float32 not in module._forward_hooks.values():
            module.register_forward_hook(_answer_in_float32)


def _suspend_autocast(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    devices: list[str] = []
    args, kwargs = _float32(args, devices), _float32(kwargs, devices)
    _suspensions.append(torch.autocast(devices[0] if devices else 'cpu', enabled=False))
    _suspensions[-1].__enter__()
    return args, kwargs


def _resume_autocast(module: nn.Module, args: tuple, output: Any) -> None:
    _suspensions.pop().__exit__(None, None, None)


def _answer_in_float32(module: nn.Module, args: tuple, output: Any) -> Any:
    return _float32(output, [])


def _float32(value: Any, devices: list[str]) -> Any:
    """Half-precision tensors as float32, in lists, tuples and dicts however nested; collects their devices."""
    if isinstance(value, Tensor):
        devices.append(value.device.type)
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, dict):
        return {key: _float32(item, devices) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_float32(item, devices) for item in value)
    return value
