"""mmcv's operators get features whose memory is laid out as their kernels read it."""

from typing import Any

from torch import Tensor, nn

_OPERATORS = 'mmcv.ops.'


def keep_operators_contiguous(model: nn.Module) -> None:
    """Give mmcv's modules contiguous tensors: their CUDA kernels ignore strides and would misread channels-last ones.

    Registers hooks on those modules, once; other models are left as they are.
    """
    for module in model.modules():
        places = [f'{base.__module__}.' for base in type(module).__mro__]
        if (
            any(place.startswith(_OPERATORS) for place in places)
            and _contiguous not in module._forward_pre_hooks.values()
        ):
            module.register_forward_pre_hook(_contiguous, with_kwargs=True)


def _contiguous(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    def laid_out(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.contiguous() if value.dim() == 4 else value
        if type(value) in (list, tuple):
            return type(value)(laid_out(item) for item in value)
        return value

    return laid_out(args), {key: laid_out(value) for key, value in kwargs.items()}
