"""The model zoo: what every network costs, what the papers reached with it, and which public weights it has.

``tools/write_configs.py`` writes what :func:`zoo_files` yields: ``model-index.yml`` and the metafiles of the OpenMMLab
convention, and ``docs/model_zoo.md``. Sizes are counted (:mod:`.cost`); only what others measured is stated.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from nfnet_mm.converters import PUBLIC_WEIGHTS
from nfnet_mm.converters.hub import PublicWeights
from nfnet_mm.models.backbones.arch import Network, find_network, network_names
from nfnet_mm.recipes import (
    COCO,
    IMAGENET,
    NYU,
    TITLES,
    TRANSFERS,
    VOC,
    Accuracy,
    ImageNetRecipe,
    Task,
    TransferRecipe,
    setting,
)

from .cost import Cost, cost
from .published import ACCURACIES, ARCHITECTURES, CODE, PAPERS

METAFILES = {
    family: f'configs/imagenet/{title.lower().replace("-", "_")}_metafile.yml' for family, title in TITLES.items()
}


def networks(family: str) -> list[Network]:
    """The networks of a family, in the order of the table."""
    return [network for network in map(find_network, network_names()) if network.family == family]


def recipes(family: str) -> list[ImageNetRecipe]:
    """The recipes of a family's networks that are tested on ImageNet, by network, the plain one first."""
    order = [network.name for network in networks(family)]
    rows = [row for row in IMAGENET.values() if row.found.name in order and not row.pretraining]
    return sorted(rows, key=lambda row: (order.index(row.found.name), len(row.name), row.name))


def metafile(family: str) -> dict[str, Any]:
    """The metafile of a family: a model for each recipe, and one for each network of them with public weights."""
    rows = recipes(family)
    models = [_model(row, row.name, row.test_pixels, row.accuracy) for row in rows]
    for network in networks(family):
        plain = next((row for row in rows if row.found == network), None)
        for weights in _weights(network):
            if plain and not weights.name.endswith('_im21k'):  # of other classes
                accuracy, size = ACCURACIES.get(weights.name, (None, plain.test_pixels))
                model = _model(plain, f'{plain.name}_3rdparty', size, accuracy)
                source = dict(Weights=weights.name, Code=CODE[weights.owner], Tool='tools/convert_weights.py')
                models.append({**model, 'Converted From': source})
    data = {'Training Data': 'ImageNet-1k', 'Architecture': ARCHITECTURES[family]}
    collection = dict(Name=TITLES[family], Metadata=data, Paper=PAPERS[family], README='docs/model_zoo.md')
    return dict(Collections=[collection], Models=models)


def _weights(network: Network) -> list[PublicWeights]:
    return [row for row in PUBLIC_WEIGHTS.values() if row.network == network.name]


def _cost(network: Network) -> Cost:
    return cost(network.family, network.key, setting(network).test_size)


def _cost_of(row: ImageNetRecipe, size: int) -> Cost:
    """What a recipe's network costs at a size, as the recipe changes it."""
    return cost(row.found.family, row.design, size)


def _model(row: ImageNetRecipe, name: str, size: int, accuracy: Accuracy | None) -> dict[str, Any]:
    spent = _cost_of(row, size)
    model: dict[str, Any] = {
        'Name': f'{name}_in1k',
        'In Collection': TITLES[row.found.family],
        'Config': row.config,
        'Metadata': {'FLOPs': spent.macs, 'Parameters': spent.parameters, 'Image Size': size},
    }
    if row.start and IMAGENET[row.start].pretraining:
        model['Metadata']['Training Data'] = ['JFT-300M', 'ImageNet-1k']
    if accuracy is not None:
        metrics = {'Top 1 Accuracy': accuracy.top1, 'Top 5 Accuracy': accuracy.top5}
        result = dict(Task='Image Classification', Dataset='ImageNet-1k', Source=accuracy.source)
        model['Results'] = [{**result, 'Metrics': {k: v for k, v in metrics.items() if v is not None}}]
    return model


_INTRODUCTION = """\
# Model zoo

Parameters are those of the classifier with 1000 classes. Multiply-adds (the "FLOPs" of the papers and of OpenMMLab's
metafiles) are those of its convolutions and linear layers for one image of the test size. Both are counted from the
networks themselves. This page, `model-index.yml`, the configs and the metafiles beside them are written by
`python tools/write_configs.py`.

A network is named in commands by its name, and built by its arguments, as `dict(type='nfnet_mm.NFNet', arch='F0')`. The
dialect is the form of weight standardisation, the authors' or timm's: weights work only in the one that they were
trained in ([how it works](how_it_works.md)).

## Public weights

We publish none. [DeepMind][deepmind]'s and [timm][timm]'s are taken by [their names](weights.md) wherever weights are
asked for, and converted by

    python tools/convert_weights.py deepmind/F0 nfnet_f0.pth

which tells the network from the shapes, and tested by `python tools/test.py configs/imagenet/nfnet_f0.py nfnet_f0.pth`.
timm's `dm_nfnet_f0` to `dm_nfnet_f6` hold DeepMind's weights and become F0 to F6, the authors' function; the networks
named `timm/dm_nfnet_*` compute what timm computes with them, which differs a little. The accuracies of public weights
are those that timm measured (its `results/results-imagenet.csv`), at the pixels in brackets.

[deepmind]: {DeepMind}
[timm]: {timm}
"""
_FOOTNOTES = {
    'NFNet': (
        'F+ networks: the first stage is one dense group of 192 channels, as the 527 M parameters and 367 G of the '
        'NFNets,\nTable 5 (Appendix A.5) ask for; by the group rule of the released code F4+ would have 525.0 M, and '
        'its weights would\nnot fit.\n'
    ),
    'NFRegNet': (
        'B2 and B5: the paper has 1.10 G and 10.56 G, for it counts at the fractional sizes that 272 and 456 px have '
        'on the\nway down.\n'
    ),
}
_NETWORKS = (
    'Network | Arguments | Dialect | Test size (px) | Parameters (M) | Multiply-adds (G) | Public weights | '
    'Their top-1 / top-5 (%)'
)
_RECIPES = 'Config | Network | Test size (px) | Multiply-adds (G) | Top-1 (%) | Top-5 (%) | Source | Your top-1 (%)'


def page() -> str:
    """The page of the documentation."""
    text = [_INTRODUCTION.format(**CODE)]
    for family in TITLES:
        paper = PAPERS[family]
        text.append(f'## {TITLES[family]}\n\n[{paper["Title"]}]({paper["URL"]})\n')
        text.append(table(_NETWORKS, map(_network, networks(family))))
        text.append(_FOOTNOTES.get(family, ''))
        text.append('Recipes, and the accuracy that the papers report for them, beside yours:\n')
        text.append(table(_RECIPES, map(_recipe, recipes(family))))
    text.append('## Pre-training\n')
    rows = [row for row in IMAGENET.values() if row.pretraining]
    text.append(table('Config | Network | Epochs', ((link(row), f'`{row.network}`', row.epochs) for row in rows)))
    return '\n'.join(text)


def _network(network: Network) -> tuple[object, ...]:
    spent, weights = _cost(network), [row.name for row in _weights(network)]
    known = [ACCURACIES[name] for name in weights if name in ACCURACIES]
    return (
        f'`{network.name}`',
        '`' + ', '.join(f'{key}={value!r}' for key, value in network.cfg.items() if key != 'type') + '`',
        network.arch.dialect if network.arch.method == 'nf' else None,
        setting(network).test_size,
        f'{spent.parameters / 1e6:.2f}',
        f'{spent.macs / 1e9:.2f}',
        ', '.join(f'`{name}`' for name in weights),
        ', '.join(f'{accuracy.top1:.1f} / {accuracy.top5:.1f} ({size})' for accuracy, size in known),
    )


def _recipe(row: ImageNetRecipe) -> tuple[object, ...]:
    size = row.test_pixels
    macs = f'{_cost_of(row, size).macs / 1e9:.2f}'
    return link(row), f'`{row.found.name}`', size, macs, row.top1, row.top5, row.top1 and row.source, None


def link(row: ImageNetRecipe | TransferRecipe) -> str:
    return f'[{row.name}](../{row.config})'


def table(header: str, rows: Iterable[tuple[object, ...]]) -> str:
    """A Markdown table; None is an empty cell.

    >>> print(table('a | b', [(1, None)]))
    | a | b |
    | --- | --- |
    | 1 |  |
    <BLANKLINE>
    """
    cells = header.split(' | ')
    lines = (cells, ['---'] * len(cells), *(['' if cell is None else str(cell) for cell in row] for row in rows))
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


RESULTS = {'docs/detection.md': COCO, 'docs/segmentation.md': VOC, 'docs/depth.md': NYU}


def results(task: Task) -> str:
    """What the papers report of a task's recipes, beside yours."""
    rows = [row for row in TRANSFERS.values() if row.task is task]
    times = task.total_batch // task.batch
    text = f'Batch {task.total_batch}: {task.batch} images on each GPU, so that one GPU accumulates {times} times.\n\n'
    figures = [task.figures.format(*row.figures) if row.figures else 'in neither paper' for row in rows]
    return text + table(f'Config | {task.source} | Yours', zip(map(link, rows), figures, [None] * len(rows)))


def with_results(page: str, table: str) -> str:
    r"""A page of the documentation with what stands between its two marks replaced.

    Example:
        >>> with_results('Results: <!-- written -->\nold\n<!-- end --> Then', 'new\n')
        'Results: <!-- written -->\nnew\n<!-- end --> Then'
    """
    begin, end = '<!-- written -->\n', '<!-- end -->'
    return page[: page.index(begin) + len(begin)] + table + page[page.index(end) :]


def result_files(root: Path) -> dict[str, str]:
    """{path from the root of a working tree: its text} of the pages in which results are written."""
    tables = {page: results(task) for page, task in RESULTS.items()}
    return {page: with_results((root / page).read_text(), table) for page, table in tables.items()}


def zoo_files() -> dict[str, str]:
    """{path from the root of a working tree: its text} of all files of the model zoo."""
    data = {'model-index.yml': dict(Import=list(METAFILES.values()))}
    data |= {path: metafile(family) for family, path in METAFILES.items()}
    texts = {
        path: '# Written by tools/write_configs.py.\n' + yaml.dump(content, Dumper=_Plain, sort_keys=False, width=120)
        for path, content in data.items()
    }
    return {**texts, 'docs/model_zoo.md': page()}


class _Plain(yaml.SafeDumper):
    """Without anchors for values that appear twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
