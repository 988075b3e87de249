"""Read a config, and write one that inherits another and states what differs."""

import keyword
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nfnet_mm import read_config as load
from nfnet_mm.errors import UserError
from nfnet_mm.named_configs import Source

# The depth in a file's name, as the frameworks write it: r50, x101-32x4d, resnet50, resnetv1d101, s50, r50-caffe.
_DEPTH = re.compile(
    r'(?<![A-Za-z0-9])(?:(?:se-?)?resne[xs]?t(?:v1[bcd])?|res2net|r2|[rxs])-?(?:18|34|50|101|152)'
    r'(?:-(?:caffe|\d+x\d+d|32x4d|64x4d))?',
    re.I,
)


def read_config(path: Path) -> dict[str, Any]:
    """A config file, as plain dicts, lists and tuples.

    Raises:
        UserError: it is in the style of mmengine's ``read_base``, or does not load.
    """
    if re.search(r'^\s*with read_base\(\):', path.read_text(encoding='utf-8', errors='replace'), re.M):
        what = f'config {str(path)!r} is in the style of read_base, with classes for types'
        raise UserError(f'{what}; the one in the old style, with types as text, can be converted')
    return _plain(load.read_config(path)._cfg_dict)


def _plain(value: Any) -> Any:
    # mmengine marks the dicts of a config inherited as mmdet::... with their scope, the same one as without
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key != '_scope_'}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return math.nan if isinstance(value, float) and math.isnan(value) else value  # one object equals itself in dicts


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What a config that inherits ``old`` has to state to be ``new``.

    Example:
        >>> difference(dict(a=1, b=dict(c=2, d=3), e=dict(f=4)), dict(a=1, b=dict(c=2, d=5), e=dict(g=6)))
        {'b': {'d': 5}, 'e': {'_delete_': True, 'g': 6}}
    """
    out = {}
    for key, value in new.items():
        before = old.get(key)
        if key in old and (before is value or before == value) and type(before) is type(value):
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            gone = before.keys() - value.keys()
            value = dict(_delete_=True, **value) if gone else difference(before, value)
        out[key] = value
    return out


def config_text(value: Any, indent: int = 0, columns: int = 120) -> str:
    """A value as Python in the style of config files, at most 120 columns where that is possible.

    Example:
        >>> print(config_text(dict(necks=[dict(type='FPN', in_channels=(256,))], a_b={'x.y': 1})))
        dict(necks=[dict(type='FPN', in_channels=(256,))], a_b={'x.y': 1})
    """
    if type(value) in (list, tuple):
        inside = ', '.join(config_text(item, 0, 10**9) for item in value)
        return f'[{inside}]' if type(value) is list else f'({inside},)' if len(value) == 1 else f'({inside})'
    if not isinstance(value, dict):  # inf and nan are no names in a config file
        return repr(value) if not isinstance(value, float) or math.isfinite(value) else f"float('{value}')"
    named = all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value)
    opening, closing = ('dict(', ')') if named else ('{', '}')
    pairs = [(f'{key}=' if named else f'{key!r}: ', item) for key, item in value.items()]
    line = opening + ', '.join(key + config_text(item, 0, 10**9) for key, item in pairs) + closing
    if len(line) + indent < columns - 20:
        return line
    inner = indent + 4
    lines = [' ' * inner + key + config_text(item, inner, columns) for key, item in pairs]
    return opening + '\n' + ',\n'.join(lines) + closing


def default_name(source: Path, backbone: str) -> str:
    """The name of a config file with another backbone in it.

    Example:
        >>> default_name(Path('a/faster-rcnn_r50-caffe_fpn_1x_coco.py'), 'nfnet_f0+')
        'faster-rcnn_nfnet_f0plus_fpn_1x_coco.py'
        >>> default_name(Path('resnet50_8xb32_in1k.py'), 'timm/nf_resnet50')
        'timm_nf_resnet50_8xb32_in1k.py'
    """
    backbone = backbone.replace('+', 'plus').replace('/', '_')
    stem, found = _DEPTH.subn(backbone, source.stem, count=1)
    return f'{stem if found else f"{stem}_{backbone}"}.py'


def write_config(
    target: Path,
    source: Source,
    old: dict[str, Any],
    new: dict[str, Any],
    title: str,
    comments: Sequence[str] = (),
    force: bool = False,
) -> tuple[Path, str]:
    """Write a config that inherits ``source`` and loads as ``new``; it is read back and compared.

    Args:
        target: the file to write.
        source: what it inherits, and ``old`` its content.
        new: what it shall be.
        title: its first line.
        comments: more lines under it.
        force: replace an existing file.

    Returns:
        the file and its text.

    Raises:
        UserError: the file exists, its folder does not, it would replace what it inherits, or it cannot be written.
    """
    if target.suffix != '.py':
        raise UserError(f'output {str(target)!r} must end in .py')
    if not target.parent.is_dir():
        raise UserError(f'output {str(target)!r}: the folder {str(target.parent)!r} does not exist')
    if target.exists() and target.samefile(source.path):
        raise UserError(f'output {str(target)!r} is the config itself')
    if target.exists() and not force:
        raise UserError(f'output {str(target)!r} exists; --force replaces it')
    base = source.base or repr(os.path.relpath(source.path.resolve(), target.parent.resolve()))
    lines = [f'"""{title}"""', *(f'# {line}' for line in comments), f'_base_ = {base}']
    lines += [f'{key} = {config_text(value)}' for key, value in difference(old, new).items()]
    text = '\n'.join(lines) + '\n'
    part = target.with_name(f'.{target.stem}.part.py')  # beside it, so that the relative base holds
    try:
        part.write_text(text, encoding='utf-8')
        try:
            again = read_config(part)
        except UserError as error:  # which names a file that is gone then
            raise UserError(str(error).replace(str(part), f'{target} (inheriting {source.path})')) from error
        if again != new:
            keys = [key for key in {**again, **new} if again.get(key) != new.get(key)]
            raise UserError(f'config {str(source.path)!r} cannot be inherited: read back, {", ".join(keys)} differ')
        os.replace(part, target)
    except OSError as error:
        raise UserError(f'output {str(target)!r} was not written: {error.strerror or error}') from None
    finally:
        part.unlink(missing_ok=True)
    return target, text
