"""Start a run from a config, and say in one line what is wrong with it before anything is built.

The same for every framework of the stack: the config's ``default_scope`` decides which one is loaded, by mmengine.
"""

from .classes import model_classes, use_data_root, use_num_classes
from .coco_files import check_coco_file, check_coco_files
from .config import MIXED_PRECISION, check_amp_device, load_config, show_predictions, use_amp, use_tta
from .data import check_data
from .labels import check_labels
from .runner import build_runner, dump_predictions, prepare_launcher, require_whole, use_resume

__all__ = [
    'MIXED_PRECISION',
    'build_runner',
    'check_amp_device',
    'check_coco_file',
    'check_coco_files',
    'check_data',
    'check_labels',
    'dump_predictions',
    'load_config',
    'model_classes',
    'prepare_launcher',
    'require_whole',
    'show_predictions',
    'use_amp',
    'use_data_root',
    'use_num_classes',
    'use_resume',
    'use_tta',
]
