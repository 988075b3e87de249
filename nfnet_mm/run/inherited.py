"""Which comes last in a chain of configs: a setting that holds for many places, or the places' own values."""

import ast
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine import Config

from nfnet_mm.named_configs import bases_by_import_name


def is_last(path: Path, cfg: Config, name: str, value_of_places: Callable[[Config], Any]) -> bool:
    """Whether a setting at a config's top level was made after the values of the places that it would hold for.

    A config that inherits a setting and states a place by itself, such as ``model.head.num_classes`` beside the
    ``num_classes`` of its base, means what it states. So does one file that has both, such as the dump of such a run.

    Args:
        path: the config's file.
        cfg: what it holds, with what it inherits.
        name: of the setting.
        value_of_places: the value that the places have in a config.
    """
    if path.suffix != '.py':
        return False
    if Config._is_lazy_import(str(path)):
        return _assigns(path, name)
    with bases_by_import_name(quiet=True), tempfile.TemporaryDirectory() as folder:
        filled = os.path.join(folder, path.name)  # as mmengine reads it
        Config._substitute_predefined_vars(str(path), filled)
        Config._substitute_env_variables(filled, filled)
        Config._pre_substitute_base_vars(filled, filled)
        bases = [Path(Config._get_cfg_path(base, str(path))[0]) for base in Config._get_base_files(filled)]
        inherited = [Config.fromfile(base) for base in bases]
    if not bases:
        return False
    if not any(base.get(name) == cfg.get(name) for base in inherited):
        return True
    for file, base in zip(bases, inherited):
        if (value := value_of_places(base)) is None:  # what has no such place
            continue
        if value != value_of_places(cfg):
            return False
        if name in base:
            return is_last(file, base, name, value_of_places)
    return True


def _assigns(path: Path, name: str) -> bool:
    tree = ast.parse(path.read_text(encoding='utf-8'))
    targets = [target for step in tree.body if isinstance(step, ast.Assign) for target in step.targets]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)
