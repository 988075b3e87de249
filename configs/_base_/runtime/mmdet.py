"""The runtime of detectors: mmdet's, counting updates of the weights."""
_base_ = 'mmdet::_base_/default_runtime.py'
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False),
    checkpoint=dict(_delete_=True, type='CheckpointHook', by_epoch=False, interval=500, max_keep_ckpts=3))
log_processor = dict(by_epoch=False, window_size=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
