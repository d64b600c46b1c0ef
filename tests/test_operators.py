import ast
import functools
import importlib.metadata
import subprocess
import sys
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from store_mmcv_operators import STORED, cases, gradients, grid, random_boxes, regions

from mogacore.errors import UserError
from mogacore.operators import OPERATORS, in_use, install, missing_operator, register
from mogacore.operators.__main__ import main

FOLDER = ROOT / 'mogacore' / 'operators'


@pytest.fixture
def ops(monkeypatch):
    """``mmcv.ops`` with our operators, even if compiled ones are installed."""
    pytest.importorskip('mmcv')
    register()
    module = import_module('mmcv.ops')
    for name, submodule in list(sys.modules.items()):
        if name.startswith('mmcv.ops.') and hasattr(submodule, 'ext_module'):
            monkeypatch.setattr(submodule, 'ext_module', SimpleNamespace(**OPERATORS))
    return module


def float64(*tensors):
    return [tensor.double().requires_grad_() for tensor in tensors]


def check_gradients(function, *tensors):
    return torch.autograd.gradcheck(function, float64(*tensors), nondet_tol=1e-12)


# Values and gradients of compiled mmcv.


@functools.cache
def stored():
    with np.load(STORED) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def compare(operator, cast, only_exact, rtol, atol):
    count = 0
    for name, exact, run in cases():
        if name.split('/')[0] != operator or (only_exact and not exact):
            continue
        for i, result in enumerate(run(cast)):
            expected = stored()[f'{name}/{i}']
            result = result.detach().to(expected.dtype)
            torch.testing.assert_close(
                result, expected, rtol=rtol, atol=atol, msg=lambda m, n=name, i=i: f'{n} {i}: {m}'
            )
            count += 1
    return count


@pytest.mark.parametrize('operator', sorted({name.split('/')[0] for name in np.load(STORED).files}))
def test_values_and_gradients_equal_those_of_compiled_mmcv(ops, operator):
    count = compare(operator, torch.Tensor.clone, False, rtol=1e-5, atol=1e-5)
    assert count == sum(name.split('/')[0] == operator for name in stored())


@pytest.mark.parametrize('dtype, tolerance', [(torch.float16, 2**-10), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize('operator', ['nms', 'roi_align', 'deform_conv2d', 'modulated_deform_conv2d', 'psa_mask'])
def test_half_precision_differs_by_rounding_only(ops, operator, dtype, tolerance):
    """The inputs are exact in both types; the relative tolerance is two roundings."""
    assert compare(operator, lambda tensor: tensor.to(dtype), True, rtol=tolerance, atol=1e-5)


# Formulas and brute force, including operators that compiled mmcv does not have on the CPU.


def overlap(a, b, offset):
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    shared = max(width, 0) * max(height, 0)
    areas = sum((box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b))
    return shared / (areas - shared)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('count', [0, 1, 60])
def test_nms_keeps_boxes_that_no_better_box_overlaps(ops, count, offset):
    boxes, scores = random_boxes(11, count)
    kept = []
    for i in np.argsort(-scores.numpy()):
        if all(overlap(boxes[i].tolist(), boxes[j].tolist(), offset) <= 0.4 for j in kept):
            kept.append(i)
    dets, inds = ops.nms(boxes, scores, 0.4, offset)
    assert inds.tolist() == kept
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[kept])


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms_follows_its_definition(ops, method):
    boxes, scores = random_boxes(12, 50)
    left, expected = dict(enumerate(scores.tolist())), []
    while left:
        best = max(left, key=left.get)
        expected.append((best, left.pop(best)))
        for i in left:
            iou = overlap(boxes[best].tolist(), boxes[i].tolist(), 0)
            decay = {'naive': 0, 'linear': 1 - iou, 'gaussian': np.exp(-(iou**2) / 0.5)}[method]
            left[i] *= decay if method == 'gaussian' or iou >= 0.3 else 1
        left = {i: score for i, score in left.items() if score >= 0.1}
    dets, inds = ops.soft_nms(boxes, scores, 0.3, 0.5, 0.1, method)
    assert inds.tolist() == [i for i, _ in expected]
    assert dets[:, 4].tolist() == pytest.approx([score for _, score in expected], rel=1e-5)
    assert torch.equal(dets[:, :4], boxes[inds])


@pytest.mark.parametrize('top_k', [3, 100])
def test_line_nms_keeps_lanes_that_are_far_apart(top_k):
    random = np.random.RandomState(0)
    count, strips, threshold = 30, 72, 5.0
    lanes = np.zeros((count, 5 + strips))
    lanes[:, 2], lanes[:, 4] = random.randint(0, 40, count) / 71, random.randint(0, 60, count)
    lanes[:, 5:] = random.randint(0, 4, (count, 1)) * 6 + random.rand(count, strips)
    scores = random.permutation(count) / count
    first = np.rint(lanes[:, 2] * 71).astype(int)
    last = np.minimum(first + lanes[:, 4].astype(int) - 1, strips - 1)

    def near(i, j):
        shared = range(max(first[i], first[j]), min(last[i], last[j]) + 1)
        return len(shared) > 0 and np.mean([abs(lanes[i, 5 + s] - lanes[j, 5 + s]) for s in shared]) < threshold

    kept = []
    for i in np.argsort(-scores):
        if len(kept) < top_k and not any(near(j, i) for j in kept):
            kept.append(i)
    keep, number, parents = OPERATORS['line_nms_forward'](torch.tensor(lanes), torch.tensor(scores), threshold, top_k)
    assert keep[:number].tolist() == kept
    assert keep.shape == parents.shape == (count,)
    assert [parents[i].item() for i in kept] == list(range(1, len(kept) + 1))


def test_roi_pool_takes_the_largest_pixel_of_each_bin(ops):
    x, rois, (height, width), scale = grid(1, 2, 3, 9, 11), regions(3, 7, 2, 20), (3, 2), 0.5
    rois[1] = torch.tensor([1, 30, 30, 40, 40])  # outside
    rois[2] = torch.tensor([0, 8, 8, 2, 2])  # negative size
    grad = grid(5, 7, 3, height, width)
    expected, expected_grad = torch.zeros(7, 3, height, width), torch.zeros_like(x)
    for n, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        w, h = (x2 + 1 - x1) * scale / width, (y2 + 1 - y1) * scale / height
        for i in range(height):
            for j in range(width):
                rows = [y for y in range(9) if np.floor(y1 * scale + i * h) <= y < np.ceil(y1 * scale + (i + 1) * h)]
                columns = [
                    c for c in range(11) if np.floor(x1 * scale + j * w) <= c < np.ceil(x1 * scale + (j + 1) * w)
                ]
                if min(w, h) <= 0 or not rows or not columns:
                    continue
                for c in range(3):
                    pixels = ((int(image), c, y, k) for y in rows for k in columns)
                    at = max(pixels, key=lambda pixel: x[pixel].item())
                    expected[n, c, i, j] = x[at]
                    expected_grad[at] += grad[n, c, i, j]
    x.requires_grad_()
    output = ops.roi_pool(x, rois, (height, width), scale)
    output.backward(grad)
    assert torch.equal(output, expected)
    torch.testing.assert_close(x.grad, expected_grad)
    half = ops.roi_pool(x.detach().half(), rois.half(), (height, width), scale)
    assert torch.equal(half.float(), expected)
    empty = ops.roi_pool(x, rois[:0], (height, width), scale)
    empty.sum().backward()
    assert empty.shape == (0, 3, height, width)


def sigmoid_focal(x, target, gamma, alpha, weight):
    p, one = x.sigmoid(), F.one_hot(target, x.size(1) + 1)[:, :-1]
    loss = -one * alpha * (1 - p) ** gamma * p.log() - (1 - one) * (1 - alpha) * p**gamma * (1 - p).log()
    return loss * F.pad(weight, (0, 1), value=1.0)[target][:, None]


def softmax_focal(x, target, gamma, alpha, weight):
    known = target.clamp(min=0)
    p = x.softmax(1).gather(1, known[:, None])[:, 0]
    return -alpha * (1 - p) ** gamma * p.log() * weight[known] * (target >= 0)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.float16, 2e-3)])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
@pytest.mark.parametrize('weight', [None, torch.tensor([1, 0.5, 2, 0, 1.5])], ids=['plain', 'weighted'])
@pytest.mark.parametrize(
    'kind, reduction', [('sigmoid', 'none'), ('sigmoid', 'mean'), ('softmax', 'mean'), ('softmax', 'sum')]
)
def test_focal_losses_and_gradients_follow_their_formulas(ops, kind, weight, reduction, gamma, dtype, tolerance):
    x, alpha = grid(3, 6, 5, step=4, limit=16), 0.25
    # 5 is background, -1 ignored.
    target = torch.tensor([0, 4, 2, 5, 5, 1] if kind == 'sigmoid' else [0, 4, 2, -1, 3, 1])

    def formula(x):
        weights = torch.ones(5, dtype=x.dtype) if weight is None else weight.to(x.dtype)
        loss = (sigmoid_focal if kind == 'sigmoid' else softmax_focal)(x, target, gamma, alpha, weights)
        return {'none': loss, 'mean': loss.sum() / 6, 'sum': loss.sum()}[reduction]

    def ours(x):
        loss = ops.sigmoid_focal_loss if kind == 'sigmoid' else ops.softmax_focal_loss
        return loss(x, target, gamma, alpha, None if weight is None else weight.to(x.dtype), reduction)

    for value, wanted in zip(gradients(ours, [x.to(dtype)]), gradients(formula, [x.double()]), strict=True):
        torch.testing.assert_close(value.double(), wanted, rtol=tolerance, atol=tolerance)


def test_focal_loss_is_exact_where_the_probability_rounds_to_one(ops):
    x = torch.tensor([[30.0, -30.0, 120.0]])
    loss = ops.sigmoid_focal_loss(x, torch.tensor([1]), 2.0, 0.25, None, 'none')
    assert loss[0].tolist() == pytest.approx([0.75 * 30, 0.25 * 30, 0.75 * 120])
    empty = ops.sigmoid_focal_loss(x[:0], torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum')
    assert empty == 0


def attention_inputs(shapes, queries=5):
    keys = sum(height * width for height, width in shapes)
    value = grid(1, 2, keys, 3, 4)
    # Some points are outside, none on a line of pixel centers, where the gradient is discontinuous.
    locations = (grid(2, 2, queries, 3, len(shapes), 2, 2, step=20, limit=22) + 1) / 2 + 0.013
    weights = grid(3, 2, queries, 3, len(shapes), 2).abs()
    return value, locations, weights


def attention(ops, shapes):
    sizes = torch.tensor(shapes)
    starts = torch.cat([sizes.new_zeros(1), sizes.prod(1).cumsum(0)[:-1]])

    def attend(value, locations, weights):
        function = ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction
        return function.apply(value, sizes, starts, locations, weights, 64)

    return attend


def test_deformable_attention_equals_the_python_version_of_mmcv(ops):
    shapes = [(4, 5), (2, 3)]
    inputs = attention_inputs(shapes)
    python = ops.multi_scale_deform_attn.multi_scale_deformable_attn_pytorch
    attend = attention(ops, shapes)
    expected = gradients(lambda *i: python(i[0], torch.tensor(shapes), *i[1:]), [t.clone() for t in inputs])
    for result, wanted in zip(gradients(attend, [t.clone() for t in inputs]), expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-5)
    half = attend(*[t.bfloat16() for t in inputs])
    exact = attend(*[t.bfloat16().float() for t in inputs])
    torch.testing.assert_close(half.float(), exact, rtol=2**-8, atol=1e-5)
    none = attention_inputs(shapes, queries=0)
    assert attend(*none).shape == (2, 0, 12)


def test_deformable_attention_is_a_sum_of_bilinear_samples_with_zeros_outside(ops):
    """A loop over points and pixels, against our operator (on a GPU) and mmcv's Python version (on a CPU)."""
    rng = np.random.default_rng(0)
    sizes = [(3, 5), (2, 2)]
    value = rng.standard_normal((1, 19, 2, 4))
    places = rng.uniform(-0.3, 1.3, (1, 3, 2, 2, 2, 2))  # queries, heads, levels, points, x and y
    weights = rng.uniform(0, 1, (1, 3, 2, 2, 2))
    expected = np.zeros((1, 3, 2, 4))
    for query, head, level, point in np.ndindex(3, 2, 2, 2):
        height, width = sizes[level]
        start = 0 if level == 0 else 15
        map_ = value[0, start : start + height * width, head].reshape(height, width, 4)
        x, y = places[0, query, head, level, point] * (width, height) - 0.5
        for row, column in np.ndindex(height, width):
            share = max(0, 1 - abs(row - y)) * max(0, 1 - abs(column - x))
            expected[0, query, head] += weights[0, query, head, level, point] * share * map_[row, column]
    tensors = [torch.from_numpy(array) for array in (value, places, weights)]
    shapes, starts = torch.tensor(sizes), torch.tensor([0, 15])
    python = ops.multi_scale_deform_attn.multi_scale_deformable_attn_pytorch(tensors[0], shapes, tensors[1], tensors[2])
    ours = OPERATORS['ms_deform_attn_forward'](tensors[0], shapes, starts, tensors[1], tensors[2], im2col_step=1)
    for result in (python, ours):
        np.testing.assert_allclose(result.numpy().reshape(expected.shape), expected, atol=1e-12)


def test_deform_roi_pool_averages_moved_bins(ops):
    x, rois, gamma = grid(1, 2, 3, 8, 9), regions(2, 4, 2, 16), 0.3
    offset = grid(3, 4, 2, 2, 3) / 2
    for ratio, moved in ((0, offset), (2, offset), (2, offset[:0])):
        expected = torch.zeros(4, 3, 2, 3)
        for n, (image, x1, y1, x2, y2) in enumerate((rois * 0.5).tolist()):
            w, h = x2 - x1, y2 - y1
            down, across = ratio or int(np.ceil(h / 2)), ratio or int(np.ceil(w / 3))
            for i in range(2):
                for j in range(3):
                    dx, dy = (gamma * moved[n, :, i, j] * torch.tensor([w, h])).tolist() if len(moved) else (0, 0)
                    for a in range(down):
                        for b in range(across):
                            y = y1 - 0.5 + dy + h / 2 * (i + (a + 0.5) / down)
                            k = x1 - 0.5 + dx + w / 3 * (j + (b + 0.5) / across)
                            sample = bilinear(x[int(2 * image)], y, k)
                            expected[n, :, i, j] += sample / (down * across)
        output = ops.deform_roi_pool(x, rois, moved, (2, 3), 0.5, ratio, gamma)
        torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    half = ops.deform_roi_pool(x.half(), rois.half(), offset.half(), (2, 3), 0.5, 2, gamma)
    wanted = ops.deform_roi_pool(x, rois, offset, (2, 3), 0.5, 2, gamma)
    torch.testing.assert_close(half.float(), wanted, rtol=2**-10, atol=1e-5)
    assert ops.deform_roi_pool(x, rois[:0], offset[:0], (2, 3), 0.5, 0, gamma).shape == (0, 3, 2, 3)


def bilinear(image, y, x):
    """Channels of ``image`` at a point; zero more than one pixel outside, the value of the border within one pixel."""
    height, width = image.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(len(image))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    y, x = y - top, x - left
    rows = image[:, top] * (1 - y) + image[:, top + 1] * y
    return rows[:, left] * (1 - x) + rows[:, left + 1] * x


def carafe_masks(groups):
    return grid(2, 2, 9 * groups, 8, 10).abs()


@pytest.mark.parametrize('groups', [1, 2])
def test_carafe_sums_neighbors_by_the_mask_of_each_pixel(ops, groups):
    x, masks = grid(1, 2, 4, 4, 5), carafe_masks(groups)
    padded, expected = F.pad(x, (1, 1, 1, 1)), torch.zeros(2, 4, 8, 10)
    for c in range(4):
        for y in range(8):
            for k in range(10):
                group = c // (4 // groups)
                mask = masks[:, 9 * group : 9 * group + 9, y, k].reshape(2, 3, 3)
                expected[:, c, y, k] = (padded[:, c, y // 2 : y // 2 + 3, k // 2 : k // 2 + 3] * mask).sum((1, 2))
    for function in (ops.carafe, ops.carafe_naive):
        torch.testing.assert_close(function(x, masks, 3, groups, 2), expected)
    half = ops.carafe(x.half(), masks.half(), 3, groups, 2)
    torch.testing.assert_close(half.float(), expected, rtol=2**-10, atol=1e-5)


def test_masked_convolution_is_a_convolution_at_the_masked_pixels(ops):
    x, weight, bias = grid(1, 1, 3, 6, 7), grid(2, 4, 3, 3, 3), grid(3, 4)
    for chance in (0.4, 0.0):
        mask = torch.from_numpy(np.random.RandomState(4).rand(1, 6, 7) < chance).float()
        output = ops.masked_conv2d(x, mask, weight, bias, 1)
        torch.testing.assert_close(output, F.conv2d(x, weight, bias, padding=1) * mask, rtol=1e-5, atol=1e-5)


def test_synchronized_batch_norm_of_one_process_is_batch_norm(ops):
    function = ops.sync_bn.SyncBatchNormFunction
    weight, bias = grid(2, 3).abs() + 0.5, grid(3, 3)
    for mode in ('default', 'N'):
        statistics = [(torch.zeros(3), torch.ones(3)) for _ in range(2)]

        def ours(x, weight, bias, running=statistics[0], mode=mode):
            return function.apply(x, *running, weight, bias, 0.1, 1e-5, None, 1, mode)

        def torchs(x, weight, bias, running=statistics[1]):
            return F.batch_norm(x, *running, weight, bias, True, 0.1, 1e-5)

        inputs = grid(1, 4, 3, 5, 6), weight, bias
        result, expected = (gradients(f, [t.clone() for t in inputs]) for f in (ours, torchs))
        for value, wanted in zip((*result, *statistics[0]), (*expected, *statistics[1]), strict=True):
            torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    'name', ['roi_align avg', 'roi_align max', 'deform_conv2d', 'modulated_deform_conv2d', 'weight alone', 'attention',
             'deform_roi_pool', 'carafe', 'psa_mask']
)  # fmt: skip
def test_gradients_are_those_of_the_function(ops, name):
    """Compared with finite differences in float64, at points where the function is smooth."""
    rois, generator = regions(3, 2, 1, 6).double(), torch.Generator().manual_seed(0)
    image = torch.randn(1, 2, 6, 6, generator=generator)
    offset = grid(5, 1, 18, 6, 6, step=8, limit=8) + 1 / 16
    mask, weight, bias = grid(6, 1, 9, 6, 6).abs(), grid(7, 3, 2, 3, 3), grid(8, 3)
    if name.startswith('roi_align'):
        assert check_gradients(lambda x: ops.roi_align(x, rois, (2, 2), 0.5, 0, name[-3:], True), image)
    elif name == 'deform_conv2d':
        assert check_gradients(lambda *i: ops.deform_conv2d(*i, 1, 1), image, offset, weight)
    elif name == 'weight alone':
        assert check_gradients(lambda w: ops.deform_conv2d(image.double(), offset.double(), w, 1, 1), weight)
    elif name == 'modulated_deform_conv2d':
        assert check_gradients(lambda *i: ops.modulated_deform_conv2d(*i, 1, 1), image, offset, mask, weight, bias)
    elif name == 'attention':
        shapes = [(2, 3), (1, 2)]
        assert check_gradients(attention(ops, shapes), *attention_inputs(shapes, queries=2))
    elif name == 'deform_roi_pool':
        moves = torch.randn(2, 2, 2, 2, generator=generator)
        assert check_gradients(lambda x, o: ops.deform_roi_pool(x, rois, o, (2, 2), 0.5, 0, 0.1), image[:, :1], moves)
    elif name == 'carafe':
        assert check_gradients(lambda *i: ops.carafe(*i, 3, 2, 2), grid(1, 1, 4, 2, 3), grid(2, 1, 18, 4, 6))
    else:
        assert check_gradients(ops.PSAMask('distribute', (3, 3)), grid(1, 1, 9, 3, 4))


# Devices.


def runs(ops, device, loops):
    """Output of each operator, to be followed by a backward pass; with ``loops``, also those that read values."""

    def numbers(*shape):
        return torch.zeros(shape, device=device, requires_grad=True)

    image, target = numbers(2, 4, 6, 6), torch.zeros(2, dtype=torch.long, device=device)
    with torch.no_grad():
        rois = numbers(3, 5) + torch.arange(5, device=device).clamp(max=3)
        rois[:, 0] = 0
    boxes, scores = rois[:, 1:].detach(), rois[:, 4].detach()
    yield ops.roi_align(image, rois, (3, 3), 1.0, 0, 'avg', True)
    yield ops.roi_align(image, rois, (3, 3), 1.0, 2, 'max', True)
    yield ops.roi_pool(image, rois, (3, 3), 1.0)
    yield ops.sigmoid_focal_loss(numbers(2, 5), target, 2.0, 0.25, numbers(5).detach(), 'mean')
    yield ops.softmax_focal_loss(numbers(2, 5), target, 2.0, 0.25, numbers(5).detach(), 'mean')
    yield ops.deform_conv2d(image, numbers(2, 18, 6, 6), numbers(3, 4, 3, 3), 1, 1)
    yield ops.modulated_deform_conv2d(
        image, numbers(2, 18, 6, 6), numbers(2, 9, 6, 6), numbers(3, 4, 3, 3), numbers(3), 1, 1
    )
    yield ops.carafe(image, numbers(2, 9, 12, 12), 3, 1, 2)
    yield ops.PSAMask('collect', (3, 3))(numbers(2, 9, 4, 4))
    yield ops.bbox_overlaps(boxes, boxes)
    if loops:
        sizes = torch.tensor([[2, 3]], device=device)
        attend = ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
        yield attend(numbers(2, 6, 3, 4), sizes, target[:1], numbers(2, 5, 3, 1, 2, 2), numbers(2, 5, 3, 1, 2), 64)
        yield ops.roi_align(image, rois, (3, 3), 1.0, 0, 'max', True)
        yield ops.deform_roi_pool(image, rois, numbers(3, 2, 2, 2), (2, 2), 1.0, 0, 0.1)
        yield ops.masked_conv2d(numbers(1, 4, 6, 6), numbers(1, 6, 6) + 1, numbers(3, 4, 3, 3), numbers(3), 1)
        yield OPERATORS['nms'](boxes, scores, 0.5, 0)
        yield OPERATORS['nms'](boxes, scores, 0.5, 1)
        yield OPERATORS['softnms'](boxes, scores, numbers(3, 5).detach(), 0.5, 0.5, 0.001, 1, 0)
        yield OPERATORS['line_nms_forward'](boxes.new_zeros(3, 77), scores, 5.0, 4)[0]


@pytest.mark.parametrize('kernel', ['nms', 'roi_align', '_roi_align_backward', 'roi_pool', 'deform_conv2d',
                                    '_deform_conv2d_backward'])  # fmt: skip
@pytest.mark.parametrize('device', ['CPU', 'CUDA'])
def test_torchvision_dispatches_its_operators_by_device(kernel, device):
    if device == 'CUDA' and torch.version.cuda is None:
        pytest.skip('this torch is built without CUDA')
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f'torchvision::{kernel}', device)


def test_operators_run_on_the_device_of_their_tensors(ops):
    """Uses the meta device, on which mixing devices and reading values are errors."""
    for output in runs(ops, 'meta', loops=False):
        assert output.device.type == 'meta'
        if output.requires_grad:
            output.sum().backward()


def test_operators_create_no_tensor_on_the_default_device(ops):
    """With the meta device as the default, a tensor created without a device cannot be used with others."""
    with torch.device('meta'):
        for output in runs(ops, 'cpu', loops=True):
            assert output.device.type == 'cpu'
            if output.requires_grad:
                output.sum().backward()


def test_operators_move_no_tensor_between_devices():
    for path in FOLDER.glob('*.py'):
        calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        assert not {call.attr for call in calls if isinstance(call, ast.Attribute)} & {'cpu', 'cuda', 'numpy'}, (
            path.name
        )


# Registration and installation.


@pytest.fixture
def other_mmcv(tmp_path, monkeypatch):
    """A pure-Python mmcv that shadows the installed one, with the RECORD file of pip."""
    package, record = tmp_path / 'mmcv', tmp_path / 'mmcv-0.1.dist-info' / 'RECORD'
    for path, text in {
        package / '__init__.py': 'raise AssertionError("mmcv is imported")',
        record: 'mmcv/__init__.py,,\nmmcv-0.1.dist-info/RECORD,,\n',
        record.with_name('METADATA'): 'Metadata-Version: 2.1\nName: mmcv\nVersion: 0.1\n',
        record.with_name('top_level.txt'): 'mmcv\n',
    }.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ('mmcv', 'mmcv._ext'):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield package
    sys.modules.pop('mmcv._ext', None)


def test_registration_does_not_import_mmcv_and_happens_once(other_mmcv):
    register()
    extension = sys.modules['mmcv._ext']
    assert extension.nms is OPERATORS['nms']
    assert find_spec('mmcv._ext').loader is not None
    register()
    assert sys.modules['mmcv._ext'] is extension
    assert 'mmcv' not in sys.modules
    assert in_use() == 'torchvision'


def test_a_compiled_extension_is_preferred(other_mmcv):
    (other_mmcv / f'_ext{EXTENSION_SUFFIXES[0]}').touch()
    before = sorted(other_mmcv.iterdir())
    register()
    assert install() is None
    assert 'mmcv._ext' not in sys.modules
    assert sorted(other_mmcv.iterdir()) == before
    assert in_use() == 'compiled mmcv'


def test_an_extension_compiled_later_takes_precedence_over_the_written_file(other_mmcv):
    install()
    (other_mmcv / f'_ext{EXTENSION_SUFFIXES[0]}').touch()
    assert in_use() == 'compiled mmcv'


def test_installation_writes_the_operators_into_mmcv_and_pips_list(other_mmcv, capsys):
    main(['--install'])
    path = other_mmcv / '_ext.py'
    assert capsys.readouterr().out == f'wrote {path}\nmmcv operators: torchvision\n'
    first = path.read_text()
    assert install() == path
    assert path.read_text() == first
    owned = [str(file) for file in importlib.metadata.files('mmcv')]
    assert owned.count('mmcv/_ext.py') == 1
    register()
    assert 'mmcv._ext' not in sys.modules  # mmcv imports the written file
    (other_mmcv / '__init__.py').write_text('')
    extension = import_module('mmcv._ext')
    assert extension.roi_align_forward is OPERATORS['roi_align_forward']
    assert callable(extension.ball_query_forward)


def test_without_mmcv_nothing_happens(other_mmcv, monkeypatch, capsys):
    monkeypatch.setattr('mogacore.operators._extension.find_spec', lambda name: None)
    register()
    assert install() is None
    assert 'mmcv._ext' not in sys.modules
    main([])
    assert capsys.readouterr().out == 'mmcv operators: none, mmcv is not installed\n'


def test_a_missing_operator_is_reported_when_it_is_called(ops):
    with pytest.raises(
        UserError, match=r"'ball_query_forward'.*MOGACORE_COMPILE_MMCV=1 bash tools/setup_env.sh"
    ) as error:
        missing_operator('ball_query_forward')(torch.zeros(1), radius=1.0)
    assert '\n' not in str(error.value)
    with pytest.raises(AttributeError):
        missing_operator('__path__')


IMPORTS = """
import sys
from importlib import import_module
import mogacore.operators._extension as extension
package, _ = extension._find_mmcv()
extension._find_mmcv = lambda: (package, None)  # as without compiled operators
extension.register()
import mogacore.registry, mmcv.ops
assert 'torchvision' in mmcv.ops.get_compiler_version()
for library in sys.argv[1:]:
    import_module(f'{library}.models')
try:
    sys.modules['mmcv._ext'].knn_forward()
except extension.UserError as error:
    print(error)
"""


def test_the_models_of_each_library_import():
    libraries = [name for name in ('mmdet', 'mmseg', 'mmpose', 'mmpretrain') if find_spec(name)]
    if not libraries or find_spec('mmcv') is None:
        pytest.skip('mmcv or every task library is absent')
    run = subprocess.run([sys.executable, '-c', IMPORTS, *libraries], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "'knn_forward'" in run.stdout.splitlines()[-1]
