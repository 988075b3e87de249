"""A folder of data in one file, which data sets read in its place: ``data_root='pack://imagenet.tar'``."""

from .backend import PREFIX, PackBackend, address
from .tar import SUFFIX, Pack, check_pack, write_pack

__all__ = ['PREFIX', 'SUFFIX', 'Pack', 'PackBackend', 'address', 'check_pack', 'write_pack']
