"""The BatchNorm twins of fcn_voc.py: a ResNet of mmpretrain's, and BatchNorm in the head."""
_base_ = 'fcn_voc.py'
norm_cfg = dict(type='BN')
model = dict(
    backbone=dict(_delete_=True, type='nfnet_mm.BNResNet', depth=50, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2),
                  out_indices=(3, ), norm_cfg=norm_cfg, norm_eval=False),
    decode_head=dict(norm_cfg=dict(_delete_=True, **norm_cfg)))
