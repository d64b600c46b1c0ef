"""Synthetic files with the key names of mmdet 2.x, mmseg 0.x and mmpose 0.x load completely into current models."""

import re
from collections import OrderedDict

import pytest
import torch
from conftest import ROOT, TINY_ARCH
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import mogacore.registry  # noqa: F401, registers our classes
from mogacore.checkpoint import CheckpointError, load_into
from mogacore.libraries import import_quietly

# Key names of the old libraries, except the backbone's; {p}: weight or bias, {n}: the five tensors of a BatchNorm.
FPN = [r'neck\.(lateral|fpn)_convs\.\d\.conv\.{p}']
RPN = [r'rpn_head\.rpn_(conv|cls|reg)\.{p}']
MASK = [r'(convs\.\d\.conv|upsample|conv_logits)\.{p}']
OLD_NAMES = {
    'detection/retinanet_moganet-tiny_fpn_1x_coco.py': [
        *FPN, r'bbox_head\.(cls|reg)_convs\.[0-3]\.conv\.{p}', r'bbox_head\.retina_(cls|reg)\.{p}',
    ],
    'detection/mask-rcnn_moganet-tiny_fpn_1x_coco.py': [
        *FPN, *RPN, r'roi_head\.bbox_head\.(shared_fcs\.[01]|fc_cls|fc_reg)\.{p}',
        *(r'roi_head\.mask_head\.' + name for name in MASK),
    ],
    'detection/cascade-mask-rcnn_moganet-small_fpn_ms-3x_coco.py': [
        *FPN, *RPN, r'roi_head\.bbox_head\.[0-2]\.(shared_fcs\.[01]|fc_cls|fc_reg)\.{p}',
        *(r'roi_head\.mask_head\.[0-2]\.' + name for name in MASK),
    ],
    'detection/cascade-mask-rcnn_moganet-small_fpn_4conv1fc-giou_ms-3x_coco.py': [
        *FPN, *RPN, r'roi_head\.bbox_head\.[0-2]\.(shared_fcs\.0|fc_cls|fc_reg)\.{p}',
        r'roi_head\.bbox_head\.[0-2]\.shared_convs\.[0-3]\.conv\.weight',
        r'roi_head\.bbox_head\.[0-2]\.shared_convs\.[0-3]\.bn\.{n}',
        *(r'roi_head\.mask_head\.[0-2]\.' + name for name in MASK),
    ],
    'segmentation/semantic-fpn_moganet-tiny_80k_ade20k-512x512.py': [
        *FPN, r'decode_head\.scale_heads\.[0-3]\.\d\.conv\.weight', r'decode_head\.scale_heads\.[0-3]\.\d\.bn\.{n}',
        r'decode_head\.conv_seg\.{p}',
    ],
    'segmentation/upernet_moganet-tiny_160k_ade20k-512x512.py': [
        r'decode_head\.psp_modules\.[0-3]\.1\.conv\.weight', r'decode_head\.psp_modules\.[0-3]\.1\.bn\.{n}',
        r'decode_head\.(lateral_convs|fpn_convs)\.[0-2]\.conv\.weight',
        r'decode_head\.(lateral_convs|fpn_convs)\.[0-2]\.bn\.{n}',
        r'decode_head\.(bottleneck|fpn_bottleneck)\.conv\.weight', r'decode_head\.(bottleneck|fpn_bottleneck)\.bn\.{n}',
        r'decode_head\.conv_seg\.{p}', r'auxiliary_head\.conv_seg\.{p}',
        r'auxiliary_head\.convs\.0\.conv\.weight', r'auxiliary_head\.convs\.0\.bn\.{n}',
    ],
    'pose/td-hm_moganet-tiny_210e_coco-256x192.py': [
        r'keypoint_head\.deconv_layers\.[036]\.weight', r'keypoint_head\.deconv_layers\.[147]\.{n}',
        r'keypoint_head\.final_layer\.{p}',
    ],
}  # fmt: skip
LIBRARIES = {'detection': 'mmdet', 'segmentation': 'mmseg', 'pose': 'mmpose'}


def build(name):
    library = LIBRARIES[name.partition('/')[0]]
    pytest.importorskip(library)
    import_quietly(library)
    init_default_scope(library)
    cfg = Config.fromfile(ROOT / 'configs' / name)
    widths = TINY_ARCH['embed_dims']
    cfg.model.backbone.update(arch=TINY_ARCH, init_cfg=None)
    for part, in_channels in (('neck', list(widths)), ('decode_head', list(widths)), ('auxiliary_head', widths[2]),
                              ('head', widths[3])):  # fmt: skip
        if part in cfg.model and not (part == 'decode_head' and 'neck' in cfg.model):
            cfg.model[part].in_channels = in_channels
    return MODELS.build(cfg.model)


@pytest.fixture(params=OLD_NAMES, ids=lambda name: name.partition('_coco')[0].partition('/')[2])
def old_file(request, tmp_path):
    """A model, and a file of random numbers under the old names."""
    model = build(request.param)
    state_dict = OrderedDict()
    for name, tensor in model.state_dict().items():
        old_name = re.sub(r'^head\.', 'keypoint_head.', name)
        state_dict[old_name] = torch.randn(tensor.shape) if tensor.is_floating_point() else tensor + 7
    expand = {'{p}': '(weight|bias)', '{n}': '(weight|bias|running_mean|running_var|num_batches_tracked)'}
    patterns = [re.sub(r'\{[pn]\}', lambda m: expand[m[0]], pattern) for pattern in OLD_NAMES[request.param]]
    heads = [name for name in state_dict if not name.startswith('backbone.')]
    for name in heads:
        assert any(re.fullmatch(pattern, name) for pattern in patterns), f'{name} is not a name of the old library'
    for pattern in patterns:
        assert any(re.fullmatch(pattern, name) for name in heads), f'no tensor is named {pattern}'
    meta = dict(mmcv_version='1.7.0', CLASSES=('a', 'b'), config='model = dict()', epoch=12, iter=100, hook_msgs={})
    path = tmp_path / 'old.pth'
    torch.save({'meta': meta, 'state_dict': state_dict, 'optimizer': {'state': {}, 'param_groups': []}}, path)
    return model, path, state_dict


def test_old_file_loads_completely(old_file):
    model, path, state_dict = old_file
    report = load_into(model, path)
    assert not (report.missing or report.unexpected or report.misshapen or report.dropped)
    for old_name, name in zip(state_dict, model.state_dict(), strict=True):
        torch.testing.assert_close(model.state_dict()[name], state_dict[old_name])


def test_a_head_with_another_number_of_classes_is_reported(old_file, tmp_path):
    model, _, state_dict = old_file
    name = next(name for name in reversed(state_dict) if name.endswith('.weight'))
    state_dict[name] = state_dict[name][:-1]
    torch.save({'state_dict': state_dict}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match=r'1 misshapen \(file vs\. model\)'):
        load_into(model, tmp_path / 'other.pth')
