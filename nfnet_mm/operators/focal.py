"""Focal losses (Lin et al., 2017) of a sigmoid and of a softmax, by the formulas of mmcv's kernels.

A sigmoid's target may be the number of classes, which stands for none of them. mmcv's kernels read past the end of
their arrays where a class has no weight or no probability; here that is an error.
"""

import torch
from torch import Tensor

from nfnet_mm.errors import UserError

from .precision import single, widen

TINY = torch.finfo(torch.float32).tiny  # logarithms are those of at least this


def _weigh(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The rows of (N, ...) values times the weights of their targets, if there are weights."""
    if not weight.numel():
        return values
    _check(target, weight.numel())
    return values * widen(weight)[target.clamp(min=0)].reshape(-1, *[1] * (values.dim() - 1))


def _check(target: Tensor, classes: int) -> None:
    if target.numel() and int(target.max()) >= classes:
        what = f'target {int(target.max())} of a focal loss of {classes} classes'
        raise UserError(f'{what}: with class weights, or with a softmax, the background has no class of its own')


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """The loss of each class.

    Args:
        input: (N, C) logits.
        target: (N,) classes; C for none.
        weight: (C,), or empty.
        output: (N, C), receives the losses.
        gamma: the exponent.
        alpha: the weight of a positive; a negative's is ``1 - alpha``.
    """
    p, gamma, alpha = _sigmoid(widen(input)), single(gamma), single(alpha)
    positive = -alpha * (1 - p) ** gamma * p.clamp(min=TINY).log()
    negative = -(1 - alpha) * p**gamma * (1 - p).clamp(min=TINY).log()
    output.copy_(_weigh(torch.where(_hits(p, target), positive, negative), target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """The derivative of each loss by its logit, into ``grad_input`` (N, C); the rest as in the forward function."""
    p, gamma, alpha = _sigmoid(widen(input)), single(gamma), single(alpha)
    positive = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * p.clamp(min=TINY).log())
    negative = -(1 - alpha) * p**gamma * (gamma * (1 - p) * (1 - p).clamp(min=TINY).log() - p)
    grad_input.copy_(_weigh(torch.where(_hits(p, target), positive, negative), target, weight))


def _sigmoid(x: Tensor) -> Tensor:
    """By the kernels' formula: whether it rounds to 1 decides about the logarithm of what is left."""
    return 1 / (1 + (-x).exp())


def _hits(p: Tensor, target: Tensor) -> Tensor:
    return target[:, None] == torch.arange(p.shape[1], device=p.device)


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """The loss of each row.

    Args:
        input: (N, C) probabilities.
        target: (N,) classes; the loss of a negative one is zero.
        weight: (C,), or empty.
        output: (N,), receives the losses.
        gamma: the exponent.
        alpha: a factor.
    """
    p, gamma, alpha = _chosen(input, target), single(gamma), single(alpha)
    loss = -alpha * (1 - p) ** gamma * p.clamp(min=TINY).log()
    output.copy_(_weigh(loss.where(target >= 0, 0), target, weight))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """The derivative of each row's loss by its logits, into ``grad_input`` (N, C).

    ``buff`` (N,) receives the derivative by the logit of the target, without its last factor.
    """
    p, gamma, alpha = _chosen(input, target), single(gamma), single(alpha)
    slope = alpha * (gamma * (1 - p) ** (gamma - 1) * p * p.clamp(min=TINY).log() - (1 - p) ** gamma)
    slope = _weigh(slope.where(target >= 0, 0), target, weight)
    buff.copy_(slope)
    probabilities = widen(input)
    grad = slope[:, None] * (_hits(probabilities, target).to(probabilities.dtype) - probabilities)
    grad_input.copy_(grad.where((target >= 0)[:, None], 0))


def _chosen(probabilities: Tensor, target: Tensor) -> Tensor:
    """(N,): the probability of each row's target."""
    _check(target, probabilities.shape[1])
    return widen(probabilities).gather(1, target.clamp(min=0)[:, None])[:, 0]
