"""What mmseg's models share; mmcv loads BGR.

Normalizer-free ResNets end in a sum: their feature 4 is that sum after its activation, where a ResNet's last stage
ends.
"""
_base_ = 'pixels.py'
model = dict(
    data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True, pad_val=0),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
