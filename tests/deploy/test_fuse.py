import pytest
import torch
from conftest import ROOT, TINY_ARCH, fill_by_name
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import mogacore.registry  # noqa: F401, registers our classes
from mogacore import create_model
from mogacore.deploy import fuse
from mogacore.deploy.fuse import FusedBlock
from mogacore.errors import UserError
from mogacore.libraries import import_quietly
from mogacore.models import MogaNet, SimVP
from mogacore.models.layers import MogaBlock


def filled(model):
    """Numbers with which no norm, layer scale or sigma is an identity."""
    with torch.no_grad():
        return fill_by_name(model).eval()


@pytest.mark.parametrize('attn_force_fp32', [False, True])
@pytest.mark.parametrize('with_norm', [False, True])
def test_block_is_equal_in_double_precision(attn_force_fp32, with_norm):
    block = filled(MogaBlock(16, 4, attn_force_fp32=attn_force_fp32)).double()
    norm = filled(nn.BatchNorm2d(16)).double() if with_norm else None
    x = torch.randn(2, 16, 9, 7, dtype=torch.double)
    with torch.no_grad():
        expected = block(x) if norm is None else norm(block(x))
        torch.testing.assert_close(
            FusedBlock(block, norm)(x), expected, rtol=0, atol=1e-6 if attn_force_fp32 else 1e-12
        )


@pytest.mark.parametrize('name', ['moganet_xtiny', 'moganet_small'])
def test_logits_are_equal_and_no_norm_is_left(name):
    model = filled(create_model(name))
    fused = fuse(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(fused(images), model(images), rtol=1e-4, atol=1e-4)


def test_model_is_left_as_it_is_and_the_copy_cannot_train():
    model = filled(MogaNet(TINY_ARCH)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = fuse(model)
    assert model.training and not fused.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(p.requires_grad for p in fused.parameters())


def test_group_norm_is_refused():
    with pytest.raises(UserError, match='GroupNorm cannot be fused'):
        fuse(MogaNet(TINY_ARCH, norm_cfg=dict(type='GN')))


CONFIGS = {
    'mmdet': ('detection/cascade-mask-rcnn_moganet-small_fpn_4conv1fc-giou_ms-3x_coco.py', 'neck', 'backbone_and_neck'),
    'mmseg': ('segmentation/upernet_moganet-xtiny_digits.py', 'decode_head', 'logits'),
    'mmpose': ('pose/td-hm_moganet-xtiny_digits.py', 'head', 'logits'),
}


@pytest.mark.parametrize('library', CONFIGS)
def test_whole_models_are_equal(library):
    pytest.importorskip(library)
    import_quietly(library)
    init_default_scope(library)
    name, head, _ = CONFIGS[library]
    cfg = Config.fromfile(ROOT / 'configs' / name)
    cfg.model.backbone.init_cfg = None
    cfg.model.backbone.arch = TINY_ARCH
    widths = list(TINY_ARCH['embed_dims'])
    cfg.model[head].in_channels = widths[-1] if library == 'mmpose' else widths
    if library == 'mmseg':
        cfg.model.auxiliary_head.in_channels = widths[2]
    model = filled(MODELS.build(cfg.model))
    fused = fuse(model)
    assert not any(isinstance(m, (nn.BatchNorm2d, nn.SyncBatchNorm)) for m in fused.modules())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(features(fused, images), features(model, images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def features(model, images):
    """What the heads compute: of a detector the outputs of its first box head for made-up regions as well."""
    maps = model.extract_feat(images)
    if hasattr(model, 'roi_head'):
        regions = torch.linspace(-1, 1, 2 * 256 * 49).view(2, 256, 7, 7)
        return [*maps, *model.roi_head.bbox_head[0](regions), model.roi_head.mask_head[0](regions)]
    return [(model.decode_head if hasattr(model, 'decode_head') else model.head)(maps)]


def test_fused_network_exports_and_compiles_without_breaks():
    fused = fuse(filled(MogaNet(TINY_ARCH)))
    images = torch.randn(1, 3, 32, 32)
    exported = torch.export.export(fused, (images,)).module()
    for ours, theirs in zip(exported(images), fused(images), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('translator', ['MogaNet', 'gSTA'])
def test_video_predictor_is_equal(translator):
    model = filled(SimVP(4, spatial_dims=8, temporal_dims=16, temporal_depth=3, num_targets=6, translator=translator))
    fused = fuse(model)
    has_norms = any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert has_norms == (translator == 'gSTA')
    video = torch.rand(2, 4, 1, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(fused(video), model(video), rtol=1e-4, atol=1e-5)
