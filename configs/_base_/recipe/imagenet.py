"""What the recipes on ImageNet share: everything counts updates, of a total batch on any number of devices.

The optimizer wrapper's constructor keeps weight decay off gains and biases. The learning rate rises from all but zero,
which a product cannot leave, to the full rate at step `warmup`, then falls to zero by a cosine. With bfloat16 only the
activations are: for float32 name nfnet_mm.AGCOptimWrapper, without dtype.
"""
_base_ = ['../model/classifier.py', '../data/imagenet.py', '../runtime/mmpretrain.py']
train_cfg = dict(type='nfnet_mm.TotalBatchTrainLoop')
