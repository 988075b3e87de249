"""How Python comes to find ``mmcv._ext``: the compiled module if there is one, else the stand-in."""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from nfnet_mm.errors import UserError, short

from .remedy import HOW_TO_COMPILE

NAME = 'mmcv._ext'


class BrokenOperators(UserError, ImportError):
    """mmcv's compiled operators are there and do not load."""


def _say(line: str) -> None:
    """Write a line, once for all processes of a run."""
    first = os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'
    if first and multiprocessing.parent_process() is None:
        print(line, file=sys.stderr, flush=True)


def _lacks_cuda(compiled: ModuleType) -> bool:
    """Whether a training would run on CUDA and the compiled operators cannot."""
    built_for = getattr(compiled, 'get_compiling_cuda_version', None)
    if built_for is None or built_for() != 'not available':
        return False
    import torch

    return torch.cuda.is_available()


class StandInLoader(Loader):
    """Fills the module with this package's functions."""

    def create_module(self, spec: ModuleSpec) -> None:
        """The usual module."""

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its functions, and say once that they are used."""
        from .table import OPERATORS, missing

        vars(module).update(OPERATORS)
        module.__dict__['__getattr__'] = missing
        what = 'mmcv has no compiled operators: those of nfnet_mm.operators are used, with the same results'
        _say(f'{what} ({HOW_TO_COMPILE.partition(",")[0]})')


class CompiledLoader(Loader):
    """Loads the compiled module, and says what to do if that fails."""

    def __init__(self, spec: ModuleSpec) -> None:
        self.spec = spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The extension module.

        Raises:
            BrokenOperators: its file does not load, as when torch is no longer the one it was compiled for.
        """
        try:
            return self._loader.create_module(self.spec)
        except ImportError as error:
            import torch

            raise BrokenOperators(
                f"mmcv's compiled operators {self.spec.origin!r} do not load with torch {torch.__version__} "
                f'({short(error)}): compile them for it ({HOW_TO_COMPILE}), or delete that file to do without'
            ) from error

    def exec_module(self, module: ModuleType) -> None:
        """Run its initialization; where it was compiled without CUDA and torch has a GPU, this package's go first."""
        self._loader.exec_module(module)
        if _lacks_cuda(module):
            from .table import OPERATORS

            vars(module).update(OPERATORS)
            _say(
                "mmcv's operators were compiled without CUDA, and there is a GPU: those of nfnet_mm.operators are used"
            )

    @property
    def _loader(self) -> Any:
        return self.spec.loader


class OperatorsFinder(MetaPathFinder):
    """Answers for ``mmcv._ext`` alone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The compiled module's spec, or the stand-in's."""
        if fullname != NAME:
            return None
        compiled = PathFinder.find_spec(fullname, path)
        if compiled is None:
            return ModuleSpec(NAME, StandInLoader(), origin=__file__)
        spec = ModuleSpec(NAME, CompiledLoader(compiled), origin=compiled.origin)
        spec.has_location = compiled.has_location
        return spec


def install() -> None:
    """Let ``mmcv._ext`` be found where mmcv was installed without its compiled operators.

    Call it before anything imports ``mmcv.ops``; the commands of this package do. It imports nothing by itself, and a
    second call changes nothing. Where mmcv has its compiled operators they are used as ever.

    >>> install()
    """
    if not any(isinstance(finder, OperatorsFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, OperatorsFinder())
