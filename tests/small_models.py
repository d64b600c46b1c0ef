"""Small models of every task, as configs with weight files, and how their task library predicts with them."""

import numpy as np
import torch
from conftest import ROOT, TINY_ARCH, fill_by_name
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from torch import nn

from mogacore.engine.config import build_model, load_config, replace_sync_bn


@MODELS.register_module(force=True)
class Pyramid(nn.Module):
    """Stands in for the backbone where a test is about what follows it; a MogaNet takes longer to trace."""

    def __init__(self, out_indices=(0, 1, 2, 3), in_channels=3, **kwargs):
        super().__init__()
        self.out_indices = out_indices
        widths = [in_channels, *WIDTHS]
        self.stages = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 7, stride=2 if i else 4, padding=3) for i in range(4)
        )

    def forward(self, x):
        maps = []
        for stage in self.stages:
            x = stage(x).relu()
            maps.append(x)
        return tuple(maps[i] for i in self.out_indices)


WIDTHS = list(TINY_ARCH['embed_dims'])
HEATMAPS = 'deconv_out_channels=(8, 8, 8)'
HANDS = f'keypoint_head_cfg=dict(in_channels={WIDTHS[3]}, {HEATMAPS}), root_head_cfg=dict(in_channels={WIDTHS[3]}), '
HANDS += f'hand_type_head_cfg=dict(in_channels={WIDTHS[3]})'
ROI_HEAD = (
    'bbox_roi_extractor=dict(out_channels=16), bbox_head=dict(in_channels=16, fc_out_channels=32), '
    'mask_roi_extractor=dict(out_channels=16), mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1)'
)
CASCADE = (
    f'neck=dict(in_channels={WIDTHS}, out_channels=16), rpn_head=dict(in_channels=16, feat_channels=16), '
    'roi_head=dict(bbox_roi_extractor=dict(out_channels=16), bbox_head=[dict(head, in_channels=16, fc_out_channels=32, '
    'num_classes=10) for head in _base_.model.roi_head.bbox_head]'
)
# Base configs of detectors get the data of the digit scenes.
DIGITS = [
    f'detection/_base_/{name}' for name in ('datasets/digits_instance', 'schedules/adamw_digits', 'default_runtime')
]
# What makes the model of a config small, besides its backbone.
CHANGES = {
    'detection/retinanet_moganet-xtiny_fpn_digits': (
        f'neck=dict(in_channels={WIDTHS}, out_channels=16, norm_cfg=dict(num_groups=4)), '
        'bbox_head=dict(in_channels=16, feat_channels=16, norm_cfg=dict(num_groups=4))'
    ),
    'detection/mask-rcnn_moganet-xtiny_fpn_digits': (
        f'neck=dict(in_channels={WIDTHS}, out_channels=16), rpn_head=dict(in_channels=16, feat_channels=16), '
        f'roi_head=dict({ROI_HEAD})'
    ),
    'detection/_base_/models/cascade-rcnn_moganet_fpn': CASCADE + '), test_cfg=dict(rpn=dict(max_per_img=60))',
    'detection/_base_/models/cascade-mask-rcnn_moganet_fpn': (
        CASCADE + ', mask_roi_extractor=dict(out_channels=16), '
        'mask_head=dict(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=10)), '
        'test_cfg=dict(rpn=dict(max_per_img=60))'
    ),
    'classification/moganet-xtiny_digits': f'head=dict(in_channels={WIDTHS[3]})',
    'segmentation/semantic-fpn_moganet-xtiny_digits': (
        f'neck=dict(in_channels={WIDTHS}, out_channels=8), decode_head=dict(in_channels=[8] * 4, channels=8)'
    ),
    'segmentation/upernet_moganet-xtiny_digits': (
        f'decode_head=dict(in_channels={WIDTHS}, channels=8), auxiliary_head=dict(in_channels={WIDTHS[2]})'
    ),
    'pose/td-hm_moganet-xtiny_digits': f'head=dict(in_channels={WIDTHS[3]}, {HEATMAPS})',
    'pose/hand3d/heatmap3d_moganet-xtiny_freihand-synthetic': f'head=dict(in_channels={WIDTHS[3]}, {HEATMAPS})',
    'pose/hand3d/internet_moganet-xtiny_interhand3d-synthetic': f'head=dict({HANDS})',
    'video_prediction/simvp_moganet_moving-digits': (
        'spatial_dims=8, spatial_depth=2, temporal_dims=16, temporal_depth=2, num_targets=4'
    ),
}


def write_small(folder, config, more=''):
    """Write config and weight file of a small model with filled weights.

    Args:
        folder: Where to.
        config: A key of ``CHANGES``.
        more: Further lines of the config.

    Returns:
        Paths of both files.
    """
    backbone = f'arch={dict(TINY_ARCH, _delete_=True)}' if config.startswith('classification') else 'type="Pyramid"'
    backbone = '' if config.startswith('video') else f'backbone=dict({backbone}), '
    path = folder / f'{config.rpartition("/")[2]}.py'
    bases = [str(ROOT / 'configs' / f'{base}.py') for base in [config, *(DIGITS if '_base_' in config else ())]]
    path.write_text(f'_base_ = {bases}\nmodel = dict({backbone}{CHANGES[config]})\n{more}\n')
    torch.save(build_small(path).state_dict(), path.with_suffix('.pth'))
    return str(path), str(path.with_suffix('.pth'))


def build_small(path):
    """The model of a config in eval mode, every tensor filled from its name."""
    cfg = load_config(path)
    replace_sync_bn(cfg.model)
    with torch.no_grad():
        return fill_by_name(build_model(cfg)).eval()


def predict(model, images, meta):
    """Predictions of a task library for a batch.

    Args:
        model: Of :func:`build_small`.
        images: (B, 3, H, W) uint8 RGB, (B, 1, H, W) gray, or frames of videos.
        meta: Metainfo of every sample besides its size.

    Returns:
        The samples that ``test_step`` returns.
    """
    height, width = images.shape[-2:]
    info = dict(img_shape=(height, width), ori_shape=(height, width)) | meta
    samples = [sample_of(model, info) for _ in images]
    bgr = images.flip(1) if images.shape[1] == 3 else images
    with torch.no_grad():
        return model.test_step({'inputs': list(bgr), 'data_samples': samples})


def sample_of(model, info):
    """An empty sample of the library of a model."""
    height, width = info['img_shape']
    library = type(model).__module__.partition('.')[0]
    if library == 'mmpretrain':
        from mmpretrain.structures import DataSample

        return DataSample(metainfo=info)
    if library == 'mmseg':
        from mmseg.structures import SegDataSample

        return SegDataSample(metainfo=info, gt_sem_seg=PixelData(data=torch.zeros(1, height, width)))
    from mmpose.structures import PoseDataSample

    size = np.array([width, height], float)  # the crop is the image
    sample = PoseDataSample(metainfo=info | dict(input_size=(width, height), input_center=size / 2, input_scale=size))
    boxes = np.array([[0, 0, width, height]], np.float32)
    sample.gt_instances = InstanceData(bboxes=boxes, bbox_scores=np.ones(1, np.float32))
    return sample
