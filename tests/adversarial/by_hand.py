"""Training as the papers define it, one parameter and one unit after another: slow, plain, and sharing no code with us.

Each function follows the text: AGC is equation 3 of NFNets, SAM equations 2 and 3 of Foret et al. 2021, the moving
average is NFNets' Appendix A.2, SGD is torch's documented Nesterov momentum.
"""

import copy
from collections import OrderedDict

import torch
from torch import nn

LR, MOMENTUM, DECAY, CLIPPING, EPS, RHO = 0.1, 0.9, 0.01, 0.05, 1e-3, 0.05


def train(model, updates, agc=False, sam=None, ema=False, dtype=None, excluded=(), draws=None):
    """Train a copy of a model.

    Args:
        model: its ``forward(**batch, mode='loss')`` gives a dict of losses.
        updates: for each update a list of replicas, each a list of the batches that it accumulates.
        agc: whether to clip; ``excluded`` names the weights that are not clipped.
        sam: fraction of each batch for the ascent; None for none.
        ema: whether to average.
        dtype: of autocast.
        draws: for each replica the generator's states that it begins its updates with.

    Returns:
        (weights, averaged weights) by name.
    """
    model = copy.deepcopy(model).train()
    named = OrderedDict((name, p) for name, p in model.named_parameters() if p.requires_grad)
    average = {name: p.detach().clone() for name, p in model.named_parameters()}
    momentum = {}
    for t, replicas in enumerate(updates):
        total = {}
        for replica, batches in enumerate(replicas):
            if draws is not None:
                torch.set_rng_state(draws[replica][t])
            for batch in batches:
                grads = gradient(model, named, batch, sam, dtype)
                for name, grad in grads.items():
                    share = grad / (len(replicas) * len(batches))
                    total[name] = total[name] + share if name in total else share
        for name, grad in total.items():
            p = named[name].detach()
            if agc and name not in excluded:
                grad = clipped(grad, p, transposed=is_transposed(model, name))
            if p.dim() > 1:
                grad = grad + DECAY * p
            buffer = momentum[name] = MOMENTUM * momentum[name] + grad if name in momentum else grad.clone()
            p -= LR * (grad + MOMENTUM * buffer)
        decay = min(0.99999, (1 + t) / (10 + t))
        for name, p in model.named_parameters():
            average[name] = decay * average[name] + (1 - decay) * p.detach()
    return {name: p.detach() for name, p in model.named_parameters()}, average if ema else None


def gradient(model, named, batch, sam, dtype):
    """Gradient by name of the summed losses of one batch, at the weights that SAM would take it at."""
    if sam is None:
        return plain_gradient(model, named, batch, dtype)
    n = len(batch['data_samples'])
    size = max(1, round(sam * n))
    chosen = [i * n // size for i in range(size)]
    part = {
        key: [value[i] for i in chosen] if isinstance(value, list) else value[chosen] for key, value in batch.items()
    }
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    ascent = plain_gradient(model, named, part, dtype)
    for name, b in model.named_buffers():
        if name in buffers:
            b.copy_(buffers[name])
    norm = sum(float(g.double().square().sum()) for g in ascent.values()) ** 0.5
    before = {name: p.detach().clone() for name, p in named.items()}
    with torch.no_grad():
        for name, g in ascent.items():
            named[name] += RHO * g / norm
    grads = plain_gradient(model, named, batch, dtype)
    with torch.no_grad():
        for name, p in named.items():
            p.copy_(before[name])
    return grads


def plain_gradient(model, named, batch, dtype):
    model.zero_grad()
    with torch.autocast('cpu', dtype or torch.bfloat16, enabled=dtype is not None):
        loss = sum(value for name, value in model(**copy.deepcopy(batch), mode='loss').items() if 'loss' in name)
    loss.backward()
    return {name: p.grad.clone() for name, p in named.items() if p.grad is not None}


def clipped(grad, weight, transposed=False):
    """Each unit's gradient by itself."""
    if weight.dim() < 2:
        return clipped_unit(grad, weight)
    if transposed:
        grad, weight = grad.transpose(0, 1), weight.transpose(0, 1)
    rows = torch.stack([clipped_unit(g, w) for g, w in zip(grad, weight)]) if weight.numel() else grad
    return rows.transpose(0, 1) if transposed else rows


def clipped_unit(grad, weight):
    limit = CLIPPING * max(float(weight.norm()), EPS)
    return grad * (limit / max(float(grad.norm()), 1e-6)) if float(grad.norm()) > limit else grad


def is_transposed(model, name):
    return isinstance(model.get_submodule(name.rpartition('.')[0]), nn.ConvTranspose2d) and name.endswith('weight')
