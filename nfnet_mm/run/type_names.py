"""Find the types of this package that a config misspells, or names without their scope."""

import difflib
from collections.abc import Iterator
from typing import Any

from mmengine import Config
from mmengine import registry as root
from mmengine.registry import init_default_scope

from nfnet_mm.errors import UserError
from nfnet_mm.registry import own_types


def check_types(cfg: Config) -> None:
    """Check every type of a config that is named like one of this package.

    Raises:
        UserError: there is no such type; the line names the key of the config and the nearest type. Types of other
            packages are left to the registries that build them.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    own = {name.lower(): name for name in own_types()}
    for where, name, scope in _types(cfg._cfg_dict.to_dict()):
        inside, _, last = name.rpartition('.')
        near = difflib.get_close_matches(last.lower(), own, n=1, cutoff=0.85)
        known = last in own.values() if inside == 'nfnet_mm' else not near or _exists(name, scope)
        if not known:
            among = '' if inside else f' in the scope {cfg.get("default_scope") or "mmengine"!r}'
            hint = f' Did you mean {"nfnet_mm." + own[near[0]]!r}?' if near else f' Known: {", ".join(own.values())}'
            raise UserError(f'{where}={name!r}: there is no such type{among}.{hint}')


def _types(cfg: Any, key: str = '', scope: str | None = None) -> Iterator[tuple[str, str, str | None]]:
    """(dotted key, type, scope that the config names for it) of everything that has a type."""
    if isinstance(cfg, dict):
        scope = cfg.get('_scope_', scope)
        for name in ('type', 'constructor'):
            if isinstance(cfg.get(name), str):
                yield f'{key}.{name}'.lstrip('.'), cfg[name], scope
        for name, value in cfg.items():
            yield from _types(value, f'{key}.{name}'.lstrip('.'), scope)
    elif isinstance(cfg, (list, tuple)):
        for i, value in enumerate(cfg):
            yield from _types(value, f'{key}.{i}', scope)


def _exists(name: str, scope: str | None) -> bool:
    """Whether any registry of a scope (None: the default one) has a type, of whatever kind."""
    with root.MODELS.switch_scope_and_registry(scope) as models:  # imports the scope's registries
        scope = models.scope
    registries = [one for one in vars(root).values() if isinstance(one, root.Registry)]
    return any(one.children.get(scope, one).get(name) is not None for one in registries)
