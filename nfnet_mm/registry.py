"""The registries of scope ``nfnet_mm``.

A type written ``nfnet_mm.X`` makes mmengine import this very module (it looks for ``<scope>.registry``), so that
``type='nfnet_mm.NFNet'`` resolves from a config of any default scope, with no ``custom_imports``.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from mmengine import registry as root

__all__ = [
    'DATASETS',
    'FUNCTIONS',
    'HOOKS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'TRANSFORMS',
    'WEIGHT_INITIALIZERS',
]

# The rooms that need more of the stack than torch and mmengine, loaded when one of their types is first asked for:
# a detector must not pay for, or fail on, an import of mmpretrain.
TASK_TYPES = {
    **dict.fromkeys(('BNResNet', 'NFClsHead', 'NFRandAugment', 'mixing_collate'), 'nfnet_mm.tasks.classification'),
    **dict.fromkeys(
        ('UpProjectionHead', 'BerHuLoss', 'DownsampleCrop', 'DepthColorJitter', 'PixelDepthMetric'),
        'nfnet_mm.tasks.depth',
    ),
    **dict.fromkeys(('CenterCropPad', 'RandomScale'), 'nfnet_mm.tasks.segmentation'),
}


def type_name(cfg: Mapping[str, Any]) -> str:
    """The bare name of a config's type, which is given as text or as a class.

    >>> type_name(dict(type='nfnet_mm.NFNet')), type_name(dict(type=dict))
    ('NFNet', 'dict')
    """
    kind = cfg.get('type')
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


class Registry(root.Registry):
    """A child registry that also finds the types of the task rooms, importing a room only on demand."""

    def get(self, key: str) -> type | None:
        name = key.rpartition('.')[2]
        if name in TASK_TYPES and key in (name, f'{self.scope}.{name}'):
            import_module(TASK_TYPES[name])
        return super().get(key)


def _child(name: str, *locations: str) -> Registry:
    parent = getattr(root, name)
    return Registry(
        parent.name, parent=parent, scope='nfnet_mm', locations=[f'nfnet_mm.{place}' for place in locations]
    )


MODELS = _child('MODELS', 'models', 'engine.ema')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS', 'converters')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS', 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS', 'engine')
HOOKS = _child('HOOKS', 'engine.sam', 'engine.strict_load')
LOOPS = _child('LOOPS', 'engine.total_batch')
DATASETS = _child('DATASETS')
FUNCTIONS = _child('FUNCTIONS')  # a data loader's collate_fn
TRANSFORMS = _child('TRANSFORMS')
METRICS = _child('METRICS')
