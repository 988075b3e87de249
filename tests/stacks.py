"""What some stacks have not, for the tests of it: each mark says why on the line that pytest writes.

``make test-openmmlab`` and ``make test-newest`` end with the list of what they left out.
"""

import pytest
import torch

TORCH = tuple(map(int, torch.__version__.split('+')[0].split('.')[:2]))


def needs_torch(major: int, minor: int, what: str) -> pytest.MarkDecorator:
    """The mark of a test of something that this torch is too old for."""
    return pytest.mark.skipif((major, minor) > TORCH, reason=f'needs torch >= {major}.{minor}: {what}')


LOSS_SCALING = needs_torch(2, 3, 'loss scaling on a CPU')
