"""timm's light NFNets in the recipe of NFNets; ECA-L0.

They are in no paper. Shapes and image sizes are timm's; the regularisation is that of the NFNet of the same depth
(dropout) or of the nearest training size (RandAugment).
"""
_base_ = 'nfnet_imagenet.py'
model = dict(backbone=dict(arch='ECA-L0'), head=dict(in_channels=2304))
