"""The generated digits (nfnet_mm.demo.digits) in mmdet, and a quiet runtime for a CPU."""
default_scope = 'mmdet'
data_root = 'data/digits/'
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
# No flips: a mirrored digit is another sign.
train_pipeline = [*load, dict(type='PackDetInputs')]
# The masks are pasted back by the scale that Resize notes, here 1.
test_pipeline = [*load, dict(type='Resize', scale=(128, 128)), dict(type='PackDetInputs', meta_keys=(
    'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
dataset = dict(
    type='CocoDataset', data_root=data_root, metainfo=dict(classes=tuple('0123456789')))
train_dataloader = dict(
    batch_size=8, num_workers=1, persistent_workers=True, sampler=dict(type='InfiniteSampler'),
    dataset=dict(ann_file='annotations/train.json', data_prefix=dict(img='train/'), pipeline=train_pipeline, **dataset))
val_dataloader = dict(
    batch_size=8, num_workers=1, persistent_workers=True, drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(ann_file='annotations/val.json', data_prefix=dict(img='val/'), test_mode=True, pipeline=test_pipeline,
                 **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json', metric=['bbox', 'segm'])
test_evaluator = val_evaluator
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=5, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=250, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'), visualization=dict(type='DetVisualizationHook'))
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(by_epoch=False, window_size=5)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
