"""The runtime of classifiers."""
_base_ = 'iterations.py'
default_scope = 'mmpretrain'
default_hooks = dict(
    logger=dict(interval=100), checkpoint=dict(interval=1000, save_best='auto'),
    visualization=dict(type='VisualizationHook', enable=False))
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
