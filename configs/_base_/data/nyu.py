"""NYU Depth v2 (NF-ResNets, Appendix H.2; protocol of Laina et al. 2016)."""
size = (304, 228)  # width, height: half of 640 x 480, then the centre
load = [dict(type='LoadImageFromFile'), dict(type='LoadDepthAnnotation', depth_rescale_factor=1e-3)]  # millimetres
train_pipeline = [
    *load, dict(type='nfnet_mm.DownsampleCrop', scale=(320, 240), size=size),
    dict(type='RandomFlip', prob=0.5),
    dict(type='nfnet_mm.DepthColorJitter', gray_prob=0.3, brightness=0.1255, saturation=(0.5, 1.5), hue=0.2),
    dict(type='PackSegInputs')]
# Predictions are resized to the original depths of what the crop shows, 608 x 456.
test_pipeline = [
    *load, dict(type='nfnet_mm.DownsampleCrop', scale=(320, 240), size=size, full_depth=True),
    dict(type='PackSegInputs')]
dataset = dict(type='nfnet_mm.NYUDepthDataset', data_root='data/nyu')
# What is trained on: frames='raw', those of the videos, as in the protocol; or 'labelled', 795 images (docs/depth.md).
train_dataloader = dict(
    batch_size=32, num_workers=8, persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(frames='raw', data_prefix=dict(img_path='images/train', depth_map_path='annotations/train'),
                 pipeline=train_pipeline, **dataset))
val_dataloader = dict(
    batch_size=8, num_workers=4, persistent_workers=True, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(frames='test', data_prefix=dict(img_path='images/test', depth_map_path='annotations/test'),
                 pipeline=test_pipeline, test_mode=True, **dataset))
val_evaluator = dict(type='nfnet_mm.PixelDepthMetric')
test_dataloader, test_evaluator = val_dataloader, val_evaluator
