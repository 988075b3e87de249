"""Variance planning: which factor brings each block's input back to unit variance."""

from collections.abc import Sequence


def plan_betas(depths: Sequence[int], alpha: float = 0.2) -> list[list[float]]:
    """beta = 1 / expected std of every block's input, stage by stage (NF-ResNets, section 3; authors' code).

    A block adds alpha^2 to the variance of the signal, except that the first block of a stage, whose shortcut starts
    from the rescaled activations, resets it to 1 first.

    Example:
        >>> [[round(b, 6) for b in stage] for stage in plan_betas((1, 3), alpha=0.2)]
        [[1.0], [0.980581, 0.980581, 0.96225]]
    """
    betas, variance = [], 1.0
    for depth in depths:
        stage = []
        for block in range(depth):
            stage.append(variance**-0.5)
            variance = (1.0 if block == 0 else variance) + alpha**2
        betas.append(stage)
    return betas
