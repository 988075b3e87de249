"""The mean and deviation of ImageNet's RGB channels, which the public weights were trained with."""
model = dict(data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]))
