"""Clipping parameters whose rows are spread over processes, as PyTorch's ``fully_shard`` spreads them (DTensors)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from nfnet_mm.errors import UserError


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor."""
    return hasattr(tensor, 'placements') and hasattr(tensor, 'device_mesh')


def local(tensor: Any) -> Tensor:
    """The part of a tensor that this process holds, in the same memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor


class Shards:
    """The processes that parameters are spread over.

    A weight's rows, which are its units, lie on one process each. A vector is one unit, and its norm is that of all
    its parts.

    Args:
        params: the parameters, of which some are DTensors.
        transposed: which of them are weights of transposed convs, whose units are no rows.

    Raises:
        UserError: one is spread in another way, so that its units are torn apart, or they are spread over several
            groups of processes.
    """

    def __init__(self, params: Iterable[Any], transposed: Mapping[Tensor, int]):
        self.group: Any = None
        meshes = set()
        for p in params:
            if not is_sharded(p):
                continue
            dims = [dim for dim, place in enumerate(p.placements) if not place.is_replicate()]
            rows = all(p.placements[dim].is_shard(0) for dim in dims) and len(dims) < 2
            if not rows or (dims and transposed.get(p)):
                how = 'a transposed conv by rows' if rows else str(tuple(p.placements))
                what = f'a parameter of shape {tuple(p.shape)} is sharded as {how}, which tears its units apart'
                raise UserError(
                    f'AGC needs whole units: {what}; fully_shard with shards of dimension 0 keeps rows whole'
                )
            if dims:
                meshes.add((p.device_mesh, dims[0]))
        if len(meshes) > 1:
            raise UserError(f'AGC takes parameters sharded over one mesh, and these are over {len(meshes)}: use one')
        for mesh, dim in meshes:
            self.group = mesh.get_group(dim)

    def __bool__(self) -> bool:
        return self.group is not None

    def _in_parts(self, p: Any) -> bool:
        return is_sharded(p) and not all(place.is_replicate() for place in p.placements)

    def complete(self, norms: list[Tensor], params: Sequence[Any]) -> None:
        """Put the norms of whole vectors in the place of those of their parts."""
        split = [i for i, p in enumerate(params) if p.dim() == 1 and self._in_parts(p)]
        if split:
            squares = torch.cat([norms[i] for i in split]).square()
            distributed.all_reduce(squares, group=self.group)
            for i, norm in zip(split, squares.sqrt().split(1)):
                norms[i] = norm

    def totals(
        self, params: Sequence[Any], over: Sequence[Tensor], finite: Tensor, min_scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(clipped units, smallest factor, whether all is finite) of all processes.

        Args:
            params: the parameters.
            over: of each, which of this process's units were clipped. Of vectors and of what is not spread every
                process has them all, and the first one counts.
            finite, min_scale: this process's.
        """
        first = distributed.get_rank(self.group) == 0
        mine = [part.sum() for p, part in zip(params, over) if first or (p.dim() > 1 and self._in_parts(p))]
        clipped = torch.stack(mine).sum() if mine else torch.zeros_like(finite, dtype=torch.long)
        sums = torch.stack([clipped, (~finite).long()])
        distributed.all_reduce(sums, group=self.group)
        distributed.all_reduce(min_scale, distributed.ReduceOp.MIN, group=self.group)
        return sums[0], min_scale, sums[1] == 0

    def of_each(self, params: Sequence[Any], told: Tensor) -> Tensor:
        """(2, n): of each parameter the clipped units and the smallest factor, this process's, made those of all."""
        first = distributed.get_rank(self.group) == 0
        mine = [float(first or (p.dim() > 1 and self._in_parts(p))) for p in params]
        counts, lows = told[0] * told.new_tensor(mine), told[1].clone()
        distributed.all_reduce(counts, group=self.group)
        distributed.all_reduce(lows, distributed.ReduceOp.MIN, group=self.group)
        return torch.stack([counts, lows])


def first_nonfinite(params: Iterable[Tensor]) -> Tensor | None:
    """The first of the parameters whose gradient holds a NaN or an infinity, on whichever process; None: none does."""
    found = [p for p in params if p.grad is not None]
    shards = Shards(found, {})
    good = torch.stack([local(p.grad).isfinite().all() for p in found]).int()
    if shards:
        distributed.all_reduce(good, distributed.ReduceOp.MIN, group=shards.group)
    return next((p for p, one in zip(found, good.tolist()) if not one), None)
