"""Records of small files, computed by hand."""

import json
from functools import partial

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('onnx')
from onnx_files import write_classifier, write_detector, write_pose, write_segmenter, write_video_predictor

from mogacore import images as image_files
from mogacore.errors import UserError
from mogacore.runtime import Predictor, TopDown
from mogacore.runtime.rle import encode_rle
from mogacore.runtime.tiles import make_tiles, merge

BACKENDS = ('onnxruntime', 'openvino')


@pytest.fixture
def classifier(tmp_path):
    return partial(write_classifier, tmp_path / 'classifier.onnx')


ANOTHER_FORMAT = 'has format None, but this version reads 1: export it again'
INPUT_LACKS = ', '.join(f'input.{key}' for key in ('name', 'dtype', 'channels', 'size', 'dynamic'))
COMPLETE = {'name': 'images', 'dtype': 'uint8', 'channels': 'rgb', 'size': [8, 8], 'dynamic': []}


@pytest.mark.parametrize(
    'text, message',
    [
        *((text, ANOTHER_FORMAT) for text in ('[]', '1', '{}', 'null')),
        ('{"format": 1}', f'lacks task, {INPUT_LACKS}: export the model again'),
        ('{"format": 1, "task": "pose", "input": 1}', f'lacks {INPUT_LACKS}:'),
        ('{"format": 1, "task": "pose", "input": {"name": "images"}}', 'lacks input.dtype, input.channels'),
        (json.dumps({'format': 1, 'task': 'pose', 'input': COMPLETE}), 'lacks the names of the keypoints'),
        (
            json.dumps({'format': 1, 'task': 'classification', 'input': COMPLETE | {'name': 'x'}}),
            'does not name an input',
        ),
    ],
)
def test_a_file_with_another_description_is_reported(text, message, classifier):
    import onnx

    path = classifier()
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {'mogacore': text})
    onnx.save(model, path)
    with pytest.raises(UserError, match=message) as raised:
        Predictor(path)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('path', [None, 3, b'net.onnx', np.zeros(3)])
def test_a_model_that_is_no_path_is_reported(path):
    with pytest.raises(UserError, match=f'the model is of type {type(path).__name__}: give the path of a file'):
        Predictor(path)


def filled(color, height=8, width=6):
    return np.full((height, width, 3), color, np.uint8)


@pytest.mark.parametrize('backend', BACKENDS)
def test_images_are_taken_as_paths_arrays_and_bytes(backend, classifier, tmp_path):
    pytest.importorskip(backend)
    predictor = Predictor(classifier(), backend)
    assert (predictor.task, predictor.classes) == ('classification', ['red', 'green', 'blue'])
    image = filled((1, 3, 2))
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), image[..., ::-1])
    expected = np.exp([1, 3, 2]) / np.exp([1, 3, 2]).sum()
    record = predictor(image)
    assert (record['pred_label'], record['pred_class']) == (1, 'green')
    assert [entry['class'] for entry in record['top']] == ['green', 'blue', 'red']
    np.testing.assert_allclose([entry['score'] for entry in record['top']], sorted(expected)[::-1], atol=1e-6)
    content = path.read_bytes()
    for same in (content, bytearray(content), memoryview(content), Image.fromarray(image), Image.open(path)):
        assert predictor(same) == record
    assert predictor([path, str(path)]) == [{'image': str(path), **record}] * 2
    assert predictor(np.stack([image, image])) == [record] * 2


def test_pillow_images_are_turned_and_converted_as_their_files_are(classifier, tmp_path, monkeypatch):
    predictor = Predictor(classifier())
    stored = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    colors = Image.fromarray(stored)
    clear = colors.quantize(8)
    clear.info['transparency'] = 3
    deep = np.random.default_rng(0).integers(0, 1 << 16, (6, 9), np.uint16)
    images = [(colors.convert(mode), 'png') for mode in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA')]
    images += [(clear, 'png'), (Image.fromarray(deep), 'png'), (Image.fromarray(deep), 'tiff')]
    images += [(colors.convert('CMYK'), 'jpg'), (colors.convert('CMYK'), 'tiff')]
    for image, suffix in images:
        path = tmp_path / f'image.{suffix}'
        turned = suffix != 'tiff'  # Pillow turns some TIFF files twice
        image.save(path, **({'exif': exif} if turned else {}))
        of_path, of_bytes, of_pillow = (
            predictor.load(one).pixels for one in (path, path.read_bytes(), Image.open(path))
        )
        assert of_pillow.shape == ((9, 6, 3) if turned else (6, 9, 3)), (image.mode, suffix)
        np.testing.assert_array_equal(of_bytes, of_path)
        # Of CMYK, OpenCV and Pillow round the colors differently.
        tolerance = 1 if image.mode == 'CMYK' else 0
        np.testing.assert_allclose(of_pillow.astype(int), of_path, 0, tolerance, err_msg=f'{image.mode} {suffix}')
    with pytest.raises(UserError, match='the Pillow image has the mode F: convert it to RGB'):
        predictor(Image.fromarray(stored[..., 0].astype(np.float32)))
    Image.fromarray(stored).save(tmp_path / 'image.png')
    (tmp_path / 'half.png').write_bytes((tmp_path / 'image.png').read_bytes()[:100])
    with pytest.raises(UserError, match='the Pillow image cannot be read'):
        predictor(Image.open(tmp_path / 'half.png'))
    monkeypatch.setenv('MOGACORE_MAX_PIXELS', '50')
    with pytest.raises(UserError, match='image of 9 x 6 px has more than 50 pixels'):
        predictor(Image.fromarray(stored))


@pytest.mark.parametrize('channels', ['rgb', 'gray'])
def test_an_image_gives_the_same_pixels_in_every_form(channels, classifier, tmp_path):
    """Also those of transparent images. OpenCV's gray of a color file, which is that of training, differs slightly."""
    y, x = np.mgrid[:24, :16]
    pixels = np.stack([x * 9, y * 9, x * y % 256, y * 10], 2).astype(np.uint8)
    clear = Image.fromarray(pixels[..., :3]).quantize(8)
    clear.info['transparency'] = 3
    predictor = Predictor(classifier())
    predictor.is_gray = channels == 'gray'
    for image, kind in (
        (Image.fromarray(pixels), 'tiff'), (Image.fromarray(pixels), 'png'), (clear, 'gif'), (clear, 'png'),
        (Image.fromarray(pixels[..., :3]), 'jpg'), (Image.fromarray(pixels[..., 0]), 'jpg'),
    ):  # fmt: skip
        path = tmp_path / f'image.{kind}'
        image.save(path)
        of_path = predictor.load(path)
        for same in (path.read_bytes(), Image.open(path), of_path.shown):
            levels = 0 if channels == 'rgb' or image.mode == 'L' or isinstance(same, bytes) else 12
            found, name = predictor.load(same).pixels, f'{image.mode} {kind}'
            np.testing.assert_allclose(found.astype(int), of_path.pixels.astype(int), rtol=0, atol=levels, err_msg=name)


def test_what_is_no_image_is_reported_in_one_line(classifier, tmp_path):
    predictor = Predictor(classifier())
    for image, message in (
        (None, 'the image is of type NoneType: give a path, an RGB array'), (3, 'the image is of type int'),
        ([None], 'the image is of type NoneType'), ('a\0b.png', 'cannot be read .embedded null byte.'),
        (tmp_path / 'none.png', r'image .*none\.png not found: check the path'),
        (tmp_path, r'image .* cannot be read .Is a directory.: use another'), ('', 'Is a directory'),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message) as raised:
            predictor(image)
        assert '\n' not in str(raised.value)
    for size in (0, -1):
        with pytest.raises(UserError, match=f'batch_size is {size}: use 1 or more'):
            predictor.predict([filled((1, 2, 3))], batch_size=size)
    for images in ('image.png', b'', None, filled((1, 2, 3))):
        with pytest.raises(UserError, match=f'list of images, but got one object of type {type(images).__name__}'):
            predictor.predict(images)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('batch', ['batch', 1, 2])
def test_images_of_several_sizes_are_predicted_in_order_whatever_the_batch(backend, batch, classifier):
    pytest.importorskip(backend)
    predictor = Predictor(classifier(batch=batch), backend, threads=1)
    images = [filled(np.roll([9, 0, 0], i), 4 + i % 2, 5) for i in range(7)]
    for batch_size in (None, 1, 3):
        predictions = predictor.predict(images, batch_size=batch_size)
        assert [prediction.record['pred_label'] for prediction in predictions] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(backend='tflite'), "backend 'tflite' does not read .*: use auto, onnxruntime or openvino"),
        (dict(device='coreml'), "device 'coreml' is not available: use cpu"),
        (dict(backend='openvino', device='cuda'), "device 'cuda' is not available in openvino: use cpu"),
        (dict(threads=0), 'threads is 0: use 1 or more'),
        (dict(score_thr=2), 'score_thr 2 is out of range'),
        (dict(tile=64), 'tile is 64, but the model is for classification: omit it'),
    ],
)
def test_settings_that_do_not_work_are_reported(options, message, classifier):
    with pytest.raises(UserError, match=message) as raised:
        Predictor(classifier(), **options)
    assert '\n' not in str(raised.value)


FIT = {'step': 'resize', 'mode': 'fit', 'size': [40, 80], 'interpolation': 'nearest', 'backend': 'cv2'}


def scene(height, width, *regions, value=255):
    """A black image with red regions x1, y1, x2, y2."""
    image = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2 in regions:
        image[y1:y2, x1:x2, 0] = value
    return image


@pytest.mark.parametrize('backend', BACKENDS)
def test_boxes_and_masks_are_those_of_the_original_image(backend, tmp_path):
    predictor = Predictor(write_detector(tmp_path / 'detector.onnx', True, preprocess=[FIT]), backend)
    empty, found, faint, tall = predictor.predict([
        scene(100, 200), scene(100, 200, (40, 20, 80, 60)), scene(100, 200, (40, 20, 80, 60), value=130),
        scene(200, 100, (40, 20, 80, 60)),
    ])  # fmt: skip
    assert empty.record == {'instances': []} and empty.masks.shape == (0, 100, 200)
    for prediction in (found, tall):
        (instance,) = prediction.record['instances']
        assert (instance['class'], instance['label'], instance['score']) == ('thing', 1, 1)
        np.testing.assert_allclose(instance['bbox'], [40, 20, 80, 60], atol=2.5)
        (mask,) = prediction.masks
        ys, xs = np.nonzero(mask)
        np.testing.assert_allclose([xs.min(), ys.min(), xs.max(), ys.max()], [40, 20, 60, 60], atol=2.5)
        assert instance['segmentation'] == encode_rle(mask, compressed=True)
    assert faint.record['instances'][0]['score'] == pytest.approx(130 / 255, abs=1e-6)
    assert Predictor(predictor.path, backend, score_thr=0.6)(scene(100, 200, (4, 2, 8, 6), value=130)) == {
        'instances': []
    }


@pytest.mark.parametrize('backend', BACKENDS)
def test_class_maps_have_the_size_of_the_image_in_batches_of_several_sizes(backend, tmp_path):
    predictor = Predictor(write_segmenter(tmp_path / 'segmenter.onnx', preprocess=[FIT]), backend)
    images = [scene(80, 160, (40, 20, 80, 60)), scene(160, 80, (0, 0, 80, 80)), scene(80, 160, (0, 0, 160, 40))]
    predictions = predictor.predict(images * 2)
    for image, prediction in zip(images * 2, predictions, strict=True):
        np.testing.assert_array_equal(prediction.class_map, image[..., 0] > 127)
        assert prediction.record['classes'][0] == {'class': 'dark', 'label': 0, 'share': np.mean(image[..., 0] == 0)}


@pytest.mark.parametrize('options', [{}, {'size': '80, 80'}])
def test_padding_of_the_test_pipeline_does_not_move_boxes(options, tmp_path):
    pad = {'step': 'pad', 'size': [80, 80], 'value': [0, 0, 0]}
    predictor = Predictor(write_detector(tmp_path / 'detector.onnx', preprocess=[FIT, pad], **options))
    (instance,) = predictor(scene(100, 200, (40, 20, 80, 60)))['instances']
    np.testing.assert_allclose(instance['bbox'], [40, 20, 80, 60], atol=2.5)


@pytest.mark.parametrize('backend', BACKENDS)
def test_keypoints_are_found_in_each_box(backend, tmp_path):
    predictor = Predictor(write_pose(tmp_path / 'pose.onnx'), backend)
    image = scene(96, 144, (20, 30, 23, 33), (100, 50, 103, 53), value=200)
    boxes = [[0, 0, 72, 96], [72, 0, 144, 96, 0.9]]
    (one,), (two,), none, whole = (
        prediction.record['instances']
        for prediction in predictor.predict([image] * 4, [boxes[:1], boxes[1:], [], None])
    )
    np.testing.assert_allclose(one['keypoints'], [[21, 31, 200 / 255]], atol=3)
    np.testing.assert_allclose(two['keypoints'], [[101, 51, 200 / 255]], atol=3)
    assert one['score'] == two['score'] == pytest.approx(200 / 255, abs=1e-6)
    assert none == [] and whole[0]['bbox'] == [0, 0, 144, 96]
    for wrong in ([[1, 2, 3]], [1, 2, 3, 4], [[5, 5, 5, 9]], [[0, 0, np.nan, 9]], [[0, 0, 3e38, 3e38]], 'box', [[]]):
        with pytest.raises(UserError, match='boxes are invalid: use'):
            predictor(image, wrong)
    with pytest.raises(UserError, match='40000 x 9 px is too large to cut objects out'):
        predictor(np.zeros((9, 40000, 3), np.uint8))


@pytest.mark.parametrize('write', [write_classifier, write_detector, write_segmenter])
def test_boxes_for_a_model_that_takes_none_are_refused(write, tmp_path):
    predictor = Predictor(write(tmp_path / 'model.onnx'))
    image = scene(40, 50, (10, 10, 20, 20))
    for call in (lambda: predictor(image, [[0, 0, 9, 9]]), lambda: predictor.predict([image] * 2, [None, []])):
        with pytest.raises(UserError, match=f'boxes are only for pose .* the model is for {predictor.task}: omit them'):
            call()
    assert predictor([image] * 2, [None, None]) == [predictor(image)] * 2


def test_frames_are_predicted_and_drawn_for_each_video(tmp_path):
    predictor = Predictor(write_video_predictor(tmp_path / 'video.onnx'))
    frames = np.random.default_rng(0).random((2, 2, 1, 16, 16), np.float32)
    np.testing.assert_allclose(predictor.predict_frames(frames), 1 - frames[:, 1:].repeat(3, 1))
    for options in (dict(frames=frames[:, :1]), dict(frames=frames[0])):
        with pytest.raises(UserError, match='but the model takes any x 2 x 1 x 16 x 16'):
            predictor.predict_frames(**options)
    with pytest.raises(UserError, match='use predict_frames or infer'):
        predictor([tmp_path / 'image.png'])
    (tmp_path / 'clip').mkdir()
    for number in range(8):
        cv2.imwrite(str(tmp_path / 'clip' / f'{number}.png'), np.full((32, 32), 30 * number, np.uint8))
    with pytest.raises(UserError, match='tile is 64, but the model is for video_prediction'):
        Predictor(predictor.path, tile=64)
    records = predictor.infer(tmp_path / 'clip', tmp_path / 'out')
    assert [record['sequence'].rpartition(', ')[2] for record in records] == ['from frame 0', 'from frame 5']
    assert json.loads((tmp_path / 'out' / 'predictions.json').read_text())['predictions'] == records
    strip = cv2.imread(str(tmp_path / 'out' / records[0]['drawn']))
    # Rows of input, truth, prediction and difference; the last input has the value 30.
    assert strip.shape == (4 * 66, 96 + 3 * 66, 3)
    assert [strip[row * 66 + 9, 100, 0] for row in range(4)] == [0, 60, 225, 165]
    assert (tmp_path / 'out' / 'predictions.png').is_file() and (tmp_path / 'out' / records[1]['animation']).is_file()


def test_tiles_give_the_result_of_the_whole_image(tmp_path):
    image = scene(150, 330, (140, 40, 170, 70), (10, 100, 40, 149), (300, 5, 329, 30))
    predictor = Predictor(write_segmenter(tmp_path / 'segmenter.onnx'), threads=1)
    (tiled,) = predictor.predict([image], tile=64)
    np.testing.assert_array_equal(tiled.class_map, image[..., 0] > 127)
    predictor = Predictor(write_detector(tmp_path / 'detector.onnx', True))
    (tiled, whole) = predictor.predict([image, image[:64, :64]], tile=128)
    boxes = sorted(instance['bbox'] for instance in tiled.record['instances'])
    assert boxes == [[10, 100, 40, 149], [140, 40, 170, 70], [300, 5, 329, 30]]
    assert whole.record == {'instances': []}
    for box, mask in zip(tiled.result['boxes'], tiled.masks, strict=True):
        ys, xs = np.nonzero(mask)
        np.testing.assert_allclose([xs.min(), ys.min(), ys.max()], box[[0, 1, 3]] - [0, 0, 1], atol=1)
    tiling = Predictor(predictor.path, tile=128, tile_overlap=0.5)
    assert len(tiling(image)['instances']) == 3 and len(predictor(image)['instances']) == 1
    with pytest.raises(UserError, match='tile is 8: use at least 32'):
        predictor.predict([image], tile=8)


def test_a_small_object_in_front_of_a_large_one_in_another_tile_is_kept():
    tiles = make_tiles(np.zeros((100, 160)), 100)
    assert [tile.left for tile in tiles] == [0, 60]
    large, small, part = [5, 5, 90, 95], [70, 40, 80, 50], [60, 5, 90, 95]
    first = {'boxes': np.float32([large]), 'scores': np.float32([0.9]), 'labels': np.array([0])}
    second = {'boxes': np.float32([small, part]) - [60, 0, 60, 0], 'scores': np.float32([0.7, 0.8]),
              'labels': np.array([0, 0])}  # fmt: skip
    assert merge(tiles, [first, second])['boxes'].tolist() == [large, small]


def test_a_pose_model_gets_the_boxes_of_a_detector(tmp_path):
    write_detector(tmp_path / 'detector.onnx')
    write_pose(tmp_path / 'pose.onnx')
    top_down = TopDown(tmp_path / 'detector.onnx', tmp_path / 'pose.onnx', 'thing', threads=1)
    image = scene(60, 80, (20, 10, 44, 42), value=150)
    image[30, 30, 0] = 255
    (instance,) = top_down(image)['instances']
    assert instance['bbox'] == [20, 10, 44, 42] and instance['keypoints'] == [[30, 30, 1]]
    assert TopDown(tmp_path / 'detector.onnx', tmp_path / 'pose.onnx', 'nothing')([image]) == [{'instances': []}]
    cv2.imwrite(str(tmp_path / 'image.png'), image[..., ::-1])
    (record,) = top_down.infer(tmp_path / 'image.png', tmp_path / 'out')
    assert record['instances'] == [instance] and (tmp_path / 'out' / record['drawn']).is_file()
    # The detector finds one box of all red pixels of an image, and so one per tile.
    tiled = TopDown(Predictor(tmp_path / 'detector.onnx', tile=64), tmp_path / 'pose.onnx', 'thing')
    pair = scene(60, 160, (10, 10, 30, 42), (130, 10, 150, 42))
    assert (len(top_down(pair)['instances']), len(tiled(pair)['instances'])) == (1, 2)
    assert tiled(pair) == TopDown(tmp_path / 'detector.onnx', tmp_path / 'pose.onnx', 'thing', tile=64)(pair)
    for wrong in (None, 'image.png'):
        with pytest.raises(UserError, match='list of images, but got one object'):
            top_down.predict(wrong)
    with pytest.raises(UserError, match="no class 'person': choose from nothing, thing, or no class for all"):
        TopDown(tmp_path / 'detector.onnx', tmp_path / 'pose.onnx')
    with pytest.raises(UserError, match='the pose model is one for detection'):
        TopDown(tmp_path / 'detector.onnx', tmp_path / 'detector.onnx', None)


def test_detector_and_pose_model_share_an_image_that_is_decoded_once(tmp_path, monkeypatch):
    write_detector(tmp_path / 'detector.onnx')
    write_pose(tmp_path / 'pose.onnx')
    image = scene(60, 80, (20, 10, 44, 42), value=150)
    image[30, 30, 0] = 255
    cv2.imwrite(str(tmp_path / 'image.png'), image[..., ::-1])
    decoded = []
    decode = image_files.decode
    monkeypatch.setattr(image_files, 'decode', lambda *args: decoded.append(args) or decode(*args))
    top_down = TopDown(tmp_path / 'detector.onnx', tmp_path / 'pose.onnx', 'thing', threads=1)
    record = top_down(tmp_path / 'image.png')
    assert record['image'] == str(tmp_path / 'image.png') and record['instances'] == top_down(image)['instances']
    assert len(decoded) == 1
    top_down.predict_one(tmp_path / 'image.png')
    assert len(decoded) == 2
    found = top_down.detector.predict_one(image[..., ::-1])
    monkeypatch.setattr(top_down.detector, 'predict_read', lambda read: found)
    top_down.detector.is_gray = True  # then the model would take other pixels
    assert top_down(tmp_path / 'image.png')['instances'] == record['instances'] and len(decoded) == 4
    top_down.predict_one(tmp_path / 'image.png')
    assert len(decoded) == 6


def test_images_are_turned_as_their_exif_orientation_says_and_broken_ones_are_named(tmp_path, monkeypatch):
    predictor = Predictor(write_detector(tmp_path / 'detector.onnx'))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(scene(40, 60, (0, 10, 20, 15)))
    stored.save(tmp_path / 'turned.png', exif=exif)
    prediction, plain = predictor.predict([tmp_path / 'turned.png', np.asarray(stored)])
    assert prediction.record['instances'][0]['bbox'] == [25, 0, 30, 20] and prediction.image.shape == (60, 40, 3)
    assert plain.record['instances'][0]['bbox'] == [0, 10, 20, 15]
    described = {**predictor.metadata['input'], 'ignore_orientation': True}
    as_stored = Predictor(write_detector(tmp_path / 'stored.onnx', input=described))(tmp_path / 'turned.png')
    assert as_stored['instances'][0]['bbox'] == [0, 10, 20, 15]
    (tmp_path / 'broken.png').write_bytes(b'x')
    for image, message in (
        (tmp_path / 'broken.png', r'image .*broken\.png cannot be read'), (b'', 'image cannot be read'),
        (np.zeros((5, 5), np.uint8), r'array of uint8 \(5, 5\): use RGB images'),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            predictor(image)
    monkeypatch.setenv('MOGACORE_MAX_PIXELS', '2399')
    with pytest.raises(UserError, match=r'turned\.png of 60 x 40 px has more than 2,399 pixels'):
        predictor(tmp_path / 'turned.png')


def test_a_folder_is_predicted_as_mogacore_infer_does(tmp_path, capsys):
    predictor = Predictor(write_detector(tmp_path / 'detector.onnx', preprocess=[FIT]))
    source = tmp_path / 'source'
    (source / 'sub').mkdir(parents=True)
    for name in ('a.png', 'sub/b.png'):
        cv2.imwrite(str(source / name), scene(100, 200, (40, 20, 80, 60))[..., ::-1])
    cv2.imwrite(str(source / 'wide.png'), scene(1, 3000))
    (source / 'broken.jpg').touch()
    records = predictor.infer(source, source / 'out')
    report = json.loads((source / 'out' / 'predictions.json').read_text())
    assert report['predictions'] == records and report['model'] == str(predictor.path)
    assert [record['drawn'] for record in records] == ['drawn/a.png', 'drawn/sub/b.png']
    assert report['unreadable'] == [str(source / 'broken.jpg'), str(source / 'wide.png')]
    drawn = cv2.imread(str(source / 'out' / 'drawn' / 'a.png'))[..., ::-1]
    (prediction,) = predictor.predict([source / 'a.png'])
    np.testing.assert_array_equal(drawn, prediction.draw())
    assert 'warning: image' in capsys.readouterr().out


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('image_size', [(64, 64), (64, 200), (150, 50), (20, 30)])
def test_files_of_one_size_get_letter_boxed_images(backend, image_size, tmp_path):
    height, width = image_size
    box = [width // 4, height // 4, width // 2, height // 2]
    image = scene(height, width, box)
    detector = Predictor(write_detector(tmp_path / 'detector.onnx', True, size='64, 96'), backend)
    (prediction,) = detector.predict([image])
    np.testing.assert_allclose(prediction.result['boxes'], [box], atol=max(height / 64, width / 96))
    assert prediction.masks.shape == (1, height, width)
    segmenter = Predictor(write_segmenter(tmp_path / 'segmenter.onnx', size='64, 96'), backend)
    (prediction,) = segmenter.predict([image])
    assert prediction.class_map.shape == (height, width)
    wrong = prediction.class_map != (image[..., 0] > 127)
    near = cv2.dilate(cv2.Canny(image, 1, 2), np.ones((9, 9))) > 0
    assert not wrong[~near].any()
    with pytest.raises(UserError, match=f'of {width} x {height} px does not fit this model, which takes 9 x 8'):
        Predictor(write_classifier(tmp_path / 'classifier.onnx', size='8, 9'), backend)(image)
