"""mmpretrain's classifier with our head and smoothed labels; a recipe adds the backbone."""
_base_ = 'pixels.py'
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(type='ClsDataPreprocessor', to_rgb=True),  # mmcv loads BGR
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='nfnet_mm.NFClsHead', num_classes=1000, topk=(1, 5),
              loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=1000)))
