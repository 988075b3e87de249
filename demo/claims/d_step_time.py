"""(d) What a training step takes in a normalizer-free network and in the same with BatchNorm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nfnet_mm.benchmark import Row, Run, Runner
from nfnet_mm.benchmark.statistics import paired_ratio
from nfnet_mm.errors import UserError

from .claim import Claim, Found, Verdict

SIZE = 64
# by title: ours and theirs, as `python -m nfnet_mm benchmark` takes them; the NF-ResNets' paper has no AGC
PAIRS = {
    'NF-ResNet-50 / BatchNorm ResNet-50': ('nf_resnet50,agc=False', 'bn_resnet50'),
    'NFNet-F0 with AGC / the same with BatchNorm': ('nfnet_f0', 'bn_nfnet_f0'),
}
_TINY = {'NFNet nano / the same with BatchNorm': ('nfnet_nano', 'bn_nfnet_nano')}


def measure(seed: int, quick: bool, folder: Path) -> Found:
    """Seconds of steps in turns: ``{title: [ours, theirs]}``. The seeds are repetitions."""
    settings = dict(device='cpu', dtype='float32', layout='contiguous', batch=4, size=SIZE)
    runner = Runner(Run(settings, pairs=3))
    rows = [Row(title, 'train', ours, theirs) for title, (ours, theirs) in (_TINY if quick else PAIRS).items()]
    results = {}
    for result in runner.results(rows):
        if result.failure:
            raise UserError(f'{result.row.what}: {result.failure}')
        results[result.row.what] = [side.values for side in result.sides]
    return results


def ratio(found: Sequence[Found], title: str) -> Any:
    """The median ratio of all pairs of all repetitions, and its interval."""
    return paired_ratio(*([seconds for one in found for seconds in one[title][side]] for side in (0, 1)))


def judge(found: Sequence[Found]) -> Verdict:
    """Whether the normalizer-free network is the faster one."""
    ratios = {title: ratio(found, title) for title in found[0]}
    words = [
        f'{title}: {r.median:.2f} times as long, '
        f'{"faster" if r.high < 1 else "SLOWER" if r.low > 1 else "no difference that is larger than the spread"}'
        for title, r in ratios.items()
    ]
    shown = all(r.high < 1 for r in ratios.values())
    end = 'The claim shows.' if shown else 'That it is faster does NOT show here for every pair.'
    rows = [
        [title, f'{r.median:.3f}', f'{r.low:.3f} to {r.high:.3f}', str(sum(len(one[title][0]) for one in found))]
        for title, r in ratios.items()
    ]
    header = ('Training step', 'Median ratio', f'Interval ({min(r.confidence for r in ratios.values()):.0%})', 'Pairs')
    return Verdict(shown, f'{"; ".join(words)}. {end}', header, rows)


def draw(figure: Any, found: Sequence[Found]) -> None:
    """A point with its interval for each pair of networks."""
    axis = figure.subplots()
    ratios = {title: ratio(found, title) for title in found[0]}
    for place, r in enumerate(ratios.values()):
        axis.plot([r.low, r.high], [place, place], color='C0')
        axis.plot(r.median, place, marker='o', color='C0')
    axis.axvline(1, color='0.5', linestyle='--')
    axis.set_yticks(range(len(ratios)), [title.replace(' / ', '\n/ ') for title in ratios])
    axis.set(xlabel='time of a step, ratio', ylim=(-0.5, len(ratios) - 0.5))


CLAIM = Claim(
    'A training step takes a normalizer-free network less time than the same with BatchNorm',
    'NFNets, Table 6; NF-ResNets, Table 4 (on accelerators)',
    f'Steps in turns on this CPU, batch 4 at {SIZE} px, float32',
    measure,
    judge,
    draw,
    alone=True,
)
