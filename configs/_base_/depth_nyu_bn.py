"""The BatchNorm twins of depth_nyu.py: a ResNet of mmpretrain's, and BatchNorm in the head."""
_base_ = 'depth_nyu.py'
norm_cfg = dict(type='BN')
model = dict(
    backbone=dict(_delete_=True, type='nfnet_mm.BNResNet', depth=50, out_indices=(3, ), norm_cfg=norm_cfg,
                  norm_eval=False),
    decode_head=dict(norm_cfg=norm_cfg))
