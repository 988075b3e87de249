"""What configs of several kinds state alike."""

from typing import Any

from .text import Name

LOOP = 'nfnet_mm.TotalBatchTrainLoop'
CONSTRUCTOR = 'nfnet_mm.NFOptimWrapperConstructor'


def sgd(lr: float, weight_decay: float, kind: str = 'SGD') -> dict[str, Any]:
    """The optimizer of all recipes, but for the kind."""
    optimizer = dict(type=kind, lr=lr, momentum=0.9, nesterov=True)
    return {**optimizer, 'weight_decay': weight_decay} if weight_decay or kind == 'LARS' else optimizer


def start() -> dict[str, Any]:
    """The initializer that loads a backbone's weights; without any it warns."""
    return dict(type='nfnet_mm.NFPretrained', checkpoint=Name('weights'))
