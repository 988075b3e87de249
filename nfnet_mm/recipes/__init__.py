"""Every experiment of the papers as a row: the configs, the model zoo and docs/reproduce.md are written from these.

NFNets = Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without Normalization"; NF-ResNets = Brock
et al. 2021, "Characterizing signal propagation to close the performance gap in unnormalized ResNets".

To add an experiment, add a row (mostly by ``add`` in ``imagenet.py``, which names what changes) and run
``python tools/write_configs.py``. What a network brings along (image sizes, dropout, RandAugment's magnitude) is in
``settings.py``; what no experiment of a kind changes is in ``configs/_base_``.
"""

from .fine_tuning import FINE_TUNINGS, FineTuning
from .imagenet import IMAGENET
from .rows import (
    IMAGENET_IMAGES,
    PRETRAINING_CLASSES,
    SAM_FRACTION,
    TITLES,
    WARMUP_EPOCHS,
    Accuracy,
    Experiment,
    ImageNetRecipe,
    Task,
    TransferRecipe,
)
from .settings import Setting, setting
from .transfer import COCO, NYU, TRANSFERS, VOC

__all__ = [
    'COCO',
    'FINE_TUNINGS',
    'IMAGENET',
    'IMAGENET_IMAGES',
    'NYU',
    'PRETRAINING_CLASSES',
    'SAM_FRACTION',
    'TITLES',
    'TRANSFERS',
    'VOC',
    'WARMUP_EPOCHS',
    'Accuracy',
    'Experiment',
    'FineTuning',
    'ImageNetRecipe',
    'Setting',
    'Task',
    'TransferRecipe',
    'setting',
]
