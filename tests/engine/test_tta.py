"""Merging several views of an image, compared with a brute-force average."""

import math
import weakref

import cv2
import mmengine
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, TINY_ARCH, fill_by_name
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import nn

from mogacore.engine.config import enable_tta, replace_sync_bn
from mogacore.engine.runner import test as run_test
from mogacore.engine.tta import InstanceTTAModel, SegmentationTTAModel, unflip
from mogacore.libraries import import_quietly

HEIGHT, WIDTH = 6, 8


def instances(mask_box, score, label=0):
    """One instance whose mask fills the box x1, y1, x2, y2."""
    x1, y1, x2, y2 = mask_box
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, y1:y2, x1:x2] = True
    return InstanceData(
        bboxes=torch.tensor([mask_box], dtype=torch.float), scores=torch.tensor([score]),
        labels=torch.tensor([label]), masks=mask,
    )  # fmt: skip


def box_of(mask):
    ys, xs = np.nonzero(mask.numpy())
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize(
    'direction, box', [(None, (1, 0, 3, 2)), ('horizontal', (5, 0, 7, 2)), ('vertical', (1, 4, 3, 6)),
                       ('diagonal', (5, 4, 7, 6))],
)  # fmt: skip
def test_a_flipped_view_is_flipped_back(direction, box):
    meta = dict(ori_shape=(HEIGHT, WIDTH), flip=direction is not None, flip_direction=direction)
    found = unflip(instances((1, 0, 3, 2), 0.9), meta)
    assert found.bboxes[0].tolist() == list(box)
    assert box_of(found.masks[0]) == list(box)


class Detector(nn.Module):
    def test_step(self, data):
        raise NotImplementedError


class Sample:
    def __init__(self, pred_instances, flip):
        self.pred_instances = pred_instances
        self.metainfo = dict(ori_shape=(HEIGHT, WIDTH), flip=flip, flip_direction='horizontal' if flip else None)


def test_duplicates_across_views_are_merged_and_other_objects_kept():
    pytest.importorskip('mmcv')
    model = InstanceTTAModel(module=Detector(), iou_threshold=0.5, max_per_img=2)
    plain = InstanceData.cat([instances((1, 0, 3, 2), 0.6), instances((4, 2, 6, 5), 0.5, label=1)])
    mirrored = InstanceData.cat([instances((5, 0, 7, 2), 0.8), instances((0, 4, 2, 6), 0.3)])
    (merged,) = model.merge_preds([[Sample(plain, False), Sample(mirrored, True)]])
    torch.testing.assert_close(merged.pred_instances.scores, torch.tensor([0.8, 0.5]))  # best two of three
    assert merged.pred_instances.bboxes.tolist() == [[1, 0, 3, 2], [4, 2, 6, 5]]
    assert merged.pred_instances.labels.tolist() == [0, 1]
    assert box_of(merged.pred_instances.masks[0]) == [1, 0, 3, 2]


def test_an_image_without_instances_in_any_view_has_none():
    pytest.importorskip('mmcv')
    empty = [Sample(instances((1, 0, 3, 2), 0.6)[:0], flip) for flip in (False, True)]
    (merged,) = InstanceTTAModel(module=Detector()).merge_preds([empty])
    assert len(merged.pred_instances) == 0 and merged.pred_instances.masks.shape == (0, HEIGHT, WIDTH)


# A config of every kind of box detector.
DETECTORS = {
    'retinanet': 'retinanet_moganet-xtiny_fpn_digits',
    'faster-rcnn': 'faster-rcnn_moganet-xtiny_fpn_digits',
    'mask-rcnn': 'mask-rcnn_moganet-xtiny_fpn_digits',
    'fcos': 'fcos_moganet-xtiny_fpn_digits',
    'rtmdet': 'rtmdet_moganet-tiny_100e_coco',  # pads images, and lists the metadata of its samples
    'dino-4scale': 'dino-4scale_moganet-xtiny_digits',
    'cascade-rcnn': 'cascade-rcnn_moganet-small_fpn_ms-3x_coco',
    'cascade-mask-rcnn': 'cascade-mask-rcnn_moganet-small_fpn_ms-3x_coco',  # averages the masks of three stages
}


def test_every_detector_is_listed():
    names = {path.stem.split('_')[0] for path in (ROOT / 'configs' / 'detection').glob('*.py')}
    assert names == set(DETECTORS)


class Views:
    """A detector with a tiny backbone and random weights, and its test pipeline at 128 x 192."""

    def __init__(self, name):
        pytest.importorskip('mmdet')
        import_quietly('mmdet')
        init_default_scope('mmdet')
        self.path = ROOT / 'configs' / 'detection' / f'{DETECTORS[name]}.py'
        cfg = self._config([0.0, 1.0])
        if 'roi_head' in cfg.model.module:
            cfg.model.module.test_cfg.rpn.update(nms_pre=100, max_per_img=30)
            cfg.model.module.test_cfg.rcnn.update(score_thr=0.0, max_per_img=10)
        replace_sync_bn(cfg.model)
        self.model = MODELS.build(cfg.model).eval()
        self.model.module.init_weights()
        for part, layer in self.model.module.named_modules():  # at first, the scores of all places are nearly the same
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and not part.startswith('backbone') and 'offsets' not in part:
                nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)

    def _config(self, flips):
        cfg = Config.fromfile(self.path)
        widths = [8, 16, 24, 32]
        cfg.merge_from_dict({
            'model.backbone.arch': dict(_delete_=True, **TINY_ARCH), 'model.backbone.init_cfg': None,
            'model.neck.in_channels': widths[-len(cfg.model.neck.in_channels) :],
            'tta_model.iou_threshold': 1.0, 'tta_model.max_per_img': 10**6,  # keeps all instances
        })  # fmt: skip
        for step in cfg.test_dataloader.dataset.pipeline:
            step.update({'Resize': dict(scale=(192, 128)), 'Pad': dict(size=(192, 192))}.get(step.type, {}))
        cfg.tta_views = [[dict(type='RandomFlip', prob=prob) for prob in flips]]
        enable_tta(cfg)
        return cfg

    @torch.no_grad()
    def predict(self, path, flips):
        """Data sample of an image file in one view per probability of a flip."""
        from mmcv.transforms import Compose

        pipeline = Compose(self._config(flips).test_dataloader.dataset.pipeline)
        item = pipeline(dict(img_path=str(path), img_id=0, height=192, width=128, instances=[]))
        (sample,) = self.model.test_step({key: [[value] for value in values] for key, values in item.items()})
        return sample


@pytest.mark.parametrize('name', DETECTORS)
def test_the_flipped_view_of_every_detector_is_the_mirrored_prediction_of_the_mirrored_image(name, tmp_path):
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (12, 8, 3), np.uint8), (128, 192))
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    cv2.imwrite(str(tmp_path / 'mirrored.png'), image[:, ::-1])
    views = Views(name)
    flipped = views.predict(tmp_path / 'image.png', [1.0])
    plain = views.predict(tmp_path / 'mirrored.png', [0.0])
    found, expected = flipped.pred_instances, plain.pred_instances
    assert len(found) > 1 and found.scores.std() > 0
    torch.testing.assert_close(found.scores, expected.scores)
    x1, y1, x2, y2 = expected.bboxes.unbind(1)
    torch.testing.assert_close(found.bboxes, torch.stack([128 - x2, y1, 128 - x1, y2], 1), rtol=1e-4, atol=1e-3)
    if 'mask' in name:
        assert found.masks.any() and torch.equal(found.masks, expected.masks.flip(2))
    both = views.predict(tmp_path / 'image.png', [0.0, 1.0]).pred_instances
    assert len(both) > len(found) and torch.isin(found.scores, both.scores).all()


class Segmentor(nn.Module):
    """Its inputs are the logits of the views; counts how many of its maps are alive at the same time."""

    def __init__(self, threshold=None):
        super().__init__()
        self.decode_head = nn.Identity()
        self.decode_head.threshold = threshold
        self.maps, self.most_alive = [], 0

    def test_step(self, data):
        samples = []
        for logits, sample in zip(data['inputs'], data['data_samples'], strict=True):
            logits = logits.clone()
            self.maps.append(weakref.ref(logits))
            sample.seg_logits = PixelData(data=logits)
            samples.append(sample)
        self.most_alive = max(self.most_alive, sum(one() is not None for one in self.maps))
        return samples


def views_of(*images):
    """A batch of images, each a list with the logits of its views."""
    num_views = len(images[0])
    samples = [[BaseDataElement(metainfo=dict(view=view)) for _ in images] for view in range(num_views)]
    return dict(inputs=[[image[view] for image in images] for view in range(num_views)], data_samples=samples)


def test_class_probabilities_of_all_views_are_averaged():
    images = [[torch.randn(4, *size) for _ in range(5)] for size in ((6, 8), (3, 2))]
    merged = SegmentationTTAModel(module=Segmentor()).test_step(views_of(*images))
    for sample, views in zip(merged, images, strict=True):
        expected = sum(np.exp(view.double().numpy()) / np.exp(view.double().numpy()).sum(0) for view in views) / 5
        np.testing.assert_allclose(sample.seg_logits.data.exp(), expected, rtol=1e-5)
        np.testing.assert_array_equal(sample.pred_sem_seg.data, expected.argmax(0)[None])


def test_scores_of_a_single_class_are_averaged_and_thresholded():
    """mmseg returns them after the sigmoid."""
    views = [torch.tensor([[[0.1, 0.5]]]), torch.tensor([[[0.4, 0.6]]])]
    (sample,) = SegmentationTTAModel(module=Segmentor(threshold=0.3)).test_step(views_of(views))
    torch.testing.assert_close(sample.seg_logits.data, torch.tensor([[[0.25, 0.55]]]))
    assert sample.pred_sem_seg.data.tolist() == [[[0, 1]]]


def test_logits_of_only_one_view_are_in_memory():
    model = Segmentor()
    SegmentationTTAModel(module=model).test_step(views_of([torch.randn(4, 3, 3) for _ in range(12)]))
    assert len(model.maps) == 12 and model.most_alive == 1


SIZES = [(1024, 256), (1536, 384), (2048, 512), (2560, 640), (3072, 768), (3584, 896)]  # of segmentation/test.py


def probabilities_by_hand(model, image, size):
    """Class probabilities of a (H, W, 3) BGR image, summed over the view of a size and its mirror image."""
    height, width = image.shape[:2]
    factor = min(max(size) / max(height, width), min(size) / min(height, width))
    scaled = cv2.resize(image, (int(width * factor + 0.5), int(height * factor + 0.5)))
    aligned = cv2.resize(scaled, [math.ceil(side / 32) * 32 for side in scaled.shape[1::-1]])
    total = 0
    for step in (1, -1):
        rgb = (aligned[:, ::step, ::-1] - np.array([123.675, 116.28, 103.53])) / np.array([58.395, 57.12, 57.375])
        logits = model(torch.from_numpy(rgb.transpose(2, 0, 1)[None]).float(), mode='tensor')
        logits = F.interpolate(logits, aligned.shape[:2], mode='bilinear')
        logits = logits.flip(3) if step == -1 else logits
        total += F.interpolate(logits, (height, width), mode='bilinear')[0].softmax(0)
    return total


def test_ade20k_configs_average_six_sizes_and_their_mirror_images(tmp_path):
    """At an eighth of the published sizes, for a small network."""
    pytest.importorskip('mmseg')
    import_quietly('mmseg')
    init_default_scope('mmseg')
    cfg = Config.fromfile(ROOT / 'configs/segmentation/semantic-fpn_moganet-xtiny_80k_ade20k-512x512.py')
    assert [view.scale for view in cfg.tta_views[0]] == SIZES
    for view, (long, short) in zip(cfg.tta_views[0], SIZES, strict=True):
        view.scale = (long // 8, short // 8)
    cfg.merge_from_dict({
        'model.backbone.arch': dict(_delete_=True, **TINY_ARCH), 'model.backbone.init_cfg': None,
        'model.neck.in_channels': [8, 16, 24, 32], 'model.neck.out_channels': 16,
        'model.decode_head.in_channels': [16] * 4, 'model.decode_head.channels': 8,
        'model.decode_head.norm_cfg.type': 'BN', 'test_dataloader.dataset.data_root': str(tmp_path),
        'test_dataloader.num_workers': 0, 'test_dataloader.persistent_workers': False,
    })  # fmt: skip
    cfg.test_evaluator = dict(type='DumpResults', out_file_path=str(tmp_path / 'results.pkl'))
    rng = np.random.default_rng(0)
    for folder in ('images', 'annotations'):
        (tmp_path / folder / 'validation').mkdir(parents=True)
    for name, (height, width) in {'a': (45, 70), 'b': (96, 50)}.items():
        noise = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (width, height))
        cv2.imwrite(str(tmp_path / 'images' / 'validation' / f'{name}.jpg'), noise)
        cv2.imwrite(str(tmp_path / 'annotations' / 'validation' / f'{name}.png'), np.ones((height, width), np.uint8))
    model = fill_by_name(MODELS.build(cfg.model)).eval()
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    cfg.dump(tmp_path / 'small.py')

    run_test(str(tmp_path / 'small.py'), str(tmp_path / 'weights.pth'), work_dir=str(tmp_path / 'work'), tta=True)

    for name, result in zip('ab', mmengine.load(tmp_path / 'results.pkl'), strict=True):
        image = cv2.imread(str(tmp_path / 'images' / 'validation' / f'{name}.jpg'))
        with torch.no_grad():
            views = [probabilities_by_hand(model, image, (long // 8, short // 8)) for long, short in SIZES]
        expected = sum(views) / 12
        torch.testing.assert_close(result['seg_logits']['data'].exp(), expected, rtol=1e-3, atol=1e-5)
        assert (views[2] / 2 - expected).abs().max() > 0.01  # a single size differs
        classes = result['pred_sem_seg']['data']
        assert classes.shape == (1, *image.shape[:2])
        best = expected.max(0).values
        torch.testing.assert_close(expected.gather(0, classes)[0], best, rtol=1e-3, atol=1e-5)
