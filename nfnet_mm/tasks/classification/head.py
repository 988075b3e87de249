"""The classifier."""

from typing import Any

from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn

from nfnet_mm.errors import UserError, check_number
from nfnet_mm.registry import MODELS


@MODELS.register_module()
class NFClsHead(LinearClsHead):
    """Dropout and a linear layer of weight std 0.01, on pooled features (NFNets, Appendix C; authors' code).

    Args:
        num_classes: number of classes.
        in_channels: C of the pooled feature, ``out_channels[-1]`` of the backbone.
        dropout: probability in [0, 1).
        init_cfg: weight std 0.01 by default; NF-RegNet's classifier starts at zero:
            ``dict(type='Constant', layer='Linear', val=0)``.
        loss, topk, cal_acc: as in mmpretrain's ``LinearClsHead``. Keep ``cal_acc=False`` with mixed labels.

    Shape:
        A tuple whose last entry is (N, C) -> (N, num_classes).

    Raises:
        ValueError: ``dropout`` out of range, or features that are not (N, C).
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        dropout: float = 0.0,
        init_cfg: dict | list | None = dict(type='Normal', layer='Linear', std=0.01),
        **kwargs: Any,
    ) -> None:
        check_number('dropout', dropout, '[0, 1)')
        super().__init__(num_classes, in_channels, init_cfg=init_cfg, **kwargs)
        self.dropout = nn.Dropout(dropout)
        # Before init_weights is called, or where a user never calls it, the classifier already starts small.
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def pre_logits(self, feats: tuple[Tensor]) -> Tensor:
        """Pooled features (N, in_channels), as the last of a tuple -> the same, after dropout.

        Raises:
            UserError: features of another shape, such as (N, C, H, W), which no neck has pooled.
        """
        x = feats[-1] if isinstance(feats, (tuple, list)) else feats
        if x.dim() != 2 or x.shape[1] != self.in_channels:
            raise UserError(
                f'NFClsHead(in_channels={self.in_channels}) takes pooled features '
                f'(N, {self.in_channels}), got {tuple(x.shape)}: use '
                "neck=dict(type='GlobalAveragePooling') and a backbone with out_indices=(4,)"
            )
        return self.dropout(x)
