"""The registries of scope ``nfnet_mm``.

A type written ``nfnet_mm.X`` makes mmengine import this very module (it looks for ``<scope>.registry``), so that
``type='nfnet_mm.NFNet'`` resolves from a config of any default scope, with no ``custom_imports``.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from mmengine import registry as root
from mmengine.registry import DefaultScope

from .errors import UserError, did_you_mean

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
    """A child registry that also finds the types of the tasks, importing a task only on demand.

    What a user misspells, a type or a keyword argument of one, is a :class:`UserError` that names the nearest.
    """

    def get(self, key: str) -> type | None:
        """The type of this name, or None where a config's default scope is this one, and so asks without naming it.

        Raises:
            UserError: it was asked for as ``nfnet_mm.<key>``, and there is none.
        """
        name = key.rpartition('.')[2]
        if name in TASK_TYPES and key in (name, f'{self.scope}.{name}'):
            import_module(TASK_TYPES[name])
        found = super().get(key)
        scope = DefaultScope.get_current_instance()
        if found is None and key in (name, f'{self.scope}.{name}') and (scope and scope.scope_name) != self.scope:
            hint = did_you_mean(name, (*self.module_dict, *TASK_TYPES)) or f' Known: {", ".join(self.module_dict)}'
            raise UserError(f'there is no {self.name} {name!r} in nfnet_mm.{hint}')
        return found

    def register_module(self, name: str | list[str] | None = None, force: bool = False, module: Any = None) -> Any:
        """As in mmengine; a class that is registered refuses unknown keyword arguments with the nearest name."""
        if module is not None:
            return super().register_module(name, force, _checked(module))
        register: Callable[[Any], Any] = super().register_module(name, force)
        return lambda kind: register(_checked(kind))


def _checked(kind: Any) -> Any:
    if not inspect.isclass(kind):  # a function is called later, with more arguments
        return kind
    init: Callable[..., None] = kind.__init__

    @functools.wraps(init)
    def checked_init(self: Any, *args: Any, **kwargs: Any) -> None:
        known = _arguments(type(self), kind)
        for key in kwargs:
            if known is not None and key not in known:
                value, takes = f'{key}={kwargs[key]!r}', ', '.join(known)
                raise UserError(f'{kind.__name__} takes no {value}.{did_you_mean(key, known)} It takes: {takes}')
        init(self, *args, **kwargs)

    kind.__init__ = checked_init  # type: ignore[method-assign]
    return kind


def _arguments(kind: type, start: type) -> tuple[str, ...] | None:
    """The keyword arguments that the constructors of a class take, from that of ``start`` on; None for any.

    A constructor with ``**kwargs`` hands on to the next what it does not know.
    """
    names: list[str] = []
    for base in kind.__mro__[kind.__mro__.index(start) :]:
        if '__init__' in vars(base):
            given = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
            names += [p.name for p in given if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
            if not any(p.kind is p.VAR_KEYWORD for p in given):
                return tuple(dict.fromkeys(names))
    return None


def _child(name: str, *locations: str) -> Registry:
    parent, modules = getattr(root, name), [f'nfnet_mm.{place}' for place in locations]
    return Registry(parent.name, parent=parent, scope='nfnet_mm', locations=modules)


MODELS = _child('MODELS', 'models')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS', 'converters')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS', 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS', 'engine')
_HOOKS = (
    'broken_pictures',
    'checkpoint_hook',
    'data_workers',
    'exact_resume',
    'finite',
    'hang',
    'rank_seed',
    'sam',
    'scalars_later',
    'signals',
    'strict_load',
)
HOOKS = _child('HOOKS', *(f'engine.{name}' for name in _HOOKS), 'analysis.signal_hook')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS', 'engine.fully_shard')
LOOPS = _child('LOOPS', 'engine.total_batch')
DATASETS = _child('DATASETS')
FUNCTIONS = _child('FUNCTIONS')  # a data loader's collate_fn
TRANSFORMS = _child('TRANSFORMS')
METRICS = _child('METRICS')


def own_types() -> list[str]:
    """The names of all types of this package, without the scope."""
    registries = [one for one in globals().values() if isinstance(one, Registry)]
    for one in registries:
        one.import_from_location()
    return sorted({*TASK_TYPES, *(name for one in registries for name in one.module_dict)})
