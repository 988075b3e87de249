"""The papers' claims, rerun on real data in minutes: ``python -m demo.claims``."""

from importlib import import_module

from .claim import Claim

_MODULES = dict(
    a='a_clipping',
    b='b_small_batch',
    c='c_variance',
    d='d_step_time',
    e='e_sam',
    f='f_batch_dependence',
    g='g_one_image',
    h='h_pretrained',
)
LETTERS = tuple(_MODULES)


def load_claim(letter: str) -> Claim:
    """The claim of a letter, whose module is imported only now: some need mmdet."""
    return import_module(f'.{_MODULES[letter]}', __name__).CLAIM
