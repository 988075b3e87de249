"""The model zoo: what every variant costs, what the papers reached with it, and which public weights it has.

``tools/model_zoo.py`` writes what :func:`zoo_files` yields: ``model-index.yml`` and the metafiles of the OpenMMLab
convention, and ``docs/model_zoo.md``. The variants come from ``FAMILIES``, the recipes from ``configs/imagenet``, the
sizes are counted (:mod:`.cost`); only what others measured is stated (:mod:`.published`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config

from nfnet_mm.models.backbones.arch import FAMILIES, NFArch, resolve_arch

from .cost import cost
from .published import CODE, PAPER_ACCURACY, PAPERS, PUBLIC_WEIGHTS, TWIN_ACCURACY, Accuracy, Weights

CONFIGS = 'configs/imagenet'
METAFILES = {
    family: f'{CONFIGS}/{name}_metafile.yml'
    for family, name in (('NFNet', 'nfnet'), ('NFResNet', 'nf_resnet'), ('NFRegNet', 'nf_regnet'))
}
TITLES = {'NFNet': 'NFNet', 'NFResNet': 'NF-ResNet', 'NFRegNet': 'NF-RegNet'}


@dataclass(frozen=True)
class Recipe:
    """A config of ``configs/imagenet`` that is tested on ImageNet with one of our networks."""

    name: str
    family: str
    arch: str
    size: int  # test images, in pixels
    finetuned: bool

    @property
    def config(self) -> str:
        return f'{CONFIGS}/{self.name}.py'

    @property
    def row(self) -> NFArch:
        return resolve_arch(self.family, self.arch)


def read_recipes(root: str | Path) -> list[Recipe]:
    """The recipes of a working tree. Those of other networks, or without a test (pre-training), are none."""
    recipes = []
    for path in Path(root, CONFIGS).glob('*.py'):
        config = Config.fromfile(path)
        backbone = config.model.backbone
        family = backbone.type.removeprefix('nfnet_mm.')
        if family not in FAMILIES or not config.get('test_dataloader'):
            continue
        size = next(step.crop_size for step in config.test_dataloader.dataset.pipeline if step.type == 'CenterCrop')
        recipes.append(
            Recipe(
                path.stem,
                family,
                str(backbone.get('arch') or backbone.depth),
                size,
                finetuned=bool(backbone.get('init_cfg')),
            )
        )
    # by family, in the order of its table, the plain recipe of each variant first
    order = {
        (family, arch): i
        for i, (family, arch) in enumerate((family, arch) for family, (_, rows) in FAMILIES.items() for arch in rows)
    }
    return sorted(recipes, key=lambda r: (order[r.family, r.arch], len(r.name), r.name))


def variants(family: str) -> list[tuple[tuple[str, ...], NFArch]]:
    """The variants of a family, each with all of its names.

    Example:
        >>> [names for names, row in variants('NFNet') if len(names) > 1][0]
        ('L0', 'nfnet_l0')
    """
    names = {}
    for name, row in FAMILIES[family][1].items():
        names.setdefault(row, []).append(name)
    return [(tuple(same), row) for row, same in names.items()]


def weights_of(names: Iterable[str]) -> Weights | None:
    """The public weights of the variant that bears these names, if any."""
    return next((PUBLIC_WEIGHTS[name] for name in names if name in PUBLIC_WEIGHTS), None)


def metafile(family: str, recipes: Iterable[Recipe]) -> dict[str, Any]:
    """The metafile of a family: a model for each recipe, and one for each variant of them with public weights."""
    collection = dict(
        Name=TITLES[family],
        Metadata={'Training Data': 'ImageNet-1k', 'Architecture': 'Scaled Weight Standardization'},
        Paper=PAPERS[family],
        README='docs/model_zoo.md',
    )
    recipes = [recipe for recipe in recipes if recipe.family == family]
    models = [_model(r, r.name, r.size, PAPER_ACCURACY.get(r.name)) for r in recipes]
    for names, row in variants(family):
        weights = weights_of(names)
        plain = min((r for r in recipes if r.row == row), key=lambda r: len(r.name), default=None)
        if weights is not None and plain is not None:
            model = _model(plain, f'{plain.name}_3rdparty', weights.size or plain.size, weights.accuracy)
            model['Converted From'] = dict(
                Weights=weights.file, Code=CODE[weights.owner], Tool='tools/convert_weights.py'
            )
            models.append(model)
    return dict(Collections=[collection], Models=models)


def _model(recipe: Recipe, name: str, size: int, accuracy: Accuracy | None) -> dict[str, Any]:
    spent = cost(recipe.family, recipe.row, size)
    model = {
        'Name': f'{name}_in1k',
        'In Collection': TITLES[recipe.family],
        'Config': recipe.config,
        'Metadata': {'FLOPs': spent.macs, 'Parameters': spent.parameters, 'Image Size': size},
    }
    if recipe.finetuned:
        model['Metadata']['Training Data'] = ['JFT-300M', 'ImageNet-1k']
    if accuracy is not None:
        metrics = {'Top 1 Accuracy': accuracy.top1, 'Top 5 Accuracy': accuracy.top5}
        model['Results'] = [
            dict(
                Task='Image Classification',
                Dataset='ImageNet-1k',
                Source=accuracy.source,
                Metrics={k: v for k, v in metrics.items() if v is not None},
            )
        ]
    return model


_INTRODUCTION = """\
# Model zoo

Parameters are those of the classifier with 1000 classes. Multiply-adds (the "FLOPs" of the papers and of OpenMMLab's
metafiles) are those of its convolutions and linear layers for one image of the test size. Both are counted from the
networks themselves. This page, `model-index.yml` and the metafiles beside the configs are written by
`python tools/model_zoo.py`.

The dialect is that of the weight standardization: weights work only in the one they were trained in. A variant is
built by its name, `dict(type='nfnet_mm.NFNet', arch='F0')`; an NF-ResNet named by a number by
`dict(type='nfnet_mm.NFResNet', depth=50)`.

## Public weights

We publish none. DeepMind's (`F0_haiku.npz` to `F6_haiku.npz`, from [the page of their code][deepmind]) and
[timm][timm]'s (listed by timm's names) are converted by

    python tools/convert_weights.py F0_haiku.npz nfnet_f0.pth

which tells the variant from the shapes, and tested by `python tools/test.py configs/imagenet/nfnet_f0.py nfnet_f0.pth`.
timm's `dm_nfnet_f0` to `dm_nfnet_f6` hold DeepMind's weights and become F0 to F6, the authors' function; the variants
named `dm_nfnet_*` compute what timm computes with them, which differs a little. The accuracies of public weights are
those that timm measured (its `results/results-imagenet.csv`), at the pixels in brackets.

[deepmind]: {DeepMind}
[timm]: {timm}
"""


def page(recipes: Iterable[Recipe], others: Iterable[str] = ()) -> str:
    """The page of the documentation; ``others`` names the configs that are no recipes of ours."""
    recipes, text = list(recipes), [_INTRODUCTION.format(**CODE)]
    for family in FAMILIES:
        paper = PAPERS[family]
        text.append(f'## {TITLES[family]}\n\n[{paper["Title"]}]({paper["URL"]})\n')
        text.append(
            _table(
                (
                    'Variant',
                    'Dialect',
                    'Test size (px)',
                    'Parameters (M)',
                    'Multiply-adds (G)',
                    'Public weights',
                    'Their top-1 / top-5 (%)',
                ),
                (_variant(family, names, row) for names, row in variants(family)),
            )
        )
        text.append('Recipes, and the accuracy that the papers report for them, beside yours:\n')
        text.append(
            _table(
                (
                    'Config',
                    'Variant',
                    'Test size (px)',
                    'Multiply-adds (G)',
                    'Top-1 (%)',
                    'Top-5 (%)',
                    'Source',
                    'Your top-1 (%)',
                ),
                (_recipe(recipe) for recipe in recipes if recipe.family == family),
            )
        )
    text.append('## BatchNorm twins, and pre-training\n')
    text.append(_table(('Config', 'Top-1 (%)', 'Source', 'Your top-1 (%)'), map(_other, others)))
    return '\n'.join(text)


def _variant(family: str, names: tuple[str, ...], row: NFArch) -> tuple[str, ...]:
    spent, weights = cost(family, row), weights_of(names)
    accuracy = weights and weights.accuracy
    return (
        ', '.join(f'`{name}`' for name in names),
        row.dialect,
        str(row.test_size),
        f'{spent.parameters / 1e6:.2f}',
        f'{spent.macs / 1e9:.2f}',
        f'{weights.owner}: `{weights.file}`' if weights else '',
        f'{accuracy.top1:.1f} / {accuracy.top5:.1f} ({weights.size})' if accuracy else '',
    )


def _recipe(recipe: Recipe) -> tuple[str, ...]:
    accuracy = PAPER_ACCURACY.get(recipe.name, Accuracy('', None, ''))
    spent = cost(recipe.family, recipe.row, recipe.size)
    return (
        f'[{recipe.name}](../{recipe.config})',
        f'`{recipe.arch}`',
        str(recipe.size),
        f'{spent.macs / 1e9:.2f}',
        str(accuracy.top1),
        str(accuracy.top5 or ''),
        accuracy.source,
        '',
    )


def _other(name: str) -> tuple[str, ...]:
    accuracy = TWIN_ACCURACY.get(name)
    return (
        f'[{name}](../{CONFIGS}/{name}.py)',
        str(accuracy.top1) if accuracy else '',
        accuracy.source if accuracy else '',
        '',
    )


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table.

    >>> print(_table(('a', 'b'), [('1', '')]))
    | a | b |
    | --- | --- |
    | 1 |  |
    <BLANKLINE>
    """
    lines = (header, ('---',) * len(header), *rows)
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def zoo_files(root: str | Path) -> dict[str, str]:
    """{path from ``root``: its text} of all files of the model zoo, for the configs in a working tree."""
    recipes = read_recipes(root)
    data = {'model-index.yml': dict(Import=list(METAFILES.values()))}
    data.update((path, metafile(family, recipes)) for family, path in METAFILES.items())
    texts = {
        path: '# Written by tools/model_zoo.py.\n' + yaml.dump(content, Dumper=_Plain, sort_keys=False, width=120)
        for path, content in data.items()
    }
    names = {path.stem for path in Path(root, CONFIGS).glob('*.py')} - {recipe.name for recipe in recipes}
    others = sorted(names, key=lambda name: [int(s) if s.isdigit() else s for s in re.split(r'(\d+)', name)])
    return {**texts, 'docs/model_zoo.md': page(recipes, others)}


class _Plain(yaml.SafeDumper):
    """Without anchors for values that appear twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
