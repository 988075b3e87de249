"""The BatchNorm twins of depth_nyu.py: a ResNet of mmpretrain's, BatchNorm in the head, and no AGC."""
_base_ = 'depth_nyu.py'
norm_cfg = dict(type='BN')
model = dict(
    backbone=dict(_delete_=True, type='nfnet_mm.BNResNet', depth=50, out_indices=(3, ), norm_cfg=norm_cfg,
                  norm_eval=False),
    decode_head=dict(norm_cfg=norm_cfg))
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.16, momentum=0.9, nesterov=True))
