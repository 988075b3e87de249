"""The page: for each claim what was found, in words, in a table and in a figure."""

from collections.abc import Sequence
from pathlib import Path

import torch

from nfnet_mm.html_page import Page, page_colours

from . import LETTERS, finished, load_claim
from .claim import Verdict


def write_page(folder: Path, seeds: Sequence[int], quick: bool) -> dict[str, Verdict]:
    """Write ``index.html`` of all claims that were measured for all seeds; their verdicts by letter."""
    from matplotlib.figure import Figure

    page, verdicts = Page("The papers' claims, rerun", folder), {}
    parts = {}
    for letter in LETTERS:
        results = [finished.read(finished.Job(letter, seed, quick), folder) for seed in seeds]
        whole = [one for one in results if one is not None]
        if len(whole) == len(seeds):
            parts[letter] = ([one['found'] for one in whole], sum(one['cpu_seconds'] for one in whole))
            verdicts[letter] = load_claim(letter).judge(parts[letter][0])
    shown = [f'({letter})' for letter, verdict in verdicts.items() if verdict.shown]
    others = [f'({letter})' for letter, verdict in verdicts.items() if not verdict.shown]
    page.text(f'Shows here: {", ".join(shown) or "none"}. Does not show here: {", ".join(others) or "none"}.')
    if quick:
        page.text('These are a few steps each, which show that it runs and nothing else.')
    page.text(
        f"Small networks on scikit-learn's digits, {len(seeds)} seeds each, on a CPU, torch {torch.__version__}. "
        "A figure with two more in brackets is the mean over the seeds and its 95% interval (Student's t), one with ± "
        'has the standard deviation over them. A claim shows only if the interval excludes no effect.'
    )
    for letter, verdict in verdicts.items():
        claim = load_claim(letter)
        found, seconds = parts[letter]
        page.section(f'({letter}) {claim.title}')
        page.text(f'{"Shows here." if verdict.shown else "Does NOT show here."} {verdict.statement}')
        with page_colours():
            figure = Figure(figsize=(5.5, 3.4), layout='constrained')
            claim.draw(figure, found)
            page.drawing(figure, claim.setting, verdict.statement)
        page.table(verdict.header, verdict.rows, f'{len(found)} seeds; {seconds:.0f} s of CPU time')
        page.facts({'Source': claim.source, 'Again': f'python -m demo.claims --only {letter} --again'})
    page.write()
    return verdicts
