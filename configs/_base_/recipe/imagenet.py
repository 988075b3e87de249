"""What the recipes on ImageNet share: everything counts updates, of a total batch on any number of devices.

The optimizer wrapper's constructor keeps weight decay off gains and biases. The learning rate starts at 1e-8 of its
full value, since LinearLR multiplies and could not leave zero, reaches it at step `warmup`, and falls to zero by a cosine.
Under bfloat16 the parameters stay in float32; to train wholly in float32 name nfnet_mm.AGCOptimWrapper, without dtype.
"""
_base_ = ['../model/classifier.py', '../data/imagenet.py', '../runtime/mmpretrain.py']
train_cfg = dict(type='nfnet_mm.TotalBatchTrainLoop')
