"""The fast transforms of class maps and masks draw the random numbers of the toolboxes and give their samples."""

import numpy as np
import pytest
from mmengine.registry import TRANSFORMS, DefaultScope
from skimage.draw import polygon as fill_polygon

import mogacore.datasets  # noqa: F401, registers
from mogacore.libraries import import_quietly


def build(scope, steps):
    with DefaultScope.overwrite_default_scope(scope):
        return [TRANSFORMS.build(step) for step in steps]


def run(steps, sample, seed):
    """The sample after the steps, and the next random number, which tells how many were drawn."""
    np.random.seed(seed)
    for step in steps:
        sample = step(sample)
    return sample, np.random.rand()


class TestFastRandomCrop:
    @pytest.fixture(scope='class', autouse=True)
    def library(self):
        pytest.importorskip('mmseg')
        import_quietly('mmseg')

    @pytest.mark.parametrize('dtype', [np.uint8, np.int64])
    @pytest.mark.parametrize('ratio', [1.0, 0.75, 0.4])
    @pytest.mark.parametrize('ignored', [255, 0])
    def test_crops_equal_those_of_mmseg(self, dtype, ratio, ignored):
        settings = dict(crop_size=(16, 24), cat_max_ratio=ratio, ignore_index=ignored)
        ours, theirs = (
            build('mmseg', [dict(type=kind, **settings)]) for kind in ('FastRandomCrop', 'mmseg.RandomCrop')
        )
        regions = set()
        for seed in range(40):
            generator = np.random.default_rng(seed)
            size = [(40, 50), (10, 60), (16, 24)][seed % 3]
            labels = generator.choice([0, 0, 0, 0, 7, 150, 255], size).astype(dtype)
            labels[: size[0] // 2] = 7  # crops of a single class
            sample = dict(img=generator.integers(0, 256, (*size, 3), np.uint8), gt_seg_map=labels, other=labels + 1)
            (found, ours_next), (expected, theirs_next) = (
                run(steps, dict(sample, seg_fields=['gt_seg_map', 'other']), seed) for steps in (ours, theirs)
            )
            for key in ('img', 'gt_seg_map', 'other'):
                np.testing.assert_array_equal(found[key], expected[key])
            assert ours_next == theirs_next and found['img_shape'] == expected['img_shape']
            regions.add(found['img'].tobytes())
        assert len(regions) > 20


class TestMasks:
    @pytest.fixture(scope='class', autouse=True)
    def library(self):
        pytest.importorskip('mmdet')
        import_quietly('mmdet')

    def pipelines(self):
        load = dict(with_bbox=True, with_mask=True)
        rest = [dict(type='Resize', scale=(240, 180), keep_ratio=True), dict(type='RandomFlip', prob=0.5)]
        theirs = [dict(type='LoadAnnotations', **load), *rest]
        ours = [dict(type='LoadPolygons', **load), *rest, dict(type='RasterizePolygons')]
        return build('mmdet', ours), build('mmdet', theirs)

    def sample(self, masks, ignored=()):
        instances = [
            dict(bbox=[5, 5, 60, 60], bbox_label=0, ignore_flag=int(number in ignored), mask=mask)
            for number, mask in enumerate(masks)
        ]
        return dict(img=np.zeros((90, 120, 3), np.uint8), img_shape=(90, 120), ori_shape=(90, 120), instances=instances)

    def circle(self, x, y, radius):
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], -1)

    def test_masks_are_those_of_the_enlarged_polygons(self):
        shapes = [self.circle(40, 40, 20), self.circle(80, 50, 9), self.circle(30, 60, 25)]
        ours, theirs = self.pipelines()
        for seed in range(4):  # with and without a flip
            (found, ours_next), (expected, theirs_next) = (
                run(steps, self.sample([[shape.ravel().tolist()] for shape in shapes]), seed)
                for steps in (ours, theirs)
            )
            assert ours_next == theirs_next and found['flip'] == expected['flip']
            np.testing.assert_array_equal(found['gt_bboxes'].tensor, expected['gt_bboxes'].tensor)
            assert found['gt_masks'].masks.shape == expected['gt_masks'].masks.shape == (3, 180, 240)
            for mask, theirs_mask, shape in zip(
                found['gt_masks'].masks, expected['gt_masks'].masks, shapes, strict=True
            ):
                points = shape * 2
                if found['flip']:
                    points[:, 0] = 240 - points[:, 0]
                oracle = np.zeros((180, 240), bool)
                oracle[fill_polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, oracle.shape)] = True
                assert overlap(mask, oracle) > 0.95
                assert overlap(mask, theirs_mask) > 0.9  # theirs has the corners of the small pixels

    def test_bitmaps_equal_those_of_whole_images(self):
        from mmdet.structures.mask import PolygonMasks

        generator = np.random.default_rng(0)
        (rasterize,) = build('mmdet', [dict(type='RasterizePolygons')])
        for _ in range(60):  # some reach beyond the image, some lie outside
            center = generator.uniform(-20, 90, 2)
            polygons = [
                (center + generator.normal(0, generator.choice([0.3, 3, 30]), (generator.integers(3, 9), 2))).ravel()
                for _ in range(generator.integers(1, 4))
            ]
            masks = PolygonMasks([polygons, polygons[:1]], 50, 70)
            found = rasterize(dict(gt_masks=masks))['gt_masks']
            np.testing.assert_array_equal(found.masks, masks.to_bitmap().masks)
            assert (found.height, found.width) == (50, 70)

    def test_run_lengths_and_invalid_polygons(self):
        polygon = [self.circle(40, 40, 20).ravel().tolist()]
        runs = dict(size=[90, 120], counts=[100, 2000, 8700])
        ours, theirs = self.pipelines()
        for masks, ignored in (
            ([runs, polygon], ()), ([polygon, runs], (1,)), ([polygon, [[1.0, 2.0]]], ()), ([], ()),
        ):  # fmt: skip
            found, expected = (run(steps, self.sample(masks, ignored), 0)[0] for steps in (ours, theirs))
            np.testing.assert_array_equal(found['gt_ignore_flags'], expected['gt_ignore_flags'])
            assert type(found['gt_masks']) is type(expected['gt_masks'])
            kept = ~found['gt_ignore_flags']
            for one, other in zip(found['gt_masks'].masks[kept], expected['gt_masks'].masks[kept], strict=True):
                assert overlap(one, other) > 0.9


def overlap(one, other):
    """Intersection over union of two masks."""
    one, other = one.astype(bool), other.astype(bool)
    return (one & other).sum() / (one | other).sum()
