"""Depth by up-projections (NF-ResNets, Appendix H.2; Laina et al. 2016), without normalization in the head either."""
_base_ = 'mmseg.py'
model = dict(
    type='DepthEstimator',
    data_preprocessor=dict(seg_pad_val=0),  # no depth; the size needs no padding
    decode_head=dict(type='nfnet_mm.UpProjectionHead', in_channels=2048, loss_decode=dict(type='nfnet_mm.BerHuLoss')))
