"""Score a network in the form in which it is deployed: folded."""

from typing import TYPE_CHECKING, Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper

from nfnet_mm.deploy import fold
from nfnet_mm.models.layers import WSConv2d

if TYPE_CHECKING:
    from mmengine.runner import Runner


class FoldHook(Hook):
    """Before a test, after the checkpoint is loaded, put the folded network in the place of the runner's."""

    def before_test(self, runner: Any) -> None:
        """Fold; a model that several processes share stays as it is."""
        model = runner.model
        if not is_model_wrapper(model) and any(isinstance(module, WSConv2d) for module in model.modules()):
            runner.model = fold(model)
            print_log('weights are standardised once, before the test (--no-fold: for every batch)', 'current')


def use_folded(runner: 'Runner') -> None:
    """Let a test run score the folded network, which is the same up to float32 rounding."""
    runner.register_hook(FoldHook())
