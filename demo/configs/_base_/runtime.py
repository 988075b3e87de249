"""What the demos share: a quiet runtime for a CPU that logs every few seconds, AdamW under AGC."""
default_hooks = dict(
    timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=5, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=250, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'))
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
log_processor = dict(by_epoch=False, window_size=5)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='nfnet_mm.AGCOptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    agc=dict(clipping=0.01, eps=1e-3), constructor='nfnet_mm.NFOptimWrapperConstructor')
