"""Start a run from a config, and say in one line what is wrong with it before anything is built.

The same for every framework of the stack: the config's ``default_scope`` decides which one is loaded, by mmengine.
"""

from nfnet_mm import operators

from .coco_files import check_coco_file, check_coco_files
from .config import MIXED_PRECISION, check_amp_device, load_config, show_predictions, use_amp, use_data_root, use_tta
from .runner import build_runner, dump_predictions, prepare_launcher, require_whole, use_resume

__all__ = [
    'MIXED_PRECISION',
    'build_runner',
    'check_amp_device',
    'check_coco_file',
    'check_coco_files',
    'dump_predictions',
    'load_config',
    'prepare_launcher',
    'require_whole',
    'show_predictions',
    'use_amp',
    'use_data_root',
    'use_resume',
    'use_tta',
]

# As this package is imported, not as a run starts, so that spawned worker processes have them too.
operators.install()
