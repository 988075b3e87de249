"""AGC for mask_rcnn_coco.py, for what has no normalization."""
_base_ = 'mask_rcnn_coco.py'
optim_wrapper = dict(
    type='nfnet_mm.AGCOptimWrapper',
    # 0.01 is the value of all the paper's NFNets; smaller batches than theirs (4096) bear a larger one (Figure 2b).
    agc=dict(clipping=0.01, eps=1e-3),
    # "It is always better to not clip the final linear layer" (section 4.1): each head's last one. Its bias is clipped.
    paramwise_cfg=dict(agc_exclude=[
        'rpn_head.rpn_cls.weight', 'rpn_head.rpn_reg.weight', 'roi_head.bbox_head.fc_cls.weight',
        'roi_head.bbox_head.fc_reg.weight', 'roi_head.mask_head.conv_logits.weight']))
