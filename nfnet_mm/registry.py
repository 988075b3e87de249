"""The registries of scope ``nfnet_mm``.

A type written ``nfnet_mm.X`` makes mmengine import this very module (it looks for ``<scope>.registry``), so that
``type='nfnet_mm.NFNet'`` resolves from a config of any default scope, with no ``custom_imports``.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from mmengine import registry as root

# What the tasks register. A task needs more than torch and mmengine, and is imported when one of its types is
# first asked for: a detector must not pay for, or fail on, an import of mmpretrain.
_TASKS = {
    'classification': (
        'NFClsHead',
        'NFRandAugment',
        'mixing_collate',
        'RandomResizedCrop',
        'ResizeCrop32',
        'CropResize',
    ),
    'depth': (
        'UpProjectionHead',
        'BerHuLoss',
        'DownsampleCrop',
        'DepthColorJitter',
        'PixelDepthMetric',
        'NYUDepthDataset',
    ),
    'segmentation': ('CenterCropPad', 'RandomScale'),
}
TASK_TYPES = {name: f'nfnet_mm.tasks.{task}' for task, names in _TASKS.items() for name in names}


def type_name(cfg: Mapping[str, Any]) -> str:
    """The bare name of a config's type, which is given as text or as a class.

    >>> type_name(dict(type='nfnet_mm.NFNet')), type_name(dict(type=dict))
    ('NFNet', 'dict')
    """
    kind = cfg.get('type')
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


class Registry(root.Registry):
    """A child registry that also finds the types of the tasks, importing a task only on demand."""

    def get(self, key: str) -> type | None:
        """The type of this name, or None."""
        name = key.rpartition('.')[2]
        if name in TASK_TYPES and key in (name, f'{self.scope}.{name}'):
            import_module(TASK_TYPES[name])
        return super().get(key)


def _child(name: str, *locations: str) -> Registry:
    parent, modules = getattr(root, name), [f'nfnet_mm.{place}' for place in locations]
    return Registry(parent.name, parent=parent, scope='nfnet_mm', locations=modules)


MODELS = _child('MODELS', 'models')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS', 'converters')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS', 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS', 'engine')
HOOKS = _child(
    'HOOKS', *(f'engine.{name}' for name in ('checkpoint_hook', 'exact_resume', 'sam', 'signals', 'strict_load'))
)
LOOPS = _child('LOOPS', 'engine.total_batch')
DATASETS = _child('DATASETS')
FUNCTIONS = _child('FUNCTIONS')  # a data loader's collate_fn
TRANSFORMS = _child('TRANSFORMS')
METRICS = _child('METRICS')
