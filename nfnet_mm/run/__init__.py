"""Start a run from a config, and say in one line what is wrong with it before anything is built.

The same for every framework of the stack: the config's ``default_scope`` decides which one is loaded, by mmengine.
"""

from nfnet_mm import operators

from .classes import model_classes, use_data_root, use_num_classes
from .coco_files import check_coco_file, check_coco_files
from .config import MIXED_PRECISION, check_amp_device, load_config, use_amp
from .data import check_data
from .device import say_unused_gpu
from .folded import use_folded
from .labels import check_labels
from .options import set_loaders, skip_validation, use_amp_in_test, use_auto_scale_lr, use_tta
from .pictures import show_predictions
from .public_weights import use_public_weights
from .runner import (
    build_runner,
    check_out,
    dump_predictions,
    how_to_go_on,
    prepare_launcher,
    require_whole,
    test,
    train,
    use_resume,
)
from .safe_load import read_checkpoint, use_safe_loading
from .trained import load_trained

__all__ = [
    'MIXED_PRECISION',
    'build_runner',
    'check_amp_device',
    'check_coco_file',
    'check_coco_files',
    'check_data',
    'check_labels',
    'check_out',
    'dump_predictions',
    'how_to_go_on',
    'load_config',
    'load_trained',
    'model_classes',
    'prepare_launcher',
    'read_checkpoint',
    'require_whole',
    'say_unused_gpu',
    'set_loaders',
    'show_predictions',
    'skip_validation',
    'test',
    'train',
    'use_amp',
    'use_amp_in_test',
    'use_auto_scale_lr',
    'use_data_root',
    'use_folded',
    'use_num_classes',
    'use_public_weights',
    'use_resume',
    'use_safe_loading',
    'use_tta',
]

# As this package is imported, not as a run starts, so that spawned worker processes have them too.
operators.install()
