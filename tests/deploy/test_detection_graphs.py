"""Exported detectors against mmdet's own ``predict``, in eager PyTorch with the network that is not fused."""

from functools import cache
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, TINY_ARCH
from PIL import Image
from small_models import Pyramid  # noqa: F401 - registers it

from mogacore.deploy import Predictor, fuse
from mogacore.deploy.export import export
from mogacore.deploy.graphs import create_graph
from mogacore.deploy.graphs.boxes import match
from mogacore.deploy.source import load_source
from mogacore.engine.config import build_model, load_config, replace_sync_bn
from mogacore.errors import UserError
from mogacore.runtime.backends import openvino_core

pytest.importorskip('mmdet')

CONFIGS = ROOT / 'configs/detection'
FAMILIES = {
    'retinanet': 'retinanet_moganet-xtiny_fpn_digits',
    'faster-rcnn': 'mask-rcnn_moganet-xtiny_fpn_digits',
    'mask-rcnn': 'mask-rcnn_moganet-xtiny_fpn_digits',
    'cascade-rcnn': '_base_/models/cascade-rcnn_moganet_fpn',
    'cascade-mask-rcnn': '_base_/models/cascade-mask-rcnn_moganet_fpn_4conv1fc-giou',
}
EXPORTED = ('retinanet', 'mask-rcnn')  # together they have the operations of the others
# Portrait and landscape, none of the example's size. None: an image in which nothing is found.
SIZES = (None, (96, 128), None, (128, 90), (61, 150))

MOVED = 'boxes (fraction that moved or is missing)'
REFUSALS = r'index: 0 Got: 2 Expected: 1|shape=\[1,3,\?,\?\]\) and the tensor \(shape=\(2\.'  # of each runtime


def small(family):
    """Config of a small detector with three classes."""
    cfg = load_config(CONFIGS / f'{FAMILIES[family]}.py')
    replace_sync_bn(cfg.model)
    model, widths = cfg.model, list(TINY_ARCH['embed_dims'])
    cfg.default_scope = 'mmdet'
    model.backbone = dict(type='Pyramid')
    if family == 'retinanet':
        model.backbone = dict(type='MogaNet', arch=TINY_ARCH | dict(depths=(1, 1, 1, 1)), drop_path_rate=0.0)
    model.neck.update(in_channels=widths, out_channels=16, num_outs=4, norm_cfg=None)
    norm = dict(type='GN', num_groups=4)
    if family == 'retinanet':
        model.bbox_head.update(num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1, norm_cfg=norm)
        model.bbox_head.anchor_generator.update(strides=[8, 16, 32, 64], scales_per_octave=1)
        return cfg
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.rpn_head.anchor_generator.update(strides=[4, 8, 16, 32], scales=[4])
    roi = model.roi_head
    extractors = [roi.bbox_roi_extractor]
    heads = roi.bbox_head if isinstance(roi.bbox_head, list) else [roi.bbox_head]
    for head in heads:
        head.update(in_channels=16, fc_out_channels=32, num_classes=3)
        if 'num_shared_convs' in head:
            head.update(num_shared_convs=1, conv_out_channels=16)
    if family == 'faster-rcnn':
        model.type, roi.mask_head, roi.mask_roi_extractor = 'FasterRCNN', None, None
    if roi.get('mask_head'):
        roi.mask_head.update(in_channels=16, conv_out_channels=16, num_convs=1, num_classes=3, norm_cfg=norm)
        extractors.append(roi.mask_roi_extractor)
    for extractor in extractors:
        extractor.update(out_channels=16, featmap_strides=[4, 8, 16, 32])
    model.test_cfg.rpn.update(nms_pre=100, max_per_img=60)
    return cfg


def fill(model):
    """Fill every weight at random, so that scores differ between places, classes and images."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, layer in model.named_modules():
            if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear, torch.nn.ConvTranspose2d)):
                gain = 0.3 if name.endswith('_reg') else 1.2
                layer.weight.normal_(generator=generator).mul_(gain / layer.weight[0].numel() ** 0.5)
    return model.eval()


def scene(size, seed):
    """RGB image (1, 3, H, W) uint8 of colored rectangles on noise."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    image = torch.randint(0, 90, (1, 3, height, width), generator=generator)
    for _ in range(6):
        y, x, color = (int(torch.randint(0, n, (1,), generator=generator)) for n in (height, width, 256))
        image[:, seed % 3, y : y + 20, x : x + 30] = color
    return image.to(torch.uint8)


def predict(model, image):
    """What mmdet finds in an RGB image."""
    from mmdet.structures import DetDataSample

    size = tuple(image.shape[2:])
    sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
    data = model.data_preprocessor({'inputs': [image[0].flip(0)], 'data_samples': [sample]}, False)
    with torch.no_grad():
        return model.predict(data['inputs'], data['data_samples'], rescale=False)[0].pred_instances


def set_threshold(model, value):
    (model.roi_head if hasattr(model, 'roi_head') else model.bbox_head).test_cfg.score_thr = value


def best_score(model, image):
    return predict(model, image).scores.max().item()


@cache
def prepare(family):
    """A small detector whose threshold is between the scores of a dull image and those of the others."""
    torch.manual_seed(0)
    cfg = small(family)
    model = fill(build_model(cfg))
    set_threshold(model, 0.0)
    dull = [torch.full((1, 3, 70, 128), value, dtype=torch.uint8) for value in range(0, 256, 51)]
    blank, quiet = min(((image, best_score(model, image)) for image in dull), key=lambda pair: pair[1])
    images, loud = [], 1.0
    for size in SIZES:
        scenes = [scene(size, seed) for seed in range(4)] if size else [blank]
        scores = [best_score(model, image) for image in scenes]
        images.append(scenes[scores.index(max(scores))])
        loud = min(loud, max(scores)) if size else loud
    assert quiet < loud
    set_threshold(model, quiet + 0.1 * (loud - quiet))
    expected = [predict(model, image) for image in images]
    counts = [len(instances) for instances in expected]
    assert [count == 0 for count in counts] == [size is None for size in SIZES] and max(counts) > 5
    return SimpleNamespace(family=family, cfg=cfg, model=model, images=images, expected=expected)


@pytest.fixture(params=FAMILIES)
def detector(request):
    return prepare(request.param)


def test_the_smallest_traced_example_has_no_map_of_a_single_pixel(detector):
    """Tracing would fix a size of 1."""
    graph = create_graph(detector.model, detector.cfg)
    for side, smallest in ((graph.traced_side, 2), (graph.traced_side // 2, 1)):
        with torch.no_grad():
            maps = detector.model.extract_feat(torch.zeros(1, 3, side, side))
        assert min(map_.shape[-1] for map_ in maps) == smallest


def paste(masks, boxes, height, width):
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    return _do_paste_mask(masks[:, None], boxes, height, width, skip_empty=False)[0] >= 0.5


def assert_same(found, expected, size):
    """Hold the outputs of a graph against mmdet's instances, for an image of ``size``."""
    boxes, scores, labels = found[:3]
    flips = max(2, len(expected) // 20) if len(expected) else 0  # rounding may turn a decision of the suppression
    assert len(boxes) == len(scores) == len(labels) and abs(len(boxes) - len(expected)) <= flips
    assert labels.dtype == torch.int64 and (scores[:-1] >= scores[1:]).all()
    height, width = size
    assert (boxes >= 0).all() and (boxes <= torch.tensor([width, height, width, height])).all()
    if len(found) == 4:
        assert found[3].shape == (len(boxes), 28, 28)
    ours, theirs = match(boxes, labels, expected.bboxes, expected.labels).T
    same = (boxes[ours] - expected.bboxes[theirs]).abs().amax(1) < 0.05
    same &= (scores[ours] - expected.scores[theirs]).abs() < 1e-3
    if len(found) == 4 and len(expected):
        pasted, wanted = paste(found[3], boxes, height, width)[ours], expected.masks[theirs]
        union = (pasted | wanted).flatten(1).sum(1)
        same &= (pasted & wanted).flatten(1).sum(1) >= 0.99 * union
    assert same.sum() >= len(expected) - flips


def test_a_graph_gives_the_predictions_of_mmdet(detector):
    graph = create_graph(fuse(detector.model), detector.cfg)
    assert ('masks' in graph.output_names) == ('mask' in detector.family)
    for image, expected in zip(detector.images, detector.expected, strict=True):
        with torch.no_grad():
            assert_same(graph(image), expected, image.shape[2:])


def assert_same_instances(instances, expected):
    """Hold the instances of a record against those of another, in which a decision of the suppression may differ."""
    from pycocotools.mask import decode

    flips = max(2, len(expected) // 20) if expected else 0
    assert abs(len(instances) - len(expected)) <= flips
    same = 0
    for theirs in expected:
        ours = min(instances, key=lambda one: distance(one['bbox'], theirs['bbox']) + (one['label'] != theirs['label']))
        is_same = ours['class'] == theirs['class'] and ours.keys() == theirs.keys()
        is_same &= distance(ours['bbox'], theirs['bbox']) < 0.05 and abs(ours['score'] - theirs['score']) < 1e-3
        if is_same and 'segmentation' in ours:
            pasted, wanted = (decode(one['segmentation']).astype(bool) for one in (ours, theirs))
            is_same &= (pasted & wanted).sum() >= 0.99 * (pasted | wanted).sum()
        same += is_same
    assert same >= len(expected) - flips


def distance(box, other):
    return max(abs(a - b) for a, b in zip(box, other, strict=True))


class Ort:
    def __init__(self, path):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(path.read_bytes(), providers=['CPUExecutionProvider'])

    def __call__(self, images):
        names = [output.name for output in self.session.get_outputs()]
        found = self.session.run(None, {'images': images.numpy()})
        return dict(zip(names, map(torch.from_numpy, found), strict=True))


class OpenVino:
    def __init__(self, path):
        core = openvino_core()
        self.network = core.compile_model(core.read_model(path), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})

    def __call__(self, images):
        return {out.any_name: torch.from_numpy(a.copy()) for out, a in self.network(images.numpy()).items()}


@pytest.fixture(scope='module', params=EXPORTED)
def exported(request, tmp_path_factory):
    """A detector with its ONNX and OpenVINO files."""
    detector = prepare(request.param)
    for package in ('onnxscript', 'onnxruntime', 'openvino'):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp(detector.family)
    detector.files = str(folder / 'net.py'), str(folder / 'net.pth')
    detector.cfg.dump(detector.files[0])
    torch.save(detector.model.state_dict(), detector.files[1])
    detector.folder, detector.paths = folder, [folder / 'net.onnx', folder / 'net.xml']
    detector.done = export(load_source(*detector.files), detector.paths)
    return detector


def test_files_find_what_mmdet_finds_at_any_size_and_between_empty_images(exported):
    for runtime, path in zip((Ort, OpenVino), exported.paths, strict=True):
        run = runtime(path)
        for image, expected in zip(exported.images, exported.expected, strict=True):
            found = run(image)
            found = [found[name] for name in exported.done[0].outputs]
            assert_same(found, expected, image.shape[2:])


def test_a_file_has_standard_operators_and_says_what_it_holds(exported):
    import json

    import onnx

    model = onnx.load(exported.paths[0])
    onnx.checker.check_model(model, full_check=True)
    operators = {(node.domain, node.op_type) for node in model.graph.node}
    assert {domain for domain, _ in operators} == {''} and not model.functions
    assert ('', 'NonMaxSuppression') in operators
    assert (('', 'RoiAlign') in operators) == ('rcnn' in exported.family)
    metadata = json.loads({prop.key: prop.value for prop in model.metadata_props}['mogacore'])
    cfg = exported.cfg.model.test_cfg
    cfg = cfg.get('rcnn', cfg)
    settings = metadata['postprocess']
    assert metadata['task'] == 'detection' and metadata['input']['dynamic'] == ['height', 'width']
    assert settings['iou_threshold'] == cfg.nms.iou_threshold and settings['max_per_img'] == cfg.max_per_img
    assert settings.get('mask_threshold') == cfg.get('mask_thr_binary')
    assert 0 < settings['score_thr'] < 1


def test_a_predictor_gives_the_records_of_mogacore_infer_for_lists_of_any_length(exported):
    from mogacore.inference.predictor import infer

    photos = exported.folder / 'photos'
    photos.mkdir()
    for number, image in enumerate(exported.images):
        Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(photos / f'{number}.png')
    expected = infer(*exported.files, photos, exported.folder / 'infer', score_thr=0.0, device='cpu')
    counts = [len(record['instances']) for record in expected]
    assert not any(count for count, size in zip(counts, SIZES, strict=True) if not size)
    assert sum(count > 5 for count in counts) >= 2
    for path in exported.paths:
        predictor = Predictor(path, score_thr=0.0)
        for numbers in ([0], [1, 2], [4, 3, 2, 1, 0], [2], [3, 1, 4]):
            found = predictor([photos / f'{number}.png' for number in numbers])
            for record, number in zip(found, numbers, strict=True):
                assert record['image'] == str(photos / f'{number}.png')
                assert_same_instances(record['instances'], expected[number]['instances'])


def test_a_batch_of_two_is_refused_by_its_size(exported):
    pair = torch.cat([exported.images[0]] * 2)
    for runtime, path in zip((Ort, OpenVino), exported.paths, strict=True):
        with pytest.raises(Exception, match=REFUSALS):
            runtime(path)(pair)


@pytest.mark.parametrize(
    'family, part, change, message',
    [
        ('retinanet', 'bbox_head.test_cfg.nms.type', 'soft_nms', r"nms=\{'type': 'soft_nms'.*use dict\(type='nms'"),
        ('retinanet', 'bbox_head.test_cfg.nms_pre', -1, 'RetinaHead without nms_pre'),
        ('retinanet', 'bbox_head.bbox_coder', object(), 'object cannot be exported .*DeltaXYWHBBoxCoder'),
        ('retinanet', 'bbox_head', torch.nn.Identity(), 'Identity cannot be exported .*BaseDenseHead'),
        ('mask-rcnn', 'rpn_head.prior_generator', object(), 'object cannot be exported .*AnchorGenerator'),
        ('mask-rcnn', 'roi_head.test_cfg.nms.min_score', 0.1, 'min_score'),
        ('mask-rcnn', 'roi_head.bbox_head', torch.nn.Identity(), 'Identity cannot be exported .*BBoxHead'),
        ('mask-rcnn', 'roi_head.mask_head', torch.nn.Identity(), 'Identity cannot be exported .*FCNMaskHead'),
        ('mask-rcnn', 'roi_head.bbox_roi_extractor.roi_layers.2.pool_mode', 'max', 'RoIAlign with pool_mode max'),
        ('mask-rcnn', 'roi_head.shared_head', torch.nn.Identity(), 'StandardRoIHead with a shared head'),
    ],
)
def test_a_part_without_an_equivalent_is_refused_by_name(family, part, change, message):
    cfg = small(family)
    model = owner = build_model(cfg)
    *path, last = part.split('.')
    for name in path:
        owner = owner[int(name)] if name.isdigit() else getattr(owner, name)
    setattr(owner, last, change)
    with pytest.raises(UserError, match=message) as error:
        create_graph(model, cfg)
    assert '\n' not in str(error.value)


def test_boxes_are_matched_by_label_and_overlap():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 30]])
    others = torch.tensor([[51.0, 50, 61, 60], [0, 0, 10, 9], [0, 0, 10, 10], [27, 20, 37, 30]])
    pairs = match(boxes, torch.tensor([0, 1, 0, 0]), others, torch.tensor([0, 0, 1, 0]))
    assert sorted(map(tuple, pairs.tolist())) == [(0, 1), (1, 2), (2, 0)]  # the last ones overlap by 3 of 17
    assert match(boxes[:0], torch.tensor([]), others, torch.tensor([0, 0, 1, 0])).shape == (0, 2)


def test_the_check_of_a_file_allows_few_flips_and_no_others():
    cfg = small('mask-rcnn')
    graph = create_graph(build_model(cfg).eval(), cfg)
    corners = 12 * torch.arange(50.0)[:, None].expand(-1, 2)
    boxes = torch.cat([corners, corners + 10], 1)
    expected = boxes, torch.linspace(0.9, 0.1, 50), torch.arange(50) % 3, torch.rand(50, 28, 28)

    def failing(*found):
        return [item.name for item in graph.differences(found, expected, 1e-4) if item.value > item.limit]

    assert failing(*expected) == []
    assert failing(*(output[2:] for output in expected)) == []
    assert failing(*(output[3:] for output in expected)) == [MOVED]
    assert failing(boxes + 0.2, *expected[1:]) == [MOVED]
    assert failing(boxes, expected[1] - 0.01, *expected[2:]) == ['scores']
    assert failing(boxes, expected[1], (expected[2] + 1) % 3, expected[3]) == [MOVED]
    assert failing(*expected[:3], expected[3] + 0.1) == ['masks']
    nothing = [output[:0] for output in expected]
    assert failing(*nothing) == [MOVED]
    assert all(item.value == 0 for item in graph.differences(nothing, nothing, 1e-4))


def test_the_check_of_a_file_includes_images_with_and_without_detections():
    cfg = small('retinanet')
    graph = create_graph(fill(build_model(cfg)), cfg).eval()
    examples = [graph.example((1, 3, 64, 64 + 16 * seed), torch.uint8, seed) for seed in range(3)]
    lowered, own = graph.constants_to_check(examples)
    assert own['score_thr'] == pytest.approx(cfg.model.test_cfg.score_thr) == pytest.approx(graph.score_thr.item())
    graph.score_thr.fill_(lowered['score_thr'])
    with torch.no_grad():
        counts = sorted(len(graph(*example)[0]) for example in examples)
    assert counts[0] == 0 and counts[1] > 0
