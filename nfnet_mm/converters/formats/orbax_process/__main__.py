"""``python orbax_process FOLDER TARGET LIMIT``: the only part that imports Orbax and JAX, and nothing of this package.

Writes the arrays under ``params`` and ``state`` of the checkpoint in FOLDER to the NumPy archive TARGET, unless they
would take more than LIMIT bytes. The last line of what it writes to stderr is why it failed.
"""

import sys
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def main(folder: str, target: str, limit: int) -> None:
    """Read and write."""
    checkpointer = ocp.PyTreeCheckpointer()
    metadata: Any = checkpointer.metadata(folder)  # the tree itself before Orbax 0.11
    metadata = getattr(metadata, 'item_metadata', metadata)
    metadata = getattr(metadata, 'tree', metadata)
    if metadata is None:  # as the library wrote before 2023-08, with shapes in the files of the arrays alone
        restored = checkpointer.restore(folder)
    else:
        leaves_of = [leaf for leaf in jax.tree_util.tree_leaves(metadata) if getattr(leaf, 'shape', None)]
        asked = sum(prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves_of)
        if asked > limit:
            sys.exit(f'its arrays would take {asked} bytes, far more than its files')
        # as NumPy's arrays: the devices that they were saved from are not here
        numpy = jax.tree_util.tree_map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
        restored = checkpointer.restore(folder, restore_args=numpy)
    if not isinstance(restored, Mapping):
        sys.exit(f'it holds a {type(restored).__name__}, not a mapping')
    arrays = dict(leaves(restored))
    np.savez(target, **arrays)  # type: ignore[arg-type]  # names with slashes, none of them one of its options


def leaves(restored: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """('params|MODULE|NAME', array) of all of them."""
    for kind in ('params', 'state'):
        for module, names in (restored.get(kind) or {}).items():
            if not isinstance(names, Mapping):
                sys.exit(f'{kind} holds {module!r}, which is no mapping of arrays')
            for name, value in names.items():
                array = np.asarray(value)
                if array.dtype.name == 'bfloat16':  # which NumPy's files do not know
                    array = array.astype(np.float32)
                if array.dtype.kind not in 'fiub':
                    sys.exit(f'{module!r} holds {name!r}, which is no array of numbers')
                yield f'{kind}|{module}|{name}', array


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
