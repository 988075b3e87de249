"""The texts of all configs that are written from the recipes, by ``tools/write_configs.py``."""

from nfnet_mm.models.backbones.arch import find_network
from nfnet_mm.recipes import FINE_TUNINGS, IMAGENET, TRANSFERS

from .imagenet import imagenet
from .swap import swap_base
from .text import WRITTEN
from .transfer import fine_tuning, task_agc, task_base, transfer

__all__ = ['WRITTEN', 'config_files', 'imagenet']

# What configs/_base_/nf has for users' own configs, by the network's name.
_SWAPS = ('nfnet_f0', 'nfnet_f1', 'nf_resnet50', 'nf_resnet101')


def config_files() -> dict[str, str]:
    """{path from the root of a working tree: its text} of all configs that are written from the recipes."""
    texts = {recipe.config: imagenet(recipe) for recipe in IMAGENET.values()}
    texts |= {recipe.config: transfer(recipe) for recipe in TRANSFERS.values()}
    texts |= {recipe.config: fine_tuning(recipe) for recipe in FINE_TUNINGS.values()}
    for task in {recipe.task.recipe: recipe.task for recipe in TRANSFERS.values()}.values():
        texts[f'configs/_base_/recipe/{task.recipe}.py'] = task_base(task)
        if task.agc:
            texts[f'configs/_base_/recipe/{task.recipe}_agc.py'] = task_agc(task)
    return texts | {f'configs/_base_/nf/{name}.py': swap_base(find_network(name)) for name in _SWAPS}
