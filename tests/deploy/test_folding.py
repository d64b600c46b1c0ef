import pytest
import torch
from conftest import ROOT, TINY_ARCH, fill_by_name
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.nn.utils import prune, weight_norm
from torch.utils._pytree import tree_leaves

import mogacore.registry  # noqa: F401, registers our classes
from mogacore import create_model
from mogacore.deploy import fuse, unfused
from mogacore.errors import UserError
from mogacore.libraries import import_quietly
from mogacore.models import MogaNet, SimVP, accelerated
from mogacore.models.layers import MogaBlock


def filled(model):
    """Fill with values for which no norm, layer scale or sigma is the identity."""
    with torch.no_grad():
        return fill_by_name(model).eval()


@pytest.mark.parametrize('attn_force_fp32', [False, True])
def test_fused_network_is_equal_in_double_precision_and_keeps_its_classes(attn_force_fp32):
    model = filled(MogaNet(TINY_ARCH, attn_force_fp32=attn_force_fp32)).double()
    fused = fuse(model)
    assert {type(m) for m in fused.modules()} <= {type(m) for m in model.modules()} | {nn.Identity}
    x = torch.randn(2, 3, 45, 64, dtype=torch.double)
    with torch.no_grad():
        for folded, expected in zip(fused(x), model(x), strict=True):
            # The published option computes the gate in fp32, which limits the precision.
            torch.testing.assert_close(folded, expected, rtol=0, atol=1e-6 if attn_force_fp32 else 1e-12)


def test_fused_blocks_are_accelerated_and_also_work_without_acceleration():
    fused, x = fuse(filled(MogaNet(TINY_ARCH))), torch.randn(1, 3, 32, 32)
    assert all(accelerated.select(m) is not m for m in fused.modules() if isinstance(m, MogaBlock))
    with torch.no_grad():
        expected = fused(x)
        with accelerated.disabled():
            for plain, fast in zip(fused(x), expected, strict=True):
                torch.testing.assert_close(plain, fast, rtol=1e-4, atol=1e-5)


def test_fusing_twice_changes_nothing():
    fused, x = fuse(filled(MogaNet(TINY_ARCH))), torch.randn(1, 3, 32, 32)
    again = fuse(fused)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), fused.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(again(x), fused(x), strict=True))


def test_norms_with_zero_and_negative_scales_are_folded():
    model = filled(MogaNet(TINY_ARCH)).double()
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight[::3] = 0
                m.weight[1::3] *= -1
        x = torch.randn(1, 3, 32, 32, dtype=torch.double)
        for folded, expected in zip(fuse(model)(x), model(x), strict=True):
            torch.testing.assert_close(folded, expected, rtol=0, atol=1e-10)


def test_a_modified_block_is_refused():
    model = filled(MogaNet(TINY_ARCH))
    prune.l1_unstructured(model.blocks2[0].attn.gate, 'weight', 0.5)
    with pytest.raises(UserError, match='remove or merge'):
        fuse(model)


class Limited(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).tanh()


class LimitedConv(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).tanh()


def limit(module, args, out):
    return out.tanh()


@pytest.mark.parametrize(
    'change',
    [
        lambda m: prune.l1_unstructured(m.patch_embed1.projection[0], 'weight', 0.5),
        lambda m: weight_norm(m.patch_embed2.projection),
        lambda m: setattr(m.patch_embed2, 'projection', LimitedConv(8, 16, 3, stride=2, padding=1)),
        lambda m: setattr(m.patch_embed2, 'norm', Limited(16)),
        lambda m: setattr(m.blocks2[0], 'norm1', Limited(16)),
        lambda m: setattr(m, 'norm2', Limited(16)),
        lambda m: setattr(m.norm2, 'forward', torch.tanh),
        lambda m: setattr(m.patch_embed1.projection[0], 'forward', torch.tanh),
        lambda m: m.patch_embed2.register_forward_hook(limit),
        lambda m: m.patch_embed2.norm.register_forward_hook(limit),
        lambda m: m.blocks2[0].norm2.register_forward_hook(limit),
        lambda m: m.norm2.register_forward_hook(limit),
        lambda m: setattr(m.blocks3[1].attn, 'gate', m.blocks3[0].attn.gate),
        lambda m: setattr(m.blocks3[1].mlp.fc1, 'weight', m.blocks3[0].mlp.fc1.weight),
        lambda m: m.blocks3.__setitem__(1, m.blocks3[0]),
    ],
)
@pytest.mark.filterwarnings('ignore')
def test_whatever_the_folding_would_lose_is_refused(change):
    model = filled(MogaNet(TINY_ARCH))
    change(model)
    with pytest.raises(UserError, match='cannot be fused'):
        fuse(model)


def test_a_modified_convolution_or_norm_outside_the_backbone_is_left_as_it_is():
    class Taps(nn.Sequential):
        def forward(self, x):
            return self[0](x) + self[1](self[0](x))

    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(LimitedConv(4, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 3), Limited(4)),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(prune.l1_unstructured(nn.Conv2d(4, 4, 3), 'weight', 0.5), nn.BatchNorm2d(4)),
        Taps(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
    )
    model, x = filled(model), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        model(x)  # torch cannot copy a pruned weight with a gradient
    fused = fuse(model)
    assert [isinstance(part[1], nn.Identity) for part in fused] == [True] + 5 * [False]
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_norm_without_parameters_is_folded_and_one_without_statistics_is_refused():
    model, x = filled(MogaNet(TINY_ARCH, norm_cfg=dict(type='BN', affine=False))), torch.randn(1, 3, 32, 32)
    for folded, expected in zip(fuse(model)(x), model(x), strict=True):
        torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match='use BatchNorm with running statistics'):
        fuse(MogaNet(TINY_ARCH, norm_cfg=dict(type='BN', track_running_stats=False)))


def test_an_overflow_is_refused():
    model = filled(MogaNet(TINY_ARCH))
    with torch.no_grad():
        model.patch_embed2.norm.weight[0] = 1e9
    with pytest.raises(UserError, match=r'overflows torch.float16: use float32'):
        fuse(model.half())


@pytest.mark.parametrize('build', [lambda: MogaNet(TINY_ARCH), lambda: SimVP(2, 1, None, 8, 2, 16, 2)])
@pytest.mark.parametrize('value', [0.0, 1e-9, -1e-5, 1e-3])
def test_scales_of_zero_survive_half_precision(build, value):
    model = filled(build())
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight[::3] = value
    fused, x = fuse(model), torch.rand(1, 2, 1, 16, 16) if isinstance(model, SimVP) else torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        outputs, halves, expected = (
            [out] if isinstance(out, torch.Tensor) else out for out in (fused(x), fused.half()(x.half()), model(x))
        )
    for out, half, wanted in zip(outputs, halves, expected, strict=True):
        torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(half.float(), wanted, rtol=0.02, atol=0.02)


def test_a_stage_norm_with_a_scale_of_zero_is_left_and_named():
    model = filled(MogaNet(TINY_ARCH))
    with torch.no_grad():
        model.norm2.weight[3] = 0
    left = unfused(model)
    assert list(left) == ['norm2'] and 'almost 0' in left['norm2']
    assert isinstance(fuse(model).norm2, nn.BatchNorm2d)


@pytest.mark.parametrize('name', ['moganet_xtiny', 'moganet_small'])
def test_logits_are_equal_and_no_norm_is_left(name):
    model = filled(create_model(name))
    fused = fuse(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(fused(images), model(images), rtol=1e-4, atol=1e-4)


def test_model_is_not_modified_and_the_copy_has_no_gradients():
    model = filled(MogaNet(TINY_ARCH)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = fuse(model)
    assert model.training and not fused.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(p.requires_grad for p in fused.parameters())


def test_group_norm_is_refused():
    with pytest.raises(UserError, match='GroupNorm cannot be fused'):
        fuse(MogaNet(TINY_ARCH, norm_cfg=dict(type='GN')))


CONFIGS = [
    'detection/retinanet_moganet-xtiny_fpn_1x_coco.py',
    'detection/mask-rcnn_moganet-xtiny_fpn_1x_coco.py',
    'detection/cascade-mask-rcnn_moganet-small_fpn_4conv1fc-giou_ms-3x_coco.py',
    'segmentation/semantic-fpn_moganet-xtiny_80k_ade20k-512x512.py',
    'segmentation/upernet_moganet-xtiny_digits.py',
    'pose/td-hm_moganet-xtiny_digits.py',
    'pose/hand3d/internet_moganet-xtiny_interhand3d-synthetic.py',
    'pose/hand3d/heatmap3d_moganet-xtiny_freihand-synthetic.py',
    'video_prediction/simvp_moganet_moving-digits.py',
]
NORMED_PARTS = ('neck', 'bbox_head', 'mask_head', 'decode_head', 'auxiliary_head')


def shrink(part):
    """Adapt the inputs of necks and heads to TINY_ARCH, and give them a SyncBN in place of what their config says."""
    for key, value in list(part.items()):
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                shrink(one)
                if key in NORMED_PARTS and one.get('type') != 'Shared2FCBBoxHead':
                    one['norm_cfg'] = dict(type='SyncBN')
        if key == 'in_channels' and isinstance(value, list) and len(set(value)) > 1:
            part[key] = list(TINY_ARCH['embed_dims'])
        elif key == 'in_channels' and value in (96, 192):
            part[key] = {96: 24, 192: 32}[value]


@pytest.mark.parametrize('name', CONFIGS)
def test_complete_models_are_equal_in_double_precision_after_sync_bn_is_reverted(name):
    from mmengine.model.utils import revert_sync_batchnorm

    cfg = Config.fromfile(ROOT / 'configs' / name)
    library = cfg.get('default_scope')
    if library != 'mmengine':
        pytest.importorskip(library)
        import_quietly(library)
        init_default_scope(library)
    if 'backbone' in cfg.model:
        cfg.model.backbone.update(init_cfg=None, arch=TINY_ARCH)
        shrink(cfg.model)
    model = filled(revert_sync_batchnorm(MODELS.build(cfg.model)).double())
    fused = fuse(model)
    assert unfused(model) == {} and not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in fused.modules())
    with torch.no_grad():
        for ours, theirs in zip(features(fused), features(model), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def features(model):
    """Outputs of the heads; for a two-stage detector, its maps and the outputs of its heads for synthetic regions."""
    torch.manual_seed(0)
    if isinstance(model, SimVP):
        return [model(torch.rand(1, model.num_frames, 1, 16, 16, dtype=torch.double))]
    images = torch.randn(1, 3, 64, 64, dtype=torch.double)
    if not hasattr(model, 'roi_head'):
        return tree_leaves(model(images, None, mode='tensor'))
    maps = model.extract_feat(images)
    regions = torch.linspace(-1, 1, 2 * 256 * 49, dtype=torch.double).view(2, 256, 7, 7)
    box_heads, mask_heads = model.roi_head.bbox_head, model.roi_head.mask_head
    box_head = box_heads[0] if isinstance(box_heads, nn.ModuleList) else box_heads
    mask_head = mask_heads[0] if isinstance(mask_heads, nn.ModuleList) else mask_heads
    return [*tree_leaves(model.rpn_head(maps)), *maps, *box_head(regions), mask_head(regions)]


def test_fused_network_exports():
    fused = fuse(filled(MogaNet(TINY_ARCH)))
    images = torch.randn(1, 3, 32, 32)
    exported = torch.export.export(fused, (images,)).module()
    for ours, theirs in zip(exported(images), fused(images), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_video_predictor_exports_with_any_batch_size():
    fused = fuse(filled(SimVP(3, spatial_dims=8, temporal_dims=16, temporal_depth=3)))
    shapes = {'inputs': {0: torch.export.Dim('batch')}}
    exported = torch.export.export(fused, (torch.rand(2, 3, 1, 16, 24),), dynamic_shapes=shapes).module()
    video = torch.rand(5, 3, 1, 16, 24)
    torch.testing.assert_close(exported(video), fused(video), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('translator', ['MogaNet', 'gSTA'])
def test_video_predictor_is_equal(translator):
    model = filled(SimVP(4, spatial_dims=8, temporal_dims=16, temporal_depth=3, num_targets=6, translator=translator))
    fused = fuse(model)
    has_norms = any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert has_norms == (translator == 'gSTA')
    video = torch.rand(2, 4, 1, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(fused(video), model(video), rtol=1e-4, atol=1e-5)
