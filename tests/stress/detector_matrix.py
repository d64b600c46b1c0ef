"""Exported detectors of full size against mmdet's ``predict``: ``python tests/stress/detector_matrix.py [FAMILY ...]``.

Prints one row per family and runtime, for 20 images of three sizes (``--images`` for another number). Weights are
random; the score threshold is lowered to what about a dozen detections of an image exceed. Exits with 1 if a row is
beyond ``LIMITS``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from torch.nn import functional as F

from mogacore.deploy.export import export
from mogacore.deploy.formats import read
from mogacore.deploy.graphs import create_graph
from mogacore.deploy.graphs.boxes import match
from mogacore.deploy.source import Source
from mogacore.engine.config import build_model, load_config, replace_sync_bn

XTINY = {
    'model.backbone.arch': 'xtiny',
    'model.neck.in_channels': [32, 64, 96, 192],
    'model.backbone.init_cfg': None,
}
FAMILIES = {
    'retinanet': 'detection/retinanet_moganet-xtiny_fpn_1x_coco',
    'mask-rcnn': 'detection/mask-rcnn_moganet-xtiny_fpn_1x_coco',
    'cascade-mask-rcnn': 'detection/cascade-mask-rcnn_moganet-small_fpn_ms-3x_coco',
    'cascade-rcnn': 'detection/cascade-rcnn_moganet-small_fpn_ms-3x_coco',
    'cascade-mask-rcnn 4conv1fc': 'detection/cascade-mask-rcnn_moganet-base_fpn_4conv1fc-giou_ms-3x_coco',
}
SIZES = ((256, 384), (384, 256), (320, 330))
# Largest differences: of boxes in pixels, of scores, and of the probability of a turned mask pixel from the threshold.
LIMITS = {'pixels': 0.05, 'score': 1e-3, 'margin': 1e-3}
MIN_IOU = 0.99  # unless all turned mask pixels are within the margin
MAX_FLIPPED = 0.01  # fraction of detections that are found by one of the two only


def scene(height: int, width: int, seed: int) -> torch.Tensor:
    """RGB image (1, 3, H, W) uint8 of soft colors with rectangles."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    image = 200 * F.interpolate(coarse, (height, width), mode='bicubic').clamp(0, 1)
    for _ in range(8):
        y, x = (int(torch.randint(0, side, (1,), generator=generator)) for side in (height, width))
        color = 255 * torch.rand(3, 1, 1, generator=generator)
        image[0, :, y : y + height // 5, x : x + width // 6] = color
    return image.round().to(torch.uint8)


def build(name: str):
    """Model and config of a family with random weights whose scores differ between images and places."""
    torch.manual_seed(0)
    cfg = load_config(name, XTINY)
    replace_sync_bn(cfg.model)
    model = build_model(cfg)
    model.init_weights()
    for part, layer in model.named_modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)) and not part.startswith('backbone'):
            gain = 0.3 if part.endswith('_reg') else 1.2
            torch.nn.init.normal_(layer.weight, std=gain / layer.weight[0].numel() ** 0.5)
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = 1.0  # the statistics become those of the next batch
    with torch.no_grad():
        images = torch.cat([scene(256, 256, 100 + seed) for seed in range(4)])
        model.train().extract_feat((images.float() - 120) / 58)
    return model.eval(), cfg


def predict(model, image: torch.Tensor):
    """What mmdet finds in an RGB image."""
    from mmdet.structures import DetDataSample

    size = tuple(image.shape[2:])
    sample = DetDataSample(metainfo={'img_shape': size, 'ori_shape': size, 'scale_factor': (1.0, 1.0)})
    data = model.data_preprocessor({'inputs': [image[0].flip(0)], 'data_samples': [sample]}, False)
    with torch.no_grad():
        return model.predict(data['inputs'], data['data_samples'], rescale=False)[0].pred_instances


def compare(outputs, expected, size) -> dict:
    """Number of detections, pairs, and the largest differences of the pairs that did not flip."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    boxes, scores, labels = outputs[:3]
    ours, theirs = match(boxes, labels, expected.bboxes, expected.labels).T
    moved = (boxes[ours] - expected.bboxes[theirs]).abs().amax(1)
    same = moved < 0.5
    row = {
        'expected': len(expected),
        'found': len(boxes),
        'flipped': max(len(expected), len(boxes)) - int(same.sum()),
        'pixels': moved[same].max().item() if same.any() else 0.0,
        'score': (scores[ours] - expected.scores[theirs])[same].abs().max().item() if same.any() else 0.0,
        'iou': 1.0,
        'differing': 0,
        'margin': 0.0,
    }
    if len(outputs) == 4 and len(boxes):
        pasted = _do_paste_mask(outputs[3][:, None], boxes, *size, skip_empty=False)[0][ours][same].flatten(1)
        found, wanted = pasted >= 0.5, expected.masks[theirs][same].flatten(1)
        union = (found | wanted).sum(1)
        overlap = ((found & wanted).sum(1) / union.clamp(min=1))[union > 0]
        differs = found ^ wanted
        row['iou'] = overlap.min().item() if len(overlap) else 1.0
        row['differing'] = int(differs.sum())
        row['margin'] = (pasted[differs] - 0.5).abs().max().item() if differs.any() else 0.0
    return row


def merge(rows: list[dict]) -> dict:
    """One row for all images."""
    sums, worst = ('expected', 'found', 'flipped', 'differing'), ('pixels', 'score', 'margin')
    total = {key: sum(row[key] for row in rows) for key in sums} | {key: max(row[key] for row in rows) for key in worst}
    return total | {'iou': min(row['iou'] for row in rows), 'without': sum(row['expected'] == 0 for row in rows)}


def is_accepted(row: dict) -> bool:
    """Whether the differences of a merged row are those of rounding."""
    is_close = row['pixels'] <= LIMITS['pixels'] and row['score'] <= LIMITS['score']
    is_close &= row['iou'] >= MIN_IOU or row['margin'] <= LIMITS['margin']
    return is_close and row['flipped'] <= MAX_FLIPPED * row['expected']


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('families', nargs='*', metavar='FAMILY', help=', '.join(FAMILIES))
    parser.add_argument('--images', type=int, default=20)
    args = parser.parse_args(argv)
    MMLogger.get_current_instance().setLevel('ERROR')
    print('| family | runtime | detections | flipped | boxes, px | scores | mask IoU | mask pixels | export, s | |')
    print('|---|---|---|---|---|---|---|---|---|---|')
    status = 0
    for family in args.families or FAMILIES:
        model, cfg = build(FAMILIES[family])
        images = [scene(*SIZES[seed % len(SIZES)], seed) for seed in range(args.images)]
        settings = (model.roi_head if hasattr(model, 'roi_head') else model.bbox_head).test_cfg
        settings.score_thr = 0.0
        best = predict(model, images[0]).scores.sort(descending=True).values
        settings.score_thr = best[11:13].mean().item()  # between two scores, so that rounding does not decide
        expected = [predict(model, image) for image in images]
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / 'net.onnx', Path(folder) / 'net.xml']
            start = time.perf_counter()
            export(Source(model, cfg, shape=(3, 256, 320)), paths)
            seconds = time.perf_counter() - start
            for kind, path in zip(('onnx', 'openvino'), paths, strict=True):
                run = read(kind, path, create_graph(model, cfg))
                row = merge(
                    [
                        compare(run(image), instances, image.shape[2:])
                        for image, instances in zip(images, expected, strict=True)
                    ]
                )
                print(
                    f'| {family} | {kind} | {row["found"]} of {row["expected"]}, {row["without"]} images without '
                    f'| {row["flipped"]} | {row["pixels"]:.1g} | {row["score"]:.1g} | {row["iou"]:.3f} '
                    f'| {row["differing"]} within {row["margin"]:.1g} | {seconds:.0f} '
                    f'| {"" if is_accepted(row) else "FAILED"} |',
                    flush=True,
                )
                status |= not is_accepted(row)
    return status


if __name__ == '__main__':
    sys.exit(main())
