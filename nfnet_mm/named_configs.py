"""Find a config by name: a file, ``scope::path`` of an installed package, or the bare name of one that is shipped.

mmengine finds ``scope::path`` in ``_base_`` by the name of a distribution. That fails for ``mmseg::`` where its
maintained successor is installed (``mmsegmentation is not installed``, and installing it would mix the two), and it
knows no ``nfnet_mm::``. :func:`bases_by_import_name` finds both by their import names, and says which line works
anywhere.
"""

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from mmengine import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import is_installed

from .errors import UserError, check_exists, nearest_files, some

SCOPES = ('nfnet_mm', 'mmdet', 'mmseg', 'mmpretrain')


class Source(NamedTuple):
    """A config file: where it is, and the expression by which another config inherits it (None: by its path)."""

    path: Path
    base: str | None = None


def _package_folders(name: str) -> list[str]:
    try:
        spec = find_spec(name) if name.isidentifier() else None
    except (ImportError, ValueError):  # an import hook that hides it; a stub without a spec
        spec = None
    return list((spec and spec.submodule_search_locations) or ())


def config_folder(scope: str) -> Path | None:
    """The folder of the configs that a package ships, or None if there is no such package or folder."""
    for package in _package_folders(scope):
        # in a clone .mim/configs is a link, which not every file system or copy has: then the folder it points to
        for folder in (Path(package, '.mim', 'configs'), Path(package).parent / 'configs'):
            if folder.is_dir() and (folder.parent / 'model-index.yml').is_file():
                return folder
    return None


def find_config(name: str | Path) -> Source:
    """The config file that a name means.

    Args:
        name: a path; ``mmdet::``, ``mmseg::``, ``mmpretrain::`` or ``nfnet_mm::`` and a path in what that package
            ships, or its last part alone; or that last part without a package, if only one config is named so.
            ``.py`` may be left out, but of a path.

    Raises:
        UserError: there is no such package or file, or more than one; near names are suggested.
    """
    scope, colons, inside = str(name).partition('::')
    if colons:
        folder = config_folder(scope)
        if folder is None:
            there = any(_package_folders(scope))
            what = f'package {scope!r} ships no configs' if there else f'no package {scope!r} is installed'
            raise UserError(f'config {str(name)!r}: {what}')
        if (folder / inside).is_file():
            return _source(scope, folder, folder / inside)
    elif Path(name).is_file() or Path(name).name != str(name):
        check_exists(name, 'config')
        return Source(Path(name))
    scopes = (scope,) if colons else SCOPES
    files = {
        f'{one}::{path.relative_to(folder).as_posix()}': path
        for one in scopes
        if (folder := config_folder(one))
        for path in sorted(folder.rglob('*.py'))
    }
    wanted = inside if colons else str(name)
    wanted = wanted.removesuffix('.py')
    exact = [one for one in files if one.partition('::')[2] == f'{wanted}.py']
    found = exact or [one for one, path in files.items() if path.stem == wanted and '_base_' not in path.parts]
    if len(found) == 1:
        scope = found[0].partition('::')[0]
        return _source(scope, config_folder(scope) or Path(), files[found[0]])
    if found:
        raise UserError(f'config {str(name)!r} is the name of {len(found)}: {some(found)}; name one of them whole')
    if not colons and nearest_files(name)[1]:
        check_exists(name, 'config')
    last = wanted.rpartition('/')[2]
    stems = {path.stem: one for one, path in files.items() if ('_base_' in path.parts) == ('_base_' in wanted)}
    longer = sorted((one for one in stems if last and one.startswith(last)), key=len)
    near = [stems[one] for one in longer[:3] or difflib.get_close_matches(last, stems, n=3, cutoff=0.5)]
    hint = f'did you mean {", ".join(map(repr, near))}?' if near else 'none has a like name'
    where = f'package {scope!r} ships no such file' if colons else 'it is no file here, nor one that a package ships'
    raise UserError(f'config {str(name)!r} does not exist: {where}; {hint}')


def _source(scope: str, folder: Path, path: Path) -> Source:
    inside = path.relative_to(folder).as_posix()
    if folder.parent.name != '.mim':  # of a clone without the link
        return Source(path)
    return Source(path, base_expression(scope, inside))


def base_expression(scope: str, inside: str) -> str:
    """The expression by which ``_base_`` of a config names a shipped one, for every tool that is built on mmengine.

    >>> base_expression('mmdet', 'retinanet/retinanet_r50_fpn_1x_coco.py')
    "'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'"
    >>> base_expression('nfnet_mm', 'mask_rcnn_nfnet_f0_fpn.py')
    "__import__('nfnet_mm').__path__[0] + '/.mim/configs/mask_rcnn_nfnet_f0_fpn.py'"
    """
    if scope in ('mmseg', 'nfnet_mm'):
        return f'__import__({scope!r}).__path__[0] + {"/.mim/configs/" + inside!r}'
    return repr(f'{scope}::{inside}')


@contextmanager
def bases_by_import_name(quiet: bool = False) -> Iterator[None]:
    """Let mmengine find every ``scope::path`` in ``_base_`` of the config it reads here as :func:`find_config` does.

    Unless ``quiet``, one line is printed for a base that other tools, which have mmengine alone, would not find. One
    that is not there is a :class:`UserError`.
    """
    theirs, said = Config._get_cfg_path, set()

    def cfg_path(name: str, filename: str) -> tuple[str, str | None]:
        if '::' not in name:
            return theirs(name, filename)
        scope = name.partition('::')[0]
        path, base = find_config(name)
        distribution = MODULE2PACKAGE.get(scope)
        if not quiet and name not in said and base and not (distribution and is_installed(distribution)):
            said.add(name)
            # Not by installing that distribution, which would overwrite the one that is there.
            print(f'{filename}: _base_ {name!r} works in this package only; in every tool works _base_ = {base}')
        # mmengine then looks for the types of the base in its package; ours says itself where
        return str(path), None if scope == 'nfnet_mm' else scope

    Config._get_cfg_path = staticmethod(cfg_path)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Config._get_cfg_path = staticmethod(theirs)  # type: ignore[method-assign]
