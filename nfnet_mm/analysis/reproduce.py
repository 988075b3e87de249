"""Every table and figure of the two papers as commands: ``tools/write_configs.py`` writes docs/reproduce.md from it.

What an experiment is, is a row of :mod:`nfnet_mm.recipes`; here it only says which of them, with which options, make a
table. What needs no training has the command that draws it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nfnet_mm.recipes import IMAGENET, SAM_FRACTION, TRANSFERS, ImageNetRecipe, TransferRecipe

from .cost import cost
from .model_zoo import table


@dataclass(frozen=True)
class Run:
    """One training of a table."""

    what: str
    recipe: str  # the name of its row
    options: Mapping[str, Any] = field(default_factory=dict)  # for --cfg-options
    figure: str | None = None  # the paper's, where it is not the row's own

    @property
    def command(self) -> str:
        """What to type.

        Example:
            >>> Run('', 'nf_resnet50_agc', {'train_cfg.total_batch': 512}).command
            'python tools/train.py configs/imagenet/nf_resnet50_agc.py --cfg-options train_cfg.total_batch=512'
        """
        config = _row(self.recipe).config
        options = ''.join(f' {key}={_typed(value)}' for key, value in self.options.items())
        return f'python tools/train.py {config}{" --cfg-options" if options else ""}{options}'

    @property
    def paper(self) -> str | None:
        """The paper's figure."""
        if self.figure is not None:
            return self.figure
        row = _row(self.recipe)
        if not isinstance(row, ImageNetRecipe):
            return row.task.figures.format(*row.figures) if row.figures else None
        return None if row.top1 is None else f'{row.top1} / {row.top5}' if row.top5 else str(row.top1)

    @property
    def exaflop(self) -> float | None:
        """Floating-point operations of a classifier's training, in 10^18: two for each multiply-add, three passes.

        Example:
            >>> round(Run('', 'nf_resnet50').exaflop, 1)  # 90 epochs of 4.1 GMAC
            2.8
        """
        row = _row(self.recipe)
        if not isinstance(row, ImageNetRecipe):
            return None
        macs = cost(row.found.family, row.design, row.resolved.train_size).macs
        return 6 * macs * row.max_iters * row.total_batch * (1 + SAM_FRACTION * row.sam) / 1e18


@dataclass(frozen=True)
class Item:
    """A table or figure of a paper."""

    place: str
    shows: str
    runs: tuple[Run, ...] = ()
    otherwise: str = ''  # what stands for the runs where there are none


def _row(name: str) -> ImageNetRecipe | TransferRecipe:
    return IMAGENET.get(name) or TRANSFERS[name]


def _typed(value: Any) -> str:
    """A value as ``--cfg-options`` reads it, safe from the shell."""
    return f"'[{','.join(value)}]'" if isinstance(value, list) else str(value)


def _runs(*names: str) -> tuple[Run, ...]:
    return tuple(Run(_row(name).title, name) for name in names)


def _resnets() -> Iterator[Run]:
    kinds = (
        ('FixUp', 'fixup', '_unregularised', ''),
        ('SkipInit', 'skipinit', '_unregularised', ''),
        ('NF', 'nf', '_unregularised', ''),
        ('BatchNorm', 'bn', '', '_regularised'),
    )
    for depth in (50, 101, 152, 200, 288):
        for title, kind, *endings in kinds:
            for what, ending in zip(('unregularised', 'dropout and stochastic depth'), endings):
                yield Run(f'{title}, {depth} layers, {what}', f'{kind}_resnet{depth}{ending}')


def _at(batch: int, recipe: str) -> dict[str, Any]:
    """The options that train a recipe with another total batch, the epochs as they are."""
    row = IMAGENET[recipe]
    options: dict[str, Any] = {}
    if batch != row.total_batch:
        options['train_cfg.total_batch'] = batch
    if batch < row.batch * row.devices:
        options['train_dataloader.batch_size'] = batch // row.devices
    return options


_BATCHES = (256, 512, 1024, 2048, 4096)
_CLIPPINGS = (0.01, 0.02, 0.04, 0.08, 0.16)


def _batch_sizes() -> Iterator[Run]:
    for depth in (50, 200):
        for batch in _BATCHES:
            for what, name in (('without AGC', f'nf_resnet{depth}'), ('BatchNorm', f'bn_resnet{depth}')):
                yield Run(f'{depth} layers, batch {batch}, {what}', name, _at(batch, name), '')


def _clippings(depth: int) -> Iterator[Run]:
    name = f'nf_resnet{depth}_agc'
    for batch in _BATCHES:
        for clipping in _CLIPPINGS:
            options = _at(batch, name)
            if clipping != IMAGENET[name].agc:
                options['optim_wrapper.agc.clipping'] = clipping
            yield Run(f'{depth} layers, batch {batch}, AGC {clipping}', name, options, '')


def _clipped_layers() -> Iterator[Run]:
    excluded, last = 'optim_wrapper.paramwise_cfg.agc_exclude', 'optim_wrapper.paramwise_cfg.agc_last_layers'
    for depth in (50, 200):
        name = f'nf_resnet{depth}_agc'
        yield Run(f'{depth} layers, all but the classifier', name, figure='')
        yield Run(f'{depth} layers, all', name, {last: True}, 'worse')
        yield Run(f'{depth} layers, not the first conv', name, {excluded: ['backbone.stem.*']}, 'often stable')
        for stage in range(4):
            options = {excluded: [f'backbone.stages.{stage}.*']}
            yield Run(f'{depth} layers, not stage {stage + 1}', name, options, 'unstable')


def _ablation() -> Iterator[Run]:
    steps = dict(
        baseline='Baseline',
        modified_width='+ modified width',
        second_conv='+ second conv',
        mixup='+ MixUp',
        randaugment='+ RandAugment',
    )
    for n in range(4):
        for step, what in steps.items():
            yield Run(f'F{n}: {what}', f'nfnet_f{n}_{step}')
        yield Run(f'F{n}: + CutMix (the full recipe)', f'nfnet_f{n}', figure=f'{IMAGENET[f"nfnet_f{n}"].top1}')
        yield Run(f'F{n}: default width and augmentation', f'nfnet_f{n}_default_width')


def _fine_tuning() -> Iterator[Run]:
    for depth in (50, 101, 152, 200):
        for kind, title in (('nf', 'NF'), ('bn', 'BatchNorm')):
            name = f'{kind}_resnet{depth}'
            yield Run(f'{title}, {depth} layers, pre-training', f'pretrain_{name}')
            for size in (224, 320, 384):
                yield Run(f'{title}, {depth} layers, {size} px', f'finetune_{name}_{size}px', {'weights': 'PRETRAINED'})


def _tasks(task: str) -> tuple[Run, ...]:
    return _runs(*(name for name in TRANSFERS if name.startswith(task)))


_NF_RESNETS, _NFNETS = 'NF-ResNets', 'NFNets'
_ZOO = 'The [model zoo](model_zoo.md) counts it.'
_DESIGN = '`python -m nfnet_mm.models.backbones {}` prints the blocks.'
_SPEED = 'Training speed'
_LATENCIES = '`python -m nfnet_mm benchmark --suite papers --out DIR` [measures it](performance.md#the-suites).'


def _signal(*figures: int) -> str:
    drawn = '`, `'.join(f'python -m nfnet_mm signal --figure {figure} --out DIR' for figure in figures)
    return (
        f'`{drawn}` draws {"it" if len(figures) == 1 else "them"}: [what is in it](signal_propagation.md#the-figures).'
    )


PAPERS: Mapping[str, tuple[Item, ...]] = {
    _NF_RESNETS: (
        Item(
            'Figure 1',
            'Signal propagation of a BatchNorm ResNet-600 in both orders of BatchNorm and ReLU',
            otherwise=_signal(1),
        ),
        Item(
            'Figure 2',
            'The same of a BatchNorm ResNet-600, and of an NF-ResNet-600 with and without standardisation',
            otherwise=_signal(2),
        ),
        Item('Table 1', 'ImageNet top-1 (%), five seeds', tuple(_resnets())),
        Item(
            'Table 2',
            'ImageNet top-1 (%) of small batches, 15 epochs',
            tuple(
                Run(f'{title}, batch {batch}', f'{kind}_resnet50_15e_batch{batch}')
                for batch in (1024, 8, 4)
                for kind, title in (('nf', 'NF-ResNet-50'), ('bn', 'BN-ResNet-50'))
            ),
        ),
        Item('Figure 3', 'ImageNet top-1 against multiply-adds', otherwise=f'Of the runs of Table 3. {_ZOO}'),
        Item(
            'Table 3',
            'ImageNet top-1 (%) of NF-RegNets without and with MixUp and CutMix, five seeds',
            tuple(
                Run(f'B{n}, {what}', f'nf_regnet_b{n}{ending}')
                for n in range(6)
                for what, ending in (('crops and flips', '_crops'), ('MixUp and CutMix', ''))
            ),
        ),
        Item('Table 4', f'{_SPEED} of NF- and BatchNorm ResNets', otherwise=_LATENCIES),
        Item('Table 5', f'{_SPEED} of NF-RegNets', otherwise=_LATENCIES),
        Item('Figures 4 and 5', 'Blocks of the BatchNorm ResNets', otherwise=_DESIGN.format('BNResNet 50')),
        Item(
            'Figures 6 to 11',
            'Signal propagation of networks of 600 layers with one thing wrong, or another design',
            otherwise=_signal(*range(6, 12)),
        ),
        Item('Table 6', 'Pascal VOC 2012 val, FCN', _tasks('fcn')),
        Item('Table 7', 'NYU Depth v2', _tasks('depth')),
    ),
    _NFNETS: (
        Item(
            'Figures 1 and 4',
            'ImageNet top-1 against latency and multiply-adds',
            otherwise=f'Of Table 3. {_ZOO} The latencies: {_LATENCIES}',
        ),
        Item(
            'Figure 2 (a)', 'Batch sizes, without AGC; with AGC: the best of Figures 2 (b) and 7', tuple(_batch_sizes())
        ),
        Item('Figure 2 (b)', 'Batch sizes and clipping factors, 50 layers', tuple(_clippings(50))),
        Item('Figure 7', 'The same, 200 layers', tuple(_clippings(200))),
        Item(
            'Section 4',
            'What else clips or scales gradients',
            (
                Run('Clipping by the norm of the whole gradient', 'nf_resnet50_clip_norm', figure='sensitive'),
                Run('LARS', 'nf_resnet50_lars', figure='stable, but worse'),
            ),
        ),
        Item('Section 4.1', 'Which layers are clipped, batch 4096', tuple(_clipped_layers())),
        Item('Table 1', 'The variants', otherwise=_ZOO),
        Item('Figures 3, 5, 6', 'The blocks', otherwise=_DESIGN.format('NFNet F0')),
        Item(
            'Figure 8',
            'Squeeze-Excite about a conv, which the authors tried and dropped (Appendix E)',
            otherwise='Not built: it made no network better at the same latency, and the paper has no figures of it.',
        ),
        Item('Table 2', 'ImageNet top-1 (%) of what was added, three seeds', tuple(_ablation())),
        Item(
            'Table 6',
            "The same with latencies, and BatchNorm in the normalizer-free parts' place",
            tuple(Run(f'F{n}: - NF, + BatchNorm', f'bn_nfnet_f{n}') for n in range(4)),
        ),
        Item(
            'Table 3',
            'ImageNet top-1 / top-5 (%)',
            _runs(*(f'nfnet_f{n}' for n in range(6)))
            + tuple(Run(f'NFNet-F{n} with SAM', f'nfnet_f{n}_sam') for n in (5, 6)),
        ),
        Item('Table 4', 'ImageNet top-1 (%) after pre-training on a large labelled set', tuple(_fine_tuning())),
        Item('Table 5', 'COCO, Mask R-CNN + FPN (in the ICML version)', _tasks('mask_rcnn')),
        Item(
            'Appendix A.5, Table 5',
            'ImageNet top-1 (%) of the largest networks after pre-training',
            tuple(
                Run(f'NFNet-{key}, {what}', f'{kind}_{name}', {'weights': 'PRETRAINED'} if kind == 'finetune' else {})
                for key, name in (('F4', 'nfnet_f4'), ('F4+', 'nfnet_f4plus'))
                for what, kind in (('pre-training', 'pretrain'), ('fine-tuning', 'finetune'))
            ),
        ),
    ),
}

_INTRODUCTION = """\
# Reproduce the papers

Every table and figure of the two papers, each with its command, the paper's figure and room for yours. This page is
written from `nfnet_mm/recipes` by `python tools/write_configs.py`.

- A command is for one GPU or the CPU; `bash tools/dist_train.sh CONFIG 8` and what else there is for many is told
  [here](README.md#commands). The total batch is the same on any number of them.
- `train_cfg.total_batch` keeps the epochs, and scales the learning rate with the batch as the papers do.
- `weights=PRETRAINED` names the last checkpoint of the pre-training.
- Single runs differ: the papers' figures are of several seeds where that is said. Where none stands, the paper has a
  curve, or the figure is not at hand.

What they need:

- ImageNet-1k for all trainings in `configs/imagenet` (1.28 million pictures, 150 GB, [laid out so](imagenet.md#data)),
  but for the pre-trainings, which take ImageNet-21k or another large set (14.2 million, 1.3 TB) in the place of
  JFT-300M, which is not public. [COCO](detection.md), [Pascal VOC](segmentation.md) and [NYU](depth.md) have their
  pages.
- EFLOP, where it stands, is the arithmetic of one training: 10^18 operations, two for each multiply-add of convs and
  linear layers, a backward pass counted as two forward ones, and SAM's first passes. A GPU that gets through 400
  TFLOP/s (an H100 at 40% of its dense bfloat16 peak) does 1.44 EFLOP an hour: on paper it has NFNet-F0's recipe done in
  {f0:.0f} hours and F5's in {f5:.0f}. What it really gets through, `python -m nfnet_mm cost CONFIG` tells by a step, of
  detectors, segmentors and depth models, too. Validation comes on top, and what activation checkpointing repeats.
- Figures of signal propagation need minutes on two CPU cores; latencies need a GPU and minutes.
"""
_TFLOPS = 400


def _section(item: Item) -> Iterable[str]:
    yield f'### {item.place}: {item.shows}\n'
    if item.runs:
        costs = [work and f'{work:.3g}' for work in (run.exaflop for run in item.runs)]
        rows: list[tuple[object, ...]] = [(run.what, f'`{run.command}`', run.paper, None) for run in item.runs]
        heads = 'What | Command | Paper | Yours'
        if any(costs):
            heads, rows = f'{heads} | EFLOP', [(*row, one) for row, one in zip(rows, costs)]
        yield table(heads, rows)
    else:
        yield f'{item.otherwise}\n'


def page() -> str:
    """The page of the documentation."""
    hours = {n: Run('', f'nfnet_f{n}').exaflop / (_TFLOPS * 3600 / 1e6) for n in (0, 5)}  # type: ignore[operator]
    text = [_INTRODUCTION.format(f0=hours[0], f5=hours[5])]
    for paper, items in PAPERS.items():
        text.append(f'## {paper}\n')
        text += [part for item in items for part in _section(item)]
    return '\n'.join(text)


def reproduce_files() -> dict[str, str]:
    """{path from the root of a working tree: its text} of the page."""
    return {'docs/reproduce.md': page()}
