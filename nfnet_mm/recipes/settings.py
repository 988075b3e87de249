"""What a network is trained and tested with wherever a recipe does not say otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass

from nfnet_mm.models.backbones.arch import Network


@dataclass(frozen=True)
class Setting:
    """Image sizes in pixels, dropout before the classifier, RandAugment's magnitude (None: no RandAugment)."""

    train_size: int
    test_size: int
    dropout: float = 0.0
    randaugment: int | None = None


def _settings() -> dict[str, Setting]:
    """By the full name of a network."""
    rows: dict[str, Setting] = {}
    for n, row in enumerate(  # NFNets, Table 1 and Appendix A.3
        (
            Setting(192, 256, 0.2, 5),
            Setting(224, 320, 0.3, 10),
            Setting(256, 352, 0.4, 10),
            Setting(320, 416, 0.4, 15),
            Setting(384, 512, 0.5, 15),
            Setting(416, 544, 0.5, 15),
            Setting(448, 576, 0.5, 15),
            Setting(480, 608, 0.5, 15),  # F7: the authors' code
        )
    ):
        names = ('nfnet_f{}', 'nfnet_f{}+', 'bn_nfnet_f{}', 'timm/nfnet_f{}', 'timm/dm_nfnet_f{}')
        rows |= {name.format(n): row for name in names}
    # timm's light shapes, with its sizes; a choice: dropout as of the NFNet of the same depth, RandAugment as of that
    # of the nearest training size.
    rows |= {'nfnet_l0': Setting(224, 288, 0.2, 10), 'eca_nfnet_l0': Setting(224, 288, 0.2, 10)}
    rows |= {'eca_nfnet_l1': Setting(256, 320, 0.3, 10), 'eca_nfnet_l2': Setting(320, 384, 0.4, 15)}
    rows['eca_nfnet_l3'] = Setting(352, 448, 0.4, 15)
    rows['nfnet_nano'] = Setting(128, 128)
    rows['timm/test_nfnet'] = Setting(160, 160)
    # NF-ResNets, section 5.1; tested at 224 px (the authors' code)
    for depth in (26, 50, 101, 152, 200, 288, 600):
        rows |= {f'{kind}_resnet{depth}': Setting(224, 224, 0.25) for kind in ('nf', 'bn', 'fixup', 'skipinit')}
        rows |= {f'timm/nf_{attention}resnet{depth}': Setting(256, 288) for attention in ('', 'se', 'eca')}
    for n, row in enumerate(  # NF-ResNets, Appendix D.2; B1 is trained at 240 px there, at 224 in the authors' code
        (
            Setting(192, 224, 0.2),
            Setting(224, 256, 0.2),
            Setting(240, 272, 0.3),
            Setting(288, 320, 0.3),
            Setting(320, 384, 0.4),
            Setting(384, 456, 0.4),
            Setting(448, 528, 0.5),
            Setting(512, 600, 0.5),
            Setting(600, 672, 0.5),
        )
    ):
        rows |= {f'nf_regnet_b{n}': row, f'timm/nf_regnet_b{n}': row}
    return rows


_SETTINGS: Mapping[str, Setting] = _settings()


def setting(network: Network) -> Setting:
    """The setting of a network of the table; 224 px and nothing else where it has no row.

    Example:
        >>> from nfnet_mm.models.backbones.arch import find_network
        >>> setting(find_network('nfnet_f1'))
        Setting(train_size=224, test_size=320, dropout=0.3, randaugment=10)
    """
    return _SETTINGS.get(network.name, Setting(224, 224))
