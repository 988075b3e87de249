"""How the time of an update of the weights splits on many GPUs, on paper: from sizes, counts and speeds of links.

Nothing here is measured. A time is a count divided by a speed; what is assumed is a field of :class:`Device` and
:class:`Fabric`, with its source.
"""

import math
from dataclasses import dataclass

from nfnet_mm.errors import UserError, check_number, check_positive

_PASSES = 3  # over the forward's multiply-adds: forward, gradients of what came in, gradients of the weights
_BACKWARD = 2 / 3  # of a step's time
# Bytes that move for each parameter, all in float32 (4 bytes). AGC: weights and gradients are read for their norms,
# gradients read and written to be scaled. SGD with momentum: weights, gradients and momentum read, two written. The
# moving average: the average and the weights read, the average written.
_AGC_BYTES, _OPTIMIZER_BYTES, _AVERAGE_BYTES = 16, 20, 12
STATE_BYTES = 12  # weights, momentum and average, which a checkpoint holds
_GRADIENT_BYTES = 4


@dataclass(frozen=True)
class Device:
    """A GPU: the speeds by which counts become times."""

    name: str
    flops: float  # a second, of dense bfloat16 matrix products
    utilisation: float  # the share of them that training reaches
    memory: float  # bytes a second


@dataclass(frozen=True)
class Fabric:
    """What connects the GPUs, in bytes a second in one direction."""

    name: str
    node: float  # of all that leaves a node
    gpu: float = 450e9  # of one GPU, to the others of its node
    gpus_per_node: int = 8
    utilisation: float = 0.8  # the share of them that a large all-reduce reaches
    latency: float = 10e-6  # seconds that a message takes to its first byte


@dataclass(frozen=True)
class Update:
    """The seconds of one update of the weights."""

    batch: int  # of one GPU at a time
    accumulated: int
    compute: float
    all_reduce: float
    exposed: float  # what of the all-reduce is not done while gradients are still computed
    agc: float
    optimizer: float  # and the moving average

    @property
    def seconds(self) -> float:
        """Of the whole."""
        return self.compute + self.exposed + self.agc + self.optimizer


def compute_seconds(macs: float, images: int, device: Device) -> float:
    """Forward and backward of some images.

    Args:
        macs: multiply-adds of the forward of one image.
        images: how many.
        device: the GPU.

    >>> compute_seconds(1e9, 100, Device('', flops=6e12, utilisation=0.5, memory=1))
    0.2
    """
    return 2 * _PASSES * macs * images / (device.flops * device.utilisation)


def all_reduce_seconds(size: float, gpus: int, fabric: Fabric, messages: int = 1) -> float:
    """To sum gradients over all GPUs: within the nodes, between them, and back within.

    A ring of n sends each of its members' data 2 (n - 1) / n times. Between nodes a GPU has its share of the node's
    link and, of the gradients, the part that it has summed. The three are counted one after another, although parts of
    them overlap.

    Args:
        size: of the gradients, in bytes.
        gpus: how many; more than a node's must be whole nodes.
        fabric: what connects them.
        messages: into how many the gradients are split.

    Raises:
        UserError: ``gpus`` are more than a node's and no whole nodes.
    """
    inside = min(gpus, fabric.gpus_per_node)
    if check_positive('gpus', gpus) % inside:
        raise UserError(f'gpus={gpus} must be at most {fabric.gpus_per_node} or a multiple of it: whole nodes')
    nodes = gpus // inside
    seconds = 2 * (inside - 1) / inside * size / (fabric.gpu * fabric.utilisation)
    seconds += 2 * (nodes - 1) / nodes * size / (fabric.node * fabric.utilisation)
    return seconds + 2 * messages * fabric.latency * math.ceil(math.log2(gpus))


def exposed_seconds(all_reduce: float, backward: float, messages: int) -> float:
    """What is left of an all-reduce when the backward pass has ended.

    Gradients are sent as the backward pass makes them, in equal messages: the first when its share of the pass is done,
    and the last not before its end.

    >>> exposed_seconds(all_reduce=1.0, backward=8.0, messages=4), exposed_seconds(9.0, 8.0, 4)
    (0.25, 3.0)
    """
    return max(all_reduce / messages, all_reduce - backward * (1 - 1 / messages))


def agc_seconds(parameters: int, device: Device) -> float:
    """Adaptive gradient clipping where every unit is clipped; it is as fast as the memory."""
    return _AGC_BYTES * parameters / device.memory


def update(
    macs: float,
    parameters: int,
    gpus: int,
    total_batch: int,
    most: int,
    device: Device,
    fabric: Fabric,
    gradient_bytes: int = _GRADIENT_BYTES,
    bucket: float = 25 * 2**20,
) -> Update:
    """The time of an update, split.

    Args:
        macs: multiply-adds of the forward of one image.
        parameters: of the network, all of them trained.
        gpus: how many.
        total_batch: images that an update sees.
        most: images that one GPU takes at a time; more are accumulated, and summed over the GPUs once.
        device: the GPU.
        fabric: what connects them.
        gradient_bytes: of a gradient as it is sent: 4, or 2 in bfloat16.
        bucket: bytes of gradients that are sent at once (torch's ``bucket_cap_mb``).

    Raises:
        UserError: the batch does not come out even.
    """
    each, rest = divmod(total_batch, gpus)
    batch = min(most, each)
    if rest or not each or each % batch:
        raise UserError(f'total_batch={total_batch} does not come out even on {gpus} GPUs by {most} images at a time')
    size = gradient_bytes * parameters
    messages = math.ceil(_GRADIENT_BYTES * parameters / bucket)
    compute = compute_seconds(macs, each, device)
    all_reduce = all_reduce_seconds(size, gpus, fabric, messages)
    backward = _BACKWARD * compute * batch / each  # of the last of the accumulated batches
    return Update(
        batch=batch,
        accumulated=each // batch,
        compute=compute,
        all_reduce=all_reduce,
        exposed=exposed_seconds(all_reduce, backward, messages) if gpus > 1 else 0.0,
        agc=agc_seconds(parameters, device),
        optimizer=(_OPTIMIZER_BYTES + _AVERAGE_BYTES) * parameters / device.memory,
    )


def checkpoint_interval(write: float, between_failures: float) -> float:
    """Seconds of training between two checkpoints that lose the least time (Daly 2006, equation 37).

    To first order it is Young's (1974) square root of 2 x ``write`` x ``between_failures``.

    Args:
        write: seconds that training stands still for a checkpoint.
        between_failures: mean seconds from one failure of the whole job to the next.

    >>> round(checkpoint_interval(write=2.0, between_failures=10_000.0))
    199
    """
    check_number('write', write, '(0, inf)')
    check_number('between_failures', between_failures, '(0, inf)')
    if write >= 2 * between_failures:
        return between_failures
    ratio = write / (2 * between_failures)
    return math.sqrt(2 * write * between_failures) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - write


def lost_share(interval: float, write: float, between_failures: float) -> float:
    """The share of the time that goes into checkpoints, and into what is done again after failures.

    A failure loses half an interval in the mean; this holds where failures are much rarer than checkpoints.

    >>> round(lost_share(interval=200.0, write=2.0, between_failures=10_000.0), 3)
    0.02
    """
    return write / interval + interval / (2 * between_failures)
