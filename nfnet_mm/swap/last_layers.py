"""The last layers of the heads that the frameworks ship, by the heads' types: what AGC best leaves alone.

NFNets, section 4.1, clips all weights but those of the final linear layer. A detector has several layers that give
predictions, and each is taken for a final one, as in the COCO recipe (``nfnet_mm.recipes.transfer``): the last of
every branch, of classes, boxes and masks.
"""

import re
from typing import Any

from .tree import of_no_teacher, type_name, walk

_LAYERS: dict[tuple[str, ...], str] = {
    # mmdet: boxes
    ('rpn_cls', 'rpn_reg'): 'RPNHead',
    ('fc_cls', 'fc_reg'): 'BBoxHead ConvFCBBoxHead Shared2FCBBoxHead Shared4Conv1FCBBoxHead DoubleConvFCBBoxHead '
    'SCNetBBoxHead DIIHead DETRHead ConditionalDETRHead',
    ('fc_cls.*', 'fc_reg.*'): 'MultiInstanceBBoxHead',
    ('fc_cls', 'fc_reg_cls', 'fc_reg_offset'): 'SABLHead',
    ('retina_cls', 'retina_reg'): 'RetinaHead FSAFHead FreeAnchorRetinaHead PISARetinaHead RetinaSepBNHead',
    ('retina_cls', 'retina_bbox_cls', 'retina_bbox_reg'): 'SABLRetinaHead',
    ('retina_cls', 'retina_reg', 'conv_loc', 'conv_shape'): 'GARetinaHead',
    ('conv_cls', 'conv_reg', 'conv_loc', 'conv_shape'): 'GARPNHead',
    ('conv_cls', 'conv_reg'): 'FoveaHead CenterNetUpdateHead',
    ('conv_cls', 'conv_reg', 'conv_centerness'): 'FCOSHead NASFCOSHead AutoAssignHead',
    ('conv_cls', 'conv_reg', 'conv_coeff'): 'YOLACTHead',
    ('atss_cls', 'atss_reg', 'atss_centerness'): 'ATSSHead PAAHead LADHead',
    ('atss_cls', 'atss_reg', 'atss_iou'): 'DDODHead',
    ('gfl_cls', 'gfl_reg'): 'GFLHead LDHead',
    ('tood_cls', 'tood_reg'): 'TOODHead',
    ('vfnet_cls', 'vfnet_reg', 'vfnet_reg_refine'): 'VFNetHead',
    ('cls_score', 'bbox_pred', 'object_pred'): 'YOLOFHead',
    ('reppoints_cls_out', 'reppoints_pts_init_out', 'reppoints_pts_refine_out'): 'RepPointsHead',
    ('fc_cls', 'fc_reg.layers.2'): 'DABDETRHead',
    ('cls_branches.*', 'reg_branches.*.4'): 'DeformableDETRHead DINOHead',
    ('cls_branches.*', 'reg_branches.*.4', 'aux_cls_branches.*', 'aux_reg_branches.*.4'): 'DDQDETRHead',
    # mmdet: masks and the rest
    ('conv_logits',): 'FCNMaskHead HTCMaskHead DynamicMaskHead SCNetMaskHead FusedSemanticHead SCNetSemanticHead '
    'PanopticFPNHead',
    ('fc_logits',): 'CoarseMaskHead MaskPointHead',
    ('fc_mask_iou',): 'MaskIoUHead',
    ('fc',): 'GlobalContextHead',
    ('conv_cls', 'conv_mask_list.*'): 'SOLOHead',
    ('conv_cls', 'conv_mask_list_x.*', 'conv_mask_list_y.*'): 'DecoupledSOLOHead DecoupledSOLOLightHead',
    ('conv_cls', 'conv_kernel'): 'SOLOV2Head',
    ('conv_cls', 'conv_reg', 'conv_centerness', 'controller'): 'CondInstBboxHead BoxInstBboxHead',
    ('cls_embed', 'mask_embed.4'): 'MaskFormerHead Mask2FormerHead Mask2FormerTrackHead',
    # mmseg, whose heads have one name for it
    ('conv_seg',): 'ANNHead APCHead ASPPHead CCHead DMHead DNLHead DepthwiseSeparableASPPHead '
    'DepthwiseSeparableFCNHead EMAHead EncHead FCNHead FPNHead GCHead ISAHead LRASPPHead NLHead OCRHead PSAHead '
    'PSPHead SegformerHead STDCHead UPerHead UpProjectionHead',
    ('conv_seg', 'pam_conv_seg', 'cam_conv_seg'): 'DAHead',
    ('fc_seg',): 'PointHead',
    # which hold heads, or none
    (): 'EmbeddingRPNHead HeuristicFusionHead IterativeDecodeHead MaskFormerFusionHead NFStage QuasiDenseTrackHead '
    'RoITrackHead',
}
LAST_LAYERS = {kind: layers for layers, kinds in _LAYERS.items() for kind in kinds.split()}
# Options of a head that leave out a layer.
_SWITCHES = dict(fc_cls='with_cls', fc_reg='with_reg')


def last_layers(model: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The weights of a model's last layers, and where it has heads of types that are not known.

    Args:
        model: its config.

    Returns:
        names of weights, with ``*`` for what the frameworks number, and the places of the other heads.

    Example:
        >>> box = dict(type='Shared2FCBBoxHead')
        >>> last_layers(dict(rpn_head=dict(type='MyHead'), roi_head=dict(type='CascadeRoIHead', bbox_head=[box, box])))
        (['roi_head.bbox_head.*.fc_cls.weight', 'roi_head.bbox_head.*.fc_reg.weight'], ['rpn_head'])
    """
    names: list[str] = []
    unknown = []
    for item in walk(model, enter=of_no_teacher):
        numbered = isinstance(item.key, int)
        place = item.where if numbered else item.path
        if not place.endswith('head') or place.endswith('roi_head') or not type_name(item.value):
            continue
        if type_name(item.value) not in LAST_LAYERS:
            unknown.append(item.path)
            continue
        if numbered:
            place = f'{place}.*'
        elif 'num_stages' in item.owner:  # a cascade makes several of one
            place = f'{place}*'
        # which is not what the model calls them: a semi-supervised detector is held as student and teacher
        place = re.sub(r'^detector\.', '*.', place)
        if type_name(model) == 'RPN':
            place = place.replace('rpn_head', 'bbox_head')
        for layer in LAST_LAYERS[type_name(item.value)]:
            if item.value.get(_SWITCHES.get(layer), True):
                names.append(f'{place}.{layer}.weight')
    return list(dict.fromkeys(names)), unknown
