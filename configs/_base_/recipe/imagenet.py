"""What the recipes on ImageNet share: they count epochs, of samples that the network sees, on any number of devices.

The optimizer wrapper's constructor keeps weight decay off gains and biases. The learning rate starts at 1e-8 of its
full value, since LinearLR multiplies and could not leave zero, and falls by a cosine to the end of the training.
Another total_batch keeps the epochs, and scales the learning rate. Under bfloat16 the parameters stay in float32; to
train wholly in float32 name nfnet_mm.AGCOptimWrapper, without dtype.
"""
_base_ = ['../model/classifier.py', '../data/imagenet.py', '../runtime/mmpretrain.py']
