"""The public weights: a row for each, with its address and licence. Adding one is adding a row."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nfnet_mm.errors import did_you_mean, some
from nfnet_mm.models.backbones.arch import find_network

from ..errors import ReadError

HUGGING_FACE = 'https://huggingface.co'
_GOOGLE = 'https://storage.googleapis.com'


@dataclass(frozen=True)
class PublicWeights:
    """Weights that others trained and published."""

    name: str  # what users call them by: their publisher's folder and name
    url: str  # of a file, or ending in a slash, of a folder in a bucket of Google's
    kind: Literal['pickle', 'safetensors', 'orbax']
    network: str  # the full name of the network whose function they were published for
    licence: str
    checksum: str | None = None  # 'md5:' or 'sha256:' and hexadecimal digits, the first ones at least

    @property
    def owner(self) -> str:
        """Who published them, 'DeepMind' or 'timm'."""
        return 'DeepMind' if self.name.startswith('deepmind/') else 'timm'

    @property
    def file(self) -> str:
        """The path that they are kept under: the owner's folder, and a name that tells them apart there."""
        suffix = '.safetensors' if self.kind == 'safetensors' else ''
        last = self.url.rpartition('/')[2] if self.kind == 'pickle' else self.name.partition('/')[2] + suffix
        return f'{self.name.partition("/")[0]}/{last}'


def _rows() -> list[PublicWeights]:
    # The table of https://github.com/google-deepmind/deepmind-research/tree/master/nfnets, under that repository's
    # licence. Its checksums are those that https://github.com/ethanluoyc/jam recorded.
    md5 = (
        '0a41039da1cb43adf47f1b7d86ddfe0f',
        'c9126bbfaf855f9ddb7ff3b902558781',
        '7a018d8d1498020e2f5a8719a1e7f53f',
        'd8e1e78d26db659c486150dbaccbe78a',
        'f5974a7e3388aa81b91a9f1403e759a4',
        '8639e925de951030651ac775b9f915c3',
        'b16cca40ac1ecec2bd5e3273866da0c1',
    )
    rows = [
        PublicWeights(
            f'deepmind/F{n}',
            f'{_GOOGLE}/dm-nfnets/F{n}_haiku.npz',
            'pickle',
            f'nfnet_f{n}',
            'Apache-2.0',
            f'md5:{digest}',
        )
        for n, digest in enumerate(md5)
    ]
    # Pre-trained on ImageNet-21k; https://github.com/google-deepmind/jax_privacy, version 0.3.0, lists and reads them.
    rows += [
        PublicWeights(
            f'deepmind/nfnet_f{n}_im21k',
            f'{_GOOGLE}/dm_jax_privacy/models/nfnet_f{n}_im21k/',
            'orbax',
            f'nfnet_f{n}',
            'CC-BY-4.0',
        )
        for n in (0, 1, 3)
    ]
    # Those of timm 1.0.31 (timm/models/nfnet.py), which loads them from here.
    rows += [
        PublicWeights(
            f'timm/{name}',
            f'{HUGGING_FACE}/timm/{name}/resolve/main/model.safetensors',
            'safetensors',
            find_network(f'timm/{name.partition(".")[0]}').name,
            'Apache-2.0',
        )
        for name in (
            *(f'dm_nfnet_f{n}.dm_in1k' for n in range(7)),
            'nfnet_l0.ra2_in1k',
            'eca_nfnet_l0.ra2_in1k',
            'eca_nfnet_l1.ra2_in1k',
            'eca_nfnet_l2.ra3_in1k',
            'nf_resnet50.ra2_in1k',
            'nf_regnet_b1.ra2_in1k',
            'test_nfnet.r160_in1k',
        )
    ]
    return rows


PUBLIC_WEIGHTS: Mapping[str, PublicWeights] = {row.name: row for row in _rows()}


def find_public(name: str) -> PublicWeights:
    """The row of a name; timm's may be without the training behind the dot.

    Raises:
        ReadError: there is none; the message lists near names.

    Example:
        >>> find_public('timm/nf_resnet50').url
        'https://huggingface.co/timm/nf_resnet50.ra2_in1k/resolve/main/model.safetensors'
        >>> find_public('deepmind/f0')
        Traceback (most recent call last):
        ...
        nfnet_mm.converters.errors.ReadError: 'deepmind/f0' names no public weights. Did you mean 'deepmind/F0'?
    """
    for row in PUBLIC_WEIGHTS.values():
        if name in (row.name, row.name.partition('.')[0]):
            return row
    raise ReadError(f'{name!r} names no public weights.{near_names(name) or f" They are {some(PUBLIC_WEIGHTS, 30)}"}')


def near_names(name: str) -> str:
    """`` Did you mean ...?`` with the names of weights that somebody may have meant; else nothing."""
    bare = name.lower().rpartition('/')[2]
    same = [
        row.name
        for row in PUBLIC_WEIGHTS.values()
        if bare in (row.name.lower().partition('/')[2], row.name.lower().partition('/')[2].partition('.')[0])
    ]
    same = same or [row.name for row in PUBLIC_WEIGHTS.values() if bare == row.network.rpartition('/')[2]]
    return f' Did you mean {" or ".join(map(repr, same))}?' if same else did_you_mean(name, PUBLIC_WEIGHTS, 2)
