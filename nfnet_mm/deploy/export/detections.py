"""The objects that two runtimes find in one picture, side by side."""

from collections.abc import Sequence

import numpy as np

from nfnet_mm.errors import UserError


def pair_objects(
    found: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """The objects of one picture that two runtimes have both found, in one order.

    Objects are pairs if they have one label and are each other's nearest box. Near a threshold a rounding error decides
    whether there is an object, and of near ties which is dropped: those are counted, and left out.

    Args:
        found: boxes (K, 4), scores (K,), labels (K,), ...
        expected: the same of the other.

    Returns: the pairs of ``found``, those of ``expected``, and how many objects of either have no partner.

    Example:
        >>> box, score, label = np.float32([[0, 0, 4, 4]]), np.float32([0.5]), np.array([1])
        >>> pair_objects([box, score, label], [np.tile(box, (2, 1)) + [[1], [9]], score.repeat(2), label.repeat(2)])[2]
        1
    """
    far = np.abs(found[0][:, None] - expected[0]).max(-1)
    far[found[2][:, None] != expected[2]] = np.inf
    mine: list[int] = []
    theirs: list[int] = []
    if far.size:
        nearest, back = far.argmin(1), far.argmin(0)
        mine = [i for i, j in enumerate(nearest) if back[j] == i and np.isfinite(far[i, j])]
        theirs = [int(nearest[i]) for i in mine]
    unpaired = len(found[0]) + len(expected[0]) - 2 * len(mine)
    return [one[mine] for one in found], [one[theirs] for one in expected], unpaired


def check_pairs(
    found: Sequence[np.ndarray], expected: Sequence[np.ndarray]
) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
    """The pairs, which are to be nearly all objects.

    Raises:
        UserError: more than a tenth, and more than two, have no partner.
    """
    ours, theirs, unpaired = pair_objects(found, expected)
    if unpaired > max(2, 0.1 * (len(found[0]) + len(expected[0]))):
        what = f'{unpaired} of {len(found[0])} and {len(expected[0])}'
        raise UserError(f'the file and the model find other objects: {what} have no partner')
    return ours, theirs
