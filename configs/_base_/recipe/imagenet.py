"""What the recipes on ImageNet share: everything counts updates, of a total batch on any number of devices."""
_base_ = ['../model/classifier.py', '../data/imagenet.py', '../runtime/mmpretrain.py']
train_cfg = dict(type='nfnet_mm.TotalBatchTrainLoop')
