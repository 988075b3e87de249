"""``compile`` of a config: the backbone becomes compiled code."""

from typing import TYPE_CHECKING, Any

from mmengine import Config
from mmengine.model import is_model_wrapper
from torch import nn

from nfnet_mm.errors import UserError

if TYPE_CHECKING:
    from mmengine.runner import Runner

_MODES = ('default', 'reduce-overhead', 'max-autotune', 'max-autotune-no-cudagraphs')


def compile_options(cfg: Config) -> dict[str, Any] | None:
    """The arguments of ``torch.compile`` that the config asks for; None: nothing is compiled.

    Raises:
        UserError: ``compile`` is not True or False, a mode of ``torch.compile``, or a dict of its arguments.
    """
    value = cfg.get('compile')
    if value is None or isinstance(value, bool):
        return {} if value else None
    if isinstance(value, dict):
        return dict(value)
    if value in _MODES:
        return dict(mode=value)
    known = ', '.join(map(repr, _MODES))
    raise UserError(
        f'compile={value!r} must be True, False, a mode of torch.compile ({known}) or a dict of its arguments, such as '
        "dict(mode='reduce-overhead')"
    )


def compile_the_backbone(runner: 'Runner') -> None:
    """Have ``compile`` mean the model's backbone, when the runner comes to it.

    mmengine would compile the whole training step, optimizer wrapper and logging included, of which the compiler makes
    dozens of pieces and as many warnings. Models without a backbone are left to it.
    """
    options = compile_options(runner.cfg)
    model = runner.model
    backbone = getattr(model.get_submodule('module') if is_model_wrapper(model) else model, 'backbone', None)
    if options is None:
        return
    if not isinstance(backbone, nn.Module):
        runner.cfg.compile = options
        return
    what = f'torch.compile({", ".join(f"{key}={value!r}" for key, value in options.items())}) of the backbone'

    def compile_once(target: str) -> None:
        if backbone._compiled_call_impl is not None:
            return
        try:
            backbone.compile(**options)  # and not a copy of it, as a folded or averaged one is
        except (TypeError, RuntimeError) as error:
            raise UserError(f'{what}, as the config asks for by compile={runner.cfg.compile!r}: {error}') from error
        runner.logger.info(
            f'{what}: the first iterations take minutes, as does each new size of pictures until the code is for any '
            'size'
        )

    runner._maybe_compile = compile_once  # type: ignore[method-assign]
