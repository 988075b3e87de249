"""What a row of the tables of experiments says."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nfnet_mm.errors import UserError, check_number
from nfnet_mm.models.backbones.arch import Network, find_network, resolve_arch
from nfnet_mm.models.backbones.plan import NFArch

from .settings import setting

IMAGENET_IMAGES = 1_281_167  # ImageNet-1k's for training
# Of the labelled set that stands for JFT-300M, which is not public: ImageNet-21k's.
PRETRAINING_IMAGES, PRETRAINING_CLASSES = 14_197_122, 21_841
SAM_FRACTION = 0.2  # of each batch, which sharpness-aware minimisation passes through the network first (NFNets, A.5)
WARMUP_EPOCHS = 5  # in both papers, where they do not count steps
TITLES = {
    'NFNet': 'NFNet',
    'NFResNet': 'NF-ResNet',
    'NFRegNet': 'NF-RegNet',
    'BNResNet': 'BN-ResNet',
    'FixupResNet': 'FixUp-ResNet',
    'SkipInitResNet': 'SkipInit-ResNet',
    'BNNFNet': 'BN-NFNet',
}


@dataclass(frozen=True)
class Accuracy:
    """On ImageNet's validation images, in percent."""

    top1: float
    top5: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What every row has."""

    name: str  # of its config
    network: str  # by its full name
    source: str = ''  # the table of a paper that reports it
    note: str = ''  # what else is to be said of it, in whole sentences
    reading: str = ''  # what the paper leaves open and is a choice here, in whole sentences

    @property
    def found(self) -> Network:
        """The network of the table."""
        return find_network(self.network)

    @property
    def title(self) -> str:
        """The network in words, such as ``NF-ResNet-50`` or ``BN-ResNet-50``."""
        return f'{TITLES[self.found.family]}-{self.found.key}'

    @property
    def batch_norm(self) -> bool:
        """Whether the network has BatchNorm."""
        return self.found.arch.method == 'bn'


@dataclass(frozen=True, kw_only=True)
class ImageNetRecipe(Experiment):
    """A training on ImageNet-1k, or a pre-training for one: SGD, warm-up from zero, then a cosine."""

    like: str | None = None  # the recipe whose config this one's inherits
    arch: Mapping[str, Any] = field(default_factory=dict)  # what of the network's design is changed
    total_batch: int  # of samples that the network sees
    batch: int  # on a device
    memory: int | None = None  # GB that this takes there
    devices: int = 8  # in the arithmetic that the config tells
    epochs: int
    steps: int | None = None  # in place of epochs
    warmup_steps: int | None = None  # in place of five epochs
    val_epochs: int  # between validations, which training by steps has every 1000 steps
    lr: float  # at total_batch
    scale_lr: bool = True  # by a user's other total batch
    floor: float = 0.0  # what the cosine ends at, of the full rate
    optimizer: str = 'SGD'
    weight_decay: float
    agc: float | None = None  # the clipping factor
    clip_norm: float | None = None  # the largest norm of the whole gradient
    bfloat16: bool = False  # activations; parameters and loss stay float32
    with_cp: bool = False  # activation checkpointing
    drop_path: float = 0.0  # stochastic depth
    mixup: bool = False  # of each batch, or of half of it beside CutMix
    cutmix: bool = False
    ema: float | None = None  # 1 - decay of the average of the weights
    sam: bool = False
    start: str | None = None  # the recipe whose last checkpoint is fine-tuned
    pretraining: bool = False  # on a labelled set of the user's, without validation
    # The network's own (None) or others: pixels, rate before the classifier, RandAugment's magnitude (0: none).
    train_size: int | None = None
    test_size: int | None = None
    dropout: float | None = None
    randaugment: int | None = None
    # What a paper reports of it in percent.
    top1: float | None = None
    top5: float | None = None

    def __post_init__(self) -> None:
        for name, interval in (('lr', '(0, inf)'), ('weight_decay', '[0, inf)'), ('drop_path', '[0, 1)')):
            check_number(f'recipe {self.name}: {name}', getattr(self, name), interval)
        at_once = self.batch * self.devices
        if self.total_batch % at_once:
            raise UserError(
                f'recipe {self.name}: total_batch={self.total_batch} is no multiple of {self.batch} images x '
                f'{self.devices} devices = {at_once}: change batch, devices or total_batch'
            )

    @property
    def resolved(self) -> 'ImageNetRecipe':
        """The same with the network's own values in place of None."""
        names = ('train_size', 'test_size', 'dropout', 'randaugment')
        own = {name: getattr(setting(self.found), name) for name in names if getattr(self, name) is None}
        return dataclasses.replace(self, **own)

    @property
    def backbone(self) -> dict[str, Any]:
        """The config of its network alone."""
        if not self.arch:
            return self.found.cfg
        return dict(type=self.found.cfg['type'], arch=dict(depths=self.found.arch.depths, **self.arch))

    @property
    def design(self) -> NFArch:
        """Its network's design, as the recipe changes it."""
        return resolve_arch(self.found.family, self.backbone['arch']) if self.arch else self.found.arch

    @property
    def features(self) -> int:
        """The channels of what its classifier reads."""
        return self.design.final_channels or self.design.widths[-1]

    @property
    def test_pixels(self) -> int:
        """The side of a test image, the network's own unless the recipe has another."""
        return self.test_size or setting(self.found).test_size

    @property
    def accuracy(self) -> Accuracy | None:
        """What a paper reports."""
        return None if self.top1 is None else Accuracy(self.top1, self.top5, self.source)

    @property
    def view(self) -> str:
        """The type of the transform that makes a picture's test view (the authors' code)."""
        return f'nfnet_mm.{"ResizeCrop32" if self.found.family in ("NFNet", "BNNFNet") else "CropResize"}'

    @property
    def mixing(self) -> bool:
        """Whether two images make each sample."""
        return self.mixup or self.cutmix

    @property
    def config(self) -> str:
        """The config's path from the root of a working tree."""
        return f'configs/imagenet/{self.name}.py'

    @property
    def images(self) -> int:
        """Of an epoch."""
        return PRETRAINING_IMAGES if self.pretraining else IMAGENET_IMAGES

    @property
    def max_iters(self) -> int:
        """Steps in all."""
        return self.steps or self.epochs * self.images // self.total_batch


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task that networks are transferred to, and the one recipe by which."""

    config: str  # the configs' names, around the network's
    recipe: str  # in configs/_base_/recipe; with _agc there is the same with AGC
    title: str
    figures: str  # what the paper's figures are of
    source: str
    data: str  # what is expected where
    total_batch: int
    batch: int  # on a device
    devices: int  # that need not accumulate
    bases: tuple[str, ...]  # of configs/_base_
    sizes: str = ''  # what follows from the size of the images
    summary: str  # what the recipe is, and its source, in a line
    said: str = ''  # what the paper leaves open
    steps: int
    val_steps: int
    lr: float
    weight_decay: float
    schedule: tuple[Mapping[str, Any], ...]
    save_best: Mapping[str, str] = field(default_factory=dict)
    agc: float | None = None  # of networks without BatchNorm
    agc_said: str = ''
    last_layers: tuple[str, ...] = ()  # whose weights AGC leaves alone


@dataclass(frozen=True, kw_only=True)
class TransferRecipe(Experiment):
    """A network transferred to another task by that task's recipe."""

    task: Task
    drop_path: float = 0.0  # stochastic depth
    figures: tuple[float, ...] = ()  # the paper's, as the task lists them; none where it has not trained this

    @property
    def config(self) -> str:
        """The config's path from the root of a working tree."""
        return f'configs/{self.name}.py'
