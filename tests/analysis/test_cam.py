"""Activation maps compared with their formulas, on small networks."""

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_ARCH
from torch import nn

from mogacore.analysis import cam
from mogacore.analysis.cam import METHODS, activation_map, denormalize
from mogacore.analysis.explained import Explained, ExplainedBox, ExplainedClass, ExplainedKeypoints, ExplainedPixels
from mogacore.analysis.maps import Trace, as_maps, get_layer, last_map, trace
from mogacore.errors import UserError
from mogacore.models import MogaNetClassifier

pytest.importorskip('pytorch_grad_cam')

IMAGE = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture
def explained():
    """A tiny MogaNet with layer scales of 1, so that its blocks have an effect, and a 64 x 64 image."""
    network = MogaNetClassifier(5, arch=TINY_ARCH, layer_scale_init=1.0).eval()
    made = ExplainedClass(network, torch.randn(1, 3, 64, 64), IMAGE, list('abcde'), logits=network)
    made.choose(None)
    return made


def maps_and_gradients(explained, name):
    kept = []
    handle = get_layer(explained.network, name).register_forward_hook(lambda module, args, out: kept.append(out))
    score = explained.network(explained.inputs)[0, explained.target]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    return kept[0].detach()[0], gradient[0]


def scaled(small):
    """Shifted and scaled to at most 1, and resized to the image."""
    import cv2

    small = small - small.min()
    return cv2.resize((small / small.max()).numpy(), (64, 64))


def test_grad_cam_equals_its_formula(explained):
    maps, gradients = maps_and_gradients(explained, 'norm4')
    weights = gradients.mean((1, 2), keepdim=True)
    by_hand = scaled((weights * maps).sum(0).relu())
    assert by_hand.std() > 0.05
    found = activation_map(explained, 'gradcam')  # norm4 is the default: 2 x 2 cells
    np.testing.assert_allclose(found, (by_hand - by_hand.min()) / np.ptp(by_hand), atol=1e-5)


def test_layer_cam_weights_each_cell_separately(explained):
    maps, gradients = maps_and_gradients(explained, 'norm2')
    by_hand = scaled((gradients.relu() * maps).sum(0).relu())
    found = activation_map(explained, 'layercam', ['norm2'])
    np.testing.assert_allclose(found, (by_hand - by_hand.min()) / np.ptp(by_hand), atol=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_every_method_gives_a_map(explained, method):
    found = activation_map(explained, method, ['norm3'])
    assert found.shape == (64, 64) and found.min() >= 0 and found.max() <= 1 + 1e-6
    assert explained.network.norm3.__class__ is nn.BatchNorm2d  # the layer that AblationCAM replaces is restored
    assert not explained.network.norm3._forward_hooks


def test_frozen_stages_have_maps(explained):
    explained.network.requires_grad_(False)
    assert activation_map(explained, 'gradcam', ['norm1']).max() > 0


def test_unknown_method_layer_and_class_are_reported(explained):
    with pytest.raises(UserError, match="method 'fullgrad' is unknown: choose from gradcam"):
        activation_map(explained, 'fullgrad')
    with pytest.raises(UserError, match="no layer 'norm9': its top-level layers are patch_embed1"):
        activation_map(explained, 'gradcam', ['norm9'])
    with pytest.raises(UserError, match="class 'f' is unknown: choose from a, b"):
        explained.choose('f')
    explained.choose('c')
    assert explained.target == 2 and explained.target_name() == 'c'
    explained.choose('4')
    assert explained.target_name() == 'e'


def test_the_last_map_with_more_than_one_cell_is_found():
    import torchvision.models as peers

    image = torch.randn(1, 3, 64, 64)
    for network, name in (
        (MogaNetClassifier(5, arch=TINY_ARCH).eval(), 'norm4'),
        (peers.resnet18().eval(), 'layer4'),
    ):
        assert last_map(network, trace(network, lambda: network(image), image)) == name  # noqa: B023
    tiny = MogaNetClassifier(5, arch=TINY_ARCH).eval()
    small = image[..., :32, :32]
    assert last_map(tiny, trace(tiny, lambda: tiny(small), small)) == 'norm3'  # norm4 has one cell
    tokens = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.Flatten(2), nn.LayerNorm(16))
    with pytest.raises(UserError, match='--target-layers'):
        last_map(tokens, trace(tokens, lambda: tokens(image), image))


def test_every_layout_becomes_maps():
    for height, width in ((3, 3), (2, 4), (4, 2), (3, 5)):
        maps = torch.randn(2, 8, height, width)
        tokens = maps.flatten(2).transpose(1, 2)
        traced = Trace((16 * height, 16 * width), 2, prefix=1, grids={(height, width)}, may_be_last=True)
        for layout in (maps, maps.permute(0, 2, 3, 1), tokens, torch.cat([torch.zeros(2, 1, 8), tokens], 1)):
            assert torch.equal(as_maps(layout, traced), maps)


class Patches(nn.Module):
    """A transformer whose token map is known: a class token, then the mean of each 16 x 16 patch, row by row.

    The only logit is the mean of channel 0 over the patches, so Grad-CAM of ``norm`` is the image itself.
    """

    def __init__(self, merge=False):
        super().__init__()
        self.proj = nn.Conv2d(3, 4, 16, 16)
        nn.init.zeros_(self.proj.weight), nn.init.zeros_(self.proj.bias)
        nn.init.constant_(self.proj.weight[0], 1 / 768)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.norm, self.pair, self.pool = nn.Identity(), Pair(), nn.AdaptiveAvgPool2d(1)
        self.unused, self.merge = nn.ReLU(), nn.AvgPool2d(2) if merge else nn.Identity()

    def forward(self, images):
        maps = self.merge(self.proj(images))
        self.unused(maps)
        self.pool(maps)
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1))
        return self.pair(tokens)[0][:, 1:, :1].mean(1)


class Pair(nn.Module):
    def forward(self, tokens):
        return tokens, (2, 4)


def patches(size, merge=False):
    """The network above for an image with one bright patch, and its row and column."""
    cell = 32 if merge else 16
    row, column = 1, size[1] // cell - 1
    images = torch.zeros(1, 3, *size)
    images[..., row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = 1
    network = Patches(merge).eval()
    made = ExplainedClass(network, images, np.zeros((*size, 3), np.uint8), None, logits=network)
    made.choose('0')
    return made, (row + 0.5) * cell, (column + 0.5) * cell


@pytest.mark.parametrize('size, merge', [((32, 64), False), ((64, 32), False), ((48, 48), False), ((64, 128), True)])
@pytest.mark.parametrize('method', ['gradcam', 'layercam', 'ablationcam', 'eigencam'])
def test_the_map_of_a_transformer_lies_on_the_patch_that_it_depends_on(size, merge, method):
    made, y, x = patches(size, merge)
    found = activation_map(made, method, ['norm'])
    assert found.shape == size
    rows, columns = np.indices(size)
    weights = found / found.sum()
    center = (weights * (rows + 0.5)).sum(), (weights * (columns + 0.5)).sum()
    np.testing.assert_allclose(center, (y, x), atol=6)
    assert found[int(y), int(x)] > 0.9


def test_tokens_without_a_known_grid_are_refused():
    traced = Trace((32, 64), 1, prefix=1, grids={(2, 4)})
    for count in (7, 10, 25):
        with pytest.raises(UserError, match=f'the grid of its {count} tokens is not known'):
            as_maps(torch.zeros(1, count, 8), traced)
    with pytest.raises(UserError, match='1 x 768 x 4 x 5 fits no grid of the image'):
        as_maps(torch.zeros(1, 768, 4, 5), Trace((32, 128), 1, prefix=0))
    traced = Trace((32, 64), 1, prefix=0, grids={(4, 8), (2, 4)}, may_be_last=True)
    with pytest.raises(UserError, match='1 x 2 x 4 x 8 may have channels first or last'):
        as_maps(torch.zeros(1, 2, 4, 8), traced)


@pytest.mark.parametrize('layer, problem', [
    ('pair', 'returns several tensors, not one map'),
    ('pool', 'its output 1 x 4 x 1 x 1 has a single cell'),
    ('unused', 'does not depend on layer unused'),
])  # fmt: skip
def test_layers_without_a_map_are_refused_in_one_line(layer, problem):
    made, *_ = patches((32, 64))
    with pytest.raises(UserError, match=f'{problem}.*choose another with --target-layers') as caught:
        activation_map(made, 'gradcam', [layer])
    assert '\n' not in str(caught.value)


def test_layers_that_run_never_or_several_times_are_refused(explained):
    with pytest.raises(UserError, match='layer blocks1 does not run by itself'):
        activation_map(explained, 'gradcam', ['blocks1'])
    shared = nn.Conv2d(3, 3, 3, padding=1)
    network = nn.Sequential(shared, shared, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    made = ExplainedClass(network, torch.randn(1, 3, 8, 8), IMAGE[:8, :8], None, logits=network)
    made.choose('0')
    with pytest.raises(UserError, match='layer 0 runs 2 times'):
        activation_map(made, 'gradcam', ['0'])


def test_layers_inside_blocks_have_maps(explained):
    inside = [name for name, _ in explained.network.named_modules() if name.startswith('blocks1.0.')]
    found = {}
    for name in inside:
        try:
            found[name] = activation_map(explained, 'layercam', [name])
        except UserError as error:
            assert '\n' not in str(error)
    assert {'blocks1.0.attn', 'blocks1.0.mlp', 'blocks1.0.attn.value.DW_conv0'} <= found.keys()


def test_layers_that_ablation_cam_cannot_replace_are_refused_in_one_line():
    class Scaled(nn.Module):
        def forward(self, maps, scale):
            return scale * maps

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.scaled, self.weight = Scaled(), nn.Parameter(torch.ones(1))

        def forward(self, images):
            return self.scaled(images, scale=self.weight).mean((2, 3))

    network = Network()
    made = ExplainedClass(network, torch.randn(1, 3, 8, 8), IMAGE[:8, :8], None, logits=network)
    made.choose('0')
    assert activation_map(made, 'gradcam', ['scaled']).shape == (8, 8)
    with pytest.raises(UserError, match=r'ablationcam cannot replace scaled .*: choose another layer'):
        activation_map(made, 'ablationcam', ['scaled'])


def test_the_map_of_a_layer_is_that_before_an_operation_in_place():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(1, 3, 8, 8)
    made = ExplainedClass(network, images, IMAGE[:8, :8], None, logits=network)
    made.choose('0')
    found = activation_map(made, 'gradcam', ['0'])
    network[1].inplace = False
    np.testing.assert_allclose(found, activation_map(made, 'gradcam', ['0']), atol=1e-6)


def test_peers_with_a_fixed_input_size_are_refused_in_one_line():
    from torchvision.models import VisionTransformer

    from mogacore.analysis.classifiers import Classifier, parse_model

    peer = VisionTransformer(image_size=32, patch_size=16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8)

    class Images:
        labels = np.zeros(1, int)

        def __getitem__(self, index):
            return torch.zeros(1, 3, 64, 64), 0

    with pytest.raises(
        UserError, match='torchvision:vit does not accept inputs of 3 x 64 x 64, choose another'
    ) as caught:
        Classifier(parse_model('torchvision:vit'), peer.eval(), peer.eval(), Images())
    assert 'height' in str(caught.value) and '\n' not in str(caught.value)


def test_denormalized_image_is_the_input():
    class Preprocess(nn.Module):
        mean, std, to_rgb = torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1), torch.tensor(2.0), True

    pixels = torch.randint(0, 256, (3, 4, 5)).float()
    image = (pixels - Preprocess.mean) / Preprocess.std
    expected = pixels.permute(1, 2, 0).byte().numpy()
    assert np.array_equal(denormalize(image, Preprocess()), expected)
    Preprocess.to_rgb = False  # BGR, as read by OpenCV
    assert np.array_equal(denormalize(image, Preprocess()), expected[..., ::-1])
    assert np.array_equal(denormalize(image, Preprocess(), 'rgb'), expected)


class Dense(nn.Module):
    """Stand-in for models of mmseg and mmpose: returns maps for ``mode='tensor'``."""

    def forward(self, images, samples=None, mode='tensor'):
        return torch.stack([images.sum(1), images[:, 0], -images[:, 0]], 1)


def test_pixels_of_a_class_are_explained_by_their_mean_logit():
    images = torch.zeros(1, 3, 4, 4)
    images[0, 0, :2], images[0, 1, :2], images[0, 0, 2:], images[0, 1, 2:] = 3, -1, -2, 0
    pixels = ExplainedPixels(Dense(), images, IMAGE, ['background', 'up', 'down'])
    pixels.choose('up')
    assert pixels.mask.sum() == 8 and pixels(images).item() == 3
    pixels.choose('down')
    assert pixels(images).item() == 2
    pixels.choose(None)
    assert pixels.target_name() in ('up', 'down')
    with pytest.raises(UserError, match='finds no background'):
        pixels.choose('background')


def test_keypoints_are_explained_by_their_peaks():
    images = torch.randn(2, 3, 4, 4)
    keypoints = ExplainedKeypoints(Dense(), images[:1], IMAGE, ['a', 'b', 'c'])
    keypoints.choose('b')
    torch.testing.assert_close(keypoints(images)[:, 0], images[:, 0].amax((1, 2)))
    keypoints.choose(None)
    torch.testing.assert_close(keypoints(images)[:, 0], Dense()(images).amax((2, 3)).sum(1))
    assert keypoints.target_name() == 'all keypoints'


def test_a_detection_is_matched_by_class_and_place():
    from mmengine.structures import BaseDataElement, InstanceData

    class Detector(nn.Module):
        boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [21, 21, 31, 31]])

        def predict(self, images, samples, rescale):
            assert len(images) == len(samples) and not rescale
            found = []
            for image in images:
                scores = image.mean().sigmoid() * torch.tensor([0.9, 0.5, 0.4])
                found.append(
                    BaseDataElement(
                        pred_instances=InstanceData(bboxes=self.boxes, scores=scores, labels=torch.tensor([1, 0, 0]))
                    )
                )
            return found

    images = torch.randn(2, 3, 8, 8)
    box = ExplainedBox(Detector(), images[:1], IMAGE, ['cat', 'dog'], samples=[BaseDataElement()])
    box.choose(None)
    assert box.target_name() == 'dog' and box.box().tolist() == [0, 0, 10, 10]
    expected = (0.9 * images.mean((1, 2, 3)).sigmoid()).logit()
    torch.testing.assert_close(box(images)[:, 0], expected)
    box.choose('cat')
    torch.testing.assert_close(box(images)[:, 0], (0.5 * images.mean((1, 2, 3)).sigmoid()).logit())
    Detector.boxes = Detector.boxes + 15  # no detection is left at the old place
    assert (box(images) < -10).all()


def test_tool_draws_models_and_methods(tmp_path, monkeypatch):
    monkeypatch.setattr(cam, 'explain', lambda spec, *args: _toy(spec))
    (tmp_path / 'x.png').touch()
    from mogacore.analysis.classifiers import parse_models

    specs = parse_models(['a=moganet_xtiny', 'b=moganet_tiny'])
    report = cam.run(specs, tmp_path / 'x.png', tmp_path / 'out', ['gradcam', 'layercam'], target='1')
    assert report['models']['b']['layers'] == ['norm4'] and report['models']['a']['target'] == '1'
    with np.load(tmp_path / 'out' / 'cam.npz') as arrays:
        assert sorted(arrays.files) == ['a/gradcam', 'a/layercam', 'b/gradcam', 'b/layercam']
    import cv2

    assert cv2.imread(str(tmp_path / 'out' / 'cam.png')).std() > 5
    with pytest.raises(UserError, match='a has none of the layers layer4'):
        cam.run(specs, tmp_path / 'x.png', tmp_path, layers=['layer4'])
    with pytest.raises(UserError, match='no model has the layer layer4: correct or omit it'):
        cam.run(specs, tmp_path / 'x.png', tmp_path / 'none', layers=['norm4', 'layer4'])
    assert not (tmp_path / 'none').exists()
    with pytest.raises(UserError, match='image none does not exist'):
        cam.run(specs, 'none', tmp_path)


def _toy(spec) -> Explained:
    network = MogaNetClassifier(5, arch=TINY_ARCH).eval()
    return ExplainedClass(network, torch.randn(1, 3, 64, 64), IMAGE, None, logits=network)


@pytest.mark.parametrize('name', ['retinanet', 'mask-rcnn'])
def test_the_score_of_a_detector_reaches_the_backbone(name, tmp_path):
    """Real detectors with random weights: the explained score is that of the detection, and it has a map."""
    pytest.importorskip('mmdet')
    import cv2

    from mogacore.analysis.cam import explain
    from mogacore.analysis.classifiers import parse_model
    from mogacore.engine.config import build_model, load_config

    (tmp_path / 'tiny.py').write_text(
        f"_base_ = '{ROOT}/configs/detection/{name}_moganet-xtiny_fpn_digits.py'\n"
        f'model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH})),\n'
        f'             neck=dict(in_channels={list(TINY_ARCH["embed_dims"])}))\n'
    )
    model = build_model(load_config(tmp_path / 'tiny.py'))
    last, width = (model.roi_head.bbox_head.fc_cls, 11) if name == 'mask-rcnn' else (model.bbox_head.retina_cls, 10)
    with torch.no_grad():
        last.bias.view(-1, width)[:, 3] = 2.0  # high enough that the detector finds class 3
    torch.save(model.state_dict(), tmp_path / 'tiny.pth')
    cv2.imwrite(str(tmp_path / 'x.png'), np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))
    explained = explain(parse_model(f'{tmp_path}/tiny.py@{tmp_path}/tiny.pth'), tmp_path / 'x.png', device='cpu')
    explained.choose(None)
    with torch.no_grad():
        (found,) = explained.network.predict(explained.inputs, [explained.samples[0]], rescale=False)
        assert explained.target == 3
        score = explained(explained.inputs).sigmoid().item()
    assert score == pytest.approx(found.pred_instances.scores.max().item(), abs=1e-4)
    x1, y1, x2, y2 = explained.box()
    assert x2 > x1 and y2 > y1
    assert activation_map(explained, 'layercam', ['backbone.norm2']).max() > 0


def test_activation_maps_of_a_peer_with_a_fixed_input_size_are_refused_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip('mmpretrain')
    import cv2
    from torchvision.models import VisionTransformer

    from mogacore.analysis.classifiers import parse_model

    peer = VisionTransformer(image_size=64, patch_size=16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8)
    monkeypatch.setattr(cam, 'build_classifier', lambda *args: peer)
    cv2.imwrite(str(tmp_path / 'x.png'), np.zeros((32, 32), np.uint8))
    with pytest.raises(UserError, match=r'timm:vit does not accept inputs of 1 x 32 x 32, choose another .*height'):
        cam.explain(parse_model('timm:vit'), tmp_path / 'x.png', 'classification/moganet-xtiny_digits', 'cpu')
