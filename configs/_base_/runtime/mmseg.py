"""The runtime of segmentation and depth."""
_base_ = 'iterations.py'
default_scope = 'mmseg'
default_hooks = dict(logger=dict(interval=50), visualization=dict(type='SegVisualizationHook'))
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
