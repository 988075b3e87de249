"""Score a network in the form in which it is deployed: folded."""

from typing import TYPE_CHECKING, Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from torch.nn.parallel import DistributedDataParallel

from nfnet_mm.deploy import fold, is_standardised
from nfnet_mm.engine.folded_checkpoint import is_folded

if TYPE_CHECKING:
    from mmengine.runner import Runner


class FoldHook(Hook):
    """Before a test, put the folded network in the place of the runner's: for a folded checkpoint before it is loaded.

    A model whose weights are spread over several processes stays as it is.
    """

    priority = 'ABOVE_NORMAL'  # the model is folded when a checkpoint is held against it

    def after_load_checkpoint(self, runner: Any, checkpoint: Any) -> None:
        """Fold for a folded checkpoint; its weights are loaded after the hooks."""
        if is_folded(checkpoint):
            _fold(runner)

    def before_test(self, runner: Any) -> None:
        """Fold what was loaded."""
        if _fold(runner):
            print_log('weights are standardised once, before the test (--no-fold: for every batch)', 'current')


def _fold(runner: Any) -> bool:
    """Fold the runner's model, and say whether there was something to fold."""
    model = runner.model
    copied = isinstance(model, DistributedDataParallel)
    if (is_model_wrapper(model) and not copied) or not is_standardised(model):
        return False
    if copied:
        model.module = fold(model.module)
    else:
        runner.model = fold(model)
    return True


def use_folded(runner: 'Runner') -> None:
    """Let a test run score the folded network, which is the same up to float32 rounding."""
    runner.register_hook(FoldHook())
