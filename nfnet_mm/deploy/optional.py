"""Packages that only exports need."""

from importlib import import_module
from typing import Any

from nfnet_mm.errors import UserError


def optional(module: str) -> Any:
    """A module of a package that may not be installed.

    Raises:
        UserError: it is not, and how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition('.')[0]
        raise UserError(
            f'{package} is needed for this and cannot be imported ({error}): pip install "nfnet_mm[export]"'
        ) from None
