"""The stand-in against what mmcv compiles, on random cases of every operator: forward and backward.

In float32 the two must agree to 1e-6 of the largest value, and in float64 to 1e-12. A sum of many products can miss the
first bound by rounding alone, in either of the two: then the stand-in may be no further from the float64 answer than
mmcv is.
"""

from types import SimpleNamespace

import pytest
import torch

from nfnet_mm.operators.table import OPERATORS

from . import cases, reference

OURS = SimpleNamespace(**OPERATORS)
pytestmark = pytest.mark.slow
BOXES = ('nms', 'softnms', 'nms_match')  # whose indices must be equal
SINGLE = ('sigmoid_focal_loss',)  # what mmcv computes in float32 whatever the tensors are


def compare(name, known):
    """The worst difference of each call of an operator on 200 cases."""
    worst = {}
    for seed in range(200):
        calls = getattr(cases, name)(torch.Generator().manual_seed(seed))
        for number, call in enumerate(calls if isinstance(calls, tuple) else [calls]):
            run = call.run if isinstance(call, cases.Case) else call
            found, theirs = run(OURS), run(known)
            off = cases.difference(found, theirs)
            if isinstance(call, cases.Case) and name not in BOXES:
                wide = [t.double() if t.is_floating_point() else t for t in call.tensors]
                exact = cases.Case(call.name, wide, call.options, call.out)
                ours = exact.run(OURS)
                if name not in SINGLE:
                    assert cases.difference(ours, exact.run(known)) < 1e-12, (seed, number)
                if off > 1e-6:
                    narrow = [t.to(other.dtype) for t, other in zip(ours, theirs)]
                    assert cases.difference(found, narrow) <= cases.difference(theirs, narrow), (seed, number)
                    continue
            assert off <= 1e-6, (seed, number, off)
            worst[number] = max(worst.get(number, 0.0), off)
    return worst


@pytest.mark.parametrize('name', [*BOXES, 'bbox_overlaps', 'roi_align', 'deform_conv', 'modulated_deform_conv'])
def test_as_the_compiled_module(name, record_property):
    record_property('worst', compare(name, reference.compiled()))


@pytest.mark.parametrize('name', ['roi_pool', 'sigmoid_focal_loss', 'softmax_focal_loss'])
def test_as_the_kernels(name, tmp_path_factory, record_property):
    record_property('worst', compare(name, reference.Kernels(tmp_path_factory.mktemp('kernels'))))
