"""Whether the OpenMMLab packages that a part of this one is built on are there and can work together.

Two distributions share their import names: the originals, and their maintained successors named ``onedl-*``. This reads
the installed packages' metadata and imports none of them, so that it costs milliseconds and can speak before they fail.
"""

import importlib.metadata
import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class _Package:
    """One import name: its distributions, the versions known to work together, and what it imports itself."""

    original: str
    onedl: str
    original_pin: str  # of both families also the oldest that will do
    onedl_pin: str
    needs: tuple[str, ...] = ()
    lite: tuple[str, ...] = ()  # the original under another name, without compiled operators

    @property
    def distributions(self) -> tuple[str, ...]:
        return (self.onedl, self.original, *self.lite)


_PACKAGES = {
    'mmengine': _Package('mmengine', 'onedl-mmengine', '0.10.7', '0.10.12'),
    'mmcv': _Package('mmcv', 'onedl-mmcv', '2.1.0', '2.3.6', ('mmengine',), ('mmcv-lite',)),
    'mmdet': _Package('mmdet', 'onedl-mmdetection', '3.3.0', '3.5.1', ('mmengine', 'mmcv')),
    'mmseg': _Package('mmsegmentation', 'onedl-mmsegmentation', '1.2.2', '1.4.2', ('mmengine', 'mmcv')),
    'mmpretrain': _Package('mmpretrain', 'onedl-mmpretrain', '1.2.0', '1.3.6', ('mmengine', 'mmcv')),
}
_BELOW_MMCV_2_2 = ('mmdet', 'mmseg')  # the originals assert it as they are imported


@dataclass(frozen=True)
class _Found:
    """What is installed under one import name; ``version`` is None if nothing is, '?' if it has no metadata."""

    version: str | None
    distributions: tuple[str, ...] = ()
    operators: bool = True

    @property
    def onedl(self) -> bool:
        return any(name.startswith('onedl-') for name in self.distributions)

    @property
    def original(self) -> bool:
        return any(not name.startswith('onedl-') for name in self.distributions)


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _number(version: str) -> tuple[int, ...]:
    """'2.6.0+cu124' as (2, 6, 0), to compare; an unknown version compares as the newest."""
    return tuple(int(part) for part in re.findall(r'\d+', version.split('+')[0])[:3]) or (999,)


def _look(name: str) -> _Found:
    package = _PACKAGES[name]
    versions = {d: _version(d) for d in package.distributions}
    there = tuple(d for d, version in versions.items() if version)
    try:
        spec = importlib.util.find_spec(name)
    except ImportError:  # an import hook that hides it
        spec = None
    if spec is None:  # metadata without the files is what an uninstall of one distribution leaves of the other
        return _Found(None, there)
    folders = list(spec.submodule_search_locations or [])
    operators = name != 'mmcv' or any(any(Path(folder).glob('_ext*')) for folder in folders)
    return _Found(versions[there[0]] if there else '?', there, operators)


def _problems(names: Iterable[str], found: Mapping[str, _Found], torch: str | None) -> Iterator[str]:
    """One phrase for everything in ``names`` that cannot work."""
    for name in names:
        package, it = _PACKAGES[name], found[name]
        if it.onedl and it.original:
            both = ' and '.join(reversed(it.distributions))
            yield f"{both} are both installed and overwrite each other's files ({name})"
        elif it.version is None:
            yield f'{name} is missing'
        else:
            minimum = package.onedl_pin if it.onedl else package.original_pin
            if _number(it.version) < _number(minimum):
                yield f'{name} {it.version} is older than {minimum}'
            if name in _BELOW_MMCV_2_2 and it.original and _number(found['mmcv'].version or '0') >= (2, 2):
                yield f'{name} {it.version} demands mmcv < 2.2 and mmcv is {found["mmcv"].version}'
            if name == 'mmengine' and it.original and torch and _number(torch) >= (2, 6):
                yield f'mmengine {it.version} cannot load a checkpoint with torch {torch} (2.6 and later)'


def _commands(names: Iterable[str], found: Mapping[str, _Found], torch: str | None) -> str:
    """The shell command that brings ``names`` to a state that works, in one family of distributions."""
    pip = f'{sys.executable} -m pip'
    steps = []
    if not torch:
        torch = '2.11.0'
        steps.append(f'{pip} install torch==2.11.0 torchvision==0.26.0')
    originals = any(it.original for it in found.values()) and not any(it.onedl for it in found.values())
    onedl = _number(torch) >= (2, 6) or not (originals or _number(torch) < (2, 4))
    # What stays from the other family would overwrite, or be overwritten by, what is installed now.
    both = {d for it in found.values() for d in it.distributions if it.onedl and it.original}
    leave = [d for it in found.values() for d in it.distributions if d in both or d.startswith('onedl-') != onedl]

    def good(name: str) -> bool:
        it = found[name]
        if not it.version or set(it.distributions) & set(leave):
            return False
        pin = _PACKAGES[name].onedl_pin if onedl else _PACKAGES[name].original_pin
        return _number(it.version) >= _number(pin) and (onedl or name != 'mmcv' or _number(it.version) < (2, 2))

    wanted = set(names) | {name for name, it in found.items() if set(it.distributions) & set(leave)}
    pins = {
        # mmcv without its operators, which nfnet_mm.operators stand in for: that takes no compiler
        name: f'{p.onedl}=={p.onedl_pin}' if onedl else f'{(p.lite or (p.original,))[0]}=={p.original_pin}'
        for name, p in _PACKAGES.items()
        if name in wanted and not good(name)
    }
    if not onedl and 'mmcv' in pins and 'mmcv' in found['mmcv'].distributions:
        leave.append('mmcv')  # which the other name of the same files would overwrite
    if leave:
        steps.append(f'{pip} uninstall -y {" ".join(dict.fromkeys(leave))}')
    if pins:
        build = '"setuptools>=80,<82"' if onedl else '"setuptools<80" "numpy<2" "opencv-python<4.11"'
        steps.append(f'{pip} install {build} wheel')
    if onedl and 'mmcv' in pins:
        # pip's cache may hold a wheel with operators, made for another torch, under the same name
        again = '--force-reinstall --no-deps ' if found['mmcv'].version else ''
        steps.append(f'MMCV_WITH_OPS=0 {pip} install --no-cache-dir {again}{pins.pop("mmcv")}')
    if pins:
        extra = '' if onedl else ' ftfy regex'
        steps.append(f'{pip} install --no-build-isolation {" ".join(pins.values())}{extra}')
    return ' && '.join(steps)


def _describe(name: str, it: _Found) -> str:
    if it.version is None and not it.distributions:
        return f'{name} missing'
    operators = '' if name != 'mmcv' or it.version is None else ' with' + ('' if it.operators else 'out') + ' operators'
    source = ' and '.join(it.distributions) or 'no metadata'
    return f'{name} {it.version or "without its files"}{operators} ({source})'


def require(*names: str) -> None:
    """Check that the packages of these import names, and what they need, are installed in versions that can work.

    Args:
        names: of 'mmengine', 'mmcv', 'mmdet', 'mmseg' and 'mmpretrain'.

    Raises:
        ImportError: one message with what is wrong, what was found, and the command that installs what is needed.
        ValueError: a name that is none of the five.

    Example:
        >>> require('mmengine')
    """
    unknown = [name for name in names if name not in _PACKAGES]
    if unknown:
        raise ValueError(f'unknown package {unknown[0]!r}: expected one of {", ".join(_PACKAGES)}')
    closure = [name for name in _PACKAGES if name in names or any(name in _PACKAGES[n].needs for n in names)]
    found, torch = {name: _look(name) for name in _PACKAGES}, _version('torch')
    problems = ([] if torch else ['torch is missing']) + list(_problems(closure, found, torch))
    if problems:
        listing = ', '.join([f'torch {torch or "missing"}', *(_describe(name, it) for name, it in found.items())])
        raise ImportError(
            f'nfnet_mm needs {", ".join(names)} here: {"; ".join(problems)}.\nFound: {listing}.\n'
            f'Run: {_commands(closure, found, torch)}'
        )


def import_yapf() -> None:
    """Import YAPF, with which mmengine prints a config, while no other process of this machine does.

    mmengine 0.10.7 imports it itself, so that this comes before that.

    The first import on a machine writes a grammar into the user's cache and gives it its name before it is whole; in
    another process that imports YAPF at that moment, as those of one run do, the import fails.
    """
    import fcntl  # which Windows has not

    with open(os.path.join(tempfile.gettempdir(), f'nfnet_mm_yapf_{os.getuid()}.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        import yapf.yapflib.yapf_api  # noqa: F401
