# Written by tools/write_configs.py from nfnet_mm/recipes.
"""AGC for mask_rcnn_coco.py.

A choice, as the paper does not mention AGC for COCO: 0.01 is the value of all its NFNets; smaller batches than theirs
(4096) bear a larger one (NFNets, Figure 2). The last layer of each head is not clipped (section 4.1).
"""
_base_ = 'mask_rcnn_coco.py'
optim_wrapper = dict(
    type='nfnet_mm.AGCOptimWrapper', agc=dict(clipping=0.01, eps=1e-3),
    paramwise_cfg=dict(
        agc_exclude=[
            'rpn_head.rpn_cls.weight', 'rpn_head.rpn_reg.weight', 'roi_head.bbox_head.fc_cls.weight',
            'roi_head.bbox_head.fc_reg.weight', 'roi_head.mask_head.conv_logits.weight']))
