"""What users' own configs inherit to take a network of ours in place of a ResNet."""

from nfnet_mm.models.backbones.arch import Network

from .text import WRITTEN, python

_SWAP_SAID = '''\
"""Make an existing ResNet-50 config normalizer-free: inherit it, this file and agc.py, and name what they hold.

    _base_ = [
        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
        'nfnet_mm::_base_/nf/{0}.py',
        'nfnet_mm::_base_/nf/agc.py']
    model = _base_.nf_detector
    optim_wrapper = _base_.nf_optim_wrapper  # nf_amp_optim_wrapper if the config's is an AmpOptimWrapper

Nothing is frozen and the weights are random until model['backbone'] is updated: docs/swapping.md has the whole. For a
backbone read by anything but an FPN of all four stages, tools/swap_backbone.py works out the channels.
"""
'''
_SWAP_MODELS = """
# mmdet: any detector whose neck reads four stages, as FPN does
nf_detector = dict(data_preprocessor=nf_rgb, backbone=dict(**nf_backbone), neck=dict(in_channels=nf_widths))
# mmseg: "d8" segmentors, whose decode head reads stage 4 and auxiliary head stage 3, both at stride 8
nf_segmentor = dict(
    data_preprocessor=nf_rgb, pretrained=None,
    backbone=dict(**nf_backbone, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    decode_head=dict(in_channels=nf_widths[3]), auxiliary_head=dict(in_channels=nf_widths[2]))
# mmpretrain: classifiers; its configs normalise images so already
nf_classifier = dict(backbone=dict(**nf_backbone, out_indices=(4, )), head=dict(in_channels={0}))
"""


def swap_base(network: Network) -> str:
    """The file of configs/_base_/nf by which a user's own config takes a network."""
    text = WRITTEN + _SWAP_SAID.format(network.name)
    text += f'nf_backbone = {python(dict(_delete_=True, **network.cfg))}\n'
    text += f'nf_widths = {list(network.arch.widths)}\n'
    text += 'nf_rgb = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)\n'
    return text + _SWAP_MODELS.format(network.channels(4))
