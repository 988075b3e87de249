"""FCN (NF-ResNets, Appendix H.1): the last stage with dilation 2 in place of its stride, two convs with dilation 6.

What the paper leaves open is taken from the work that it follows (He et al. 2020, MoCo, section 4.2): 256 channels in
the head's convs. No normalization in the head either, no dropout, no stochastic depth.
"""
_base_ = 'mmseg.py'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(seg_pad_val=255, test_cfg=dict(size_divisor=1)),
    backbone=dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
    decode_head=dict(
        type='FCNHead', in_channels=2048, in_index=0, channels=256, num_convs=2, dilation=6, concat_input=False,
        norm_cfg=None, dropout_ratio=0, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True)))
