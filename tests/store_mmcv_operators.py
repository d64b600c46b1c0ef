"""Store what compiled mmcv's operators return, values and gradients, for tests/test_operators.py.

    python tests/store_mmcv_operators.py        # in an environment whose mmcv is compiled

Every case runs through mmcv's public functions on a CPU. Inputs come from NumPy's frozen generator; most are small
multiples of 1/16, exact in bfloat16, so that the same numbers serve every type.
"""

from pathlib import Path

import numpy as np
import torch

STORED = Path(__file__).parent / 'data' / 'mmcv_operators.npz'


def grid(seed, *shape, step=16, limit=24):
    """Random multiples of 1 / step, from -limit / step to limit / step, as float32."""
    numbers = np.random.RandomState(seed).randint(-limit, limit + 1, shape)
    return torch.from_numpy(np.asarray(numbers / step, np.float32))


def random_boxes(seed, count, size=100.0, integer=False):
    random = np.random.RandomState(seed)
    corner, side = random.rand(count, 2) * size, random.rand(count, 2) * size / 3 + 1
    boxes = np.concatenate([corner, corner + side], 1)
    scores = random.permutation(256)[:count] / 256 if integer else random.rand(count)
    boxes = torch.from_numpy((boxes.round() if integer else boxes).astype(np.float32))
    return boxes, torch.from_numpy(scores.astype(np.float32))


def regions(seed, count, images, size):
    """(index, x1, y1, x2, y2) in multiples of 1/2, some beyond the border, one a single unit wide."""
    random = np.random.RandomState(seed)
    corner = random.randint(-4, 2 * size - 6, (count, 2)) / 2
    side = random.randint(2, 2 * size, (count, 2)) / 2
    rois = np.concatenate([random.randint(0, images, (count, 1)), corner, corner + side], 1)
    rois[:1, 3:] = rois[:1, 1:3] + 1
    return torch.from_numpy(rois.astype(np.float32))


def gradients(function, inputs, seed=99):
    """Output of a function of tensors and the gradient of each tensor, for a fixed gradient of the output."""
    inputs = [tensor.requires_grad_() for tensor in inputs]
    output = function(*inputs)
    grads = torch.autograd.grad(output, inputs, grid(seed, *output.shape, step=4, limit=8).to(output.dtype))
    return output, *grads


def nms_cases():
    import mmcv.ops as ops

    for count, integer in ((0, False), (1, False), (7, False), (300, False), (150, True)):
        for offset in (0, 1):
            for threshold in (0.3, 0.5, 0.7):
                boxes, scores = random_boxes(count, count, integer=integer)
                name = f'nms/{count}{"-whole" * integer}-offset{offset}-{threshold}'
                yield name, integer, lambda t, b=boxes, s=scores, i=threshold, o=offset: ops.nms(t(b), t(s), i, o)
    boxes, scores = random_boxes(5, 200)
    classes = torch.from_numpy(np.random.RandomState(5).randint(0, 4, 200))
    for name, options in {
        'class': {},
        'agnostic': dict(class_agnostic=True),
        'split': dict(split_thr=10, max_num=50),
        'soft': dict(type='soft_nms', min_score=0.05),
        'some': dict(score_threshold=0.5, max_num=9),
    }.items():
        config = dict(dict(type='nms', iou_threshold=0.4), **options)
        yield f'batched_nms/{name}', False, lambda t, c=config: ops.batched_nms(t(boxes), t(scores), classes, c)
    for count in (0, 1, 40, 120):
        for method in ('naive', 'linear', 'gaussian'):
            for offset in (0, 1):
                boxes, scores = random_boxes(count + 1, count, integer=count == 40)
                if count == 40:
                    scores = (scores * 8).ceil() / 8  # ties

                def soft(t, b=boxes, s=scores, m=method, o=offset):
                    return ops.soft_nms(t(b), t(s), 0.3, 0.5, 0.05, m, o)

                yield f'soft_nms/{count}-{method}-offset{offset}', False, soft
    for count in (0, 1, 80):
        boxes, scores = random_boxes(count, count)
        dets = torch.cat([boxes, scores[:, None]], 1)

        def match(t, d=dets):
            groups = ops.nms_match(t(d), 0.3)
            return (torch.cat([g.new_tensor([len(g), *g.tolist()]) for g in groups]) if groups else torch.zeros(0),)

        yield f'nms_match/{count}', False, match
    for aligned in (True, False):
        for mode in ('iou', 'iof'):
            for offset in (0, 1):
                (one, _), (two, _) = random_boxes(1, 6), random_boxes(2, 6 if aligned else 9)
                yield (
                    f'bbox_overlaps/{mode}-aligned{aligned}-offset{offset}',
                    False,
                    lambda t, a=one, b=two, m=mode, g=aligned, o=offset: (ops.bbox_overlaps(t(a), t(b), m, g, o),),
                )


def pooling_cases():
    import mmcv.ops as ops

    for count, shape, size, scale in ((0, (2, 3, 8, 9), (7, 7), 1.0), (6, (2, 3, 12, 16), (3, 4), 0.5),
                                      (4, (1, 2, 30, 20), (7, 7), 0.25), (3, (3, 4, 5, 7), (1, 2), 1.0)):  # fmt: skip
        x, rois = grid(count, *shape), regions(count, count, shape[0], int(shape[3] / scale))
        for mode in ('avg', 'max'):
            for ratio in (0, 2):
                for aligned in (True, False):

                    def pool(t, x=x, rois=rois, size=size, scale=scale, ratio=ratio, mode=mode, aligned=aligned):
                        return gradients(lambda x: ops.roi_align(x, t(rois), size, scale, ratio, mode, aligned), [t(x)])

                    yield f'roi_align/{count}-{mode}-ratio{ratio}-aligned{aligned}', True, pool


def layer_cases():
    import mmcv.ops as ops

    for name, (batch, size, kernel, channels, out, stride, pad, dilation, groups, offset_groups) in {
        'plain': (2, (7, 9), 3, 4, 6, 1, 1, 1, 1, 1),
        'one': (1, (5, 5), 1, 2, 3, 1, 0, 1, 1, 1),
        'groups': (3, (8, 6), 3, 4, 4, 2, 2, 2, 2, 2),
    }.items():
        rows, columns = ((s + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1 for s in size)
        x, weight = grid(1, batch, channels, *size), grid(2, out, channels // groups, kernel, kernel)
        # Odd multiples of 1/16, since the gradient is discontinuous at integer pixels.
        points = offset_groups * kernel * kernel
        offset = grid(3, batch, 2 * points, rows, columns, step=8, limit=16) + 1 / 16
        mask, bias = grid(4, batch, points, rows, columns).abs() / 2, grid(5, out)
        geometry = stride, pad, dilation, groups, offset_groups

        def first(t, inputs=(x, offset, weight), geometry=geometry):
            return gradients(lambda *i: ops.deform_conv2d(*i, *geometry), [t(i) for i in inputs])

        def second(t, inputs=(x, offset, mask, weight, bias), geometry=geometry):
            return gradients(lambda *i: ops.modulated_deform_conv2d(*i, *geometry), [t(i) for i in inputs])

        def unbiased(t, inputs=(x, offset, mask, weight), geometry=geometry):
            return gradients(lambda *i: ops.modulated_deform_conv2d(*i, None, *geometry), [t(i) for i in inputs])

        yield f'deform_conv2d/{name}', True, first
        yield f'modulated_deform_conv2d/{name}', True, second
        yield f'modulated_deform_conv2d/{name}-unbiased', True, unbiased
    for kind in ('collect', 'distribute'):
        for height, width, mask_size in ((4, 5, (7, 9)), (6, 5, (3, 5))):
            x = grid(7, 2, mask_size[0] * mask_size[1], height, width)

            def psa(t, x=x, kind=kind, mask_size=mask_size):
                return gradients(ops.PSAMask(kind, mask_size), [t(x)])

            yield f'psa_mask/{kind}-{height}x{width}', True, psa


def cases():
    """(name, whether the inputs are exact in half precision, function of a cast that returns tensors) of each case."""
    yield from nms_cases()
    yield from pooling_cases()
    yield from layer_cases()


def main():
    from mmcv.ops import get_compiler_version

    if 'torchvision' in get_compiler_version():
        raise SystemExit('mmcv is not compiled here: run this in an environment with a compiled mmcv')
    arrays = {}
    for name, _, run in cases():
        for i, tensor in enumerate(run(torch.Tensor.clone)):
            arrays[f'{name}/{i}'] = tensor.detach().numpy()
    np.savez_compressed(STORED, **arrays)
    print(f'{len(arrays)} arrays, {STORED.stat().st_size / 1e3:.0f} kB in {STORED}')


if __name__ == '__main__':
    main()
