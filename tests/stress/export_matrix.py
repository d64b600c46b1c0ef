"""Exported files against the task libraries, for one full-size config of each family with filled weights.

Per family: ONNX and OpenVINO, three input sizes where the model allows several, batches of 1, 3 and 3, 21 images.
Prints a table and writes JSON. Not part of the test command: python tests/stress/export_matrix.py --out matrix.json
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / 'deploy')]
from small_models import build_small, predict  # noqa: E402
from test_tasks import open_onnx, open_openvino, photos  # noqa: E402

from mogacore.deploy.export import export  # noqa: E402
from mogacore.deploy.source import load_source  # noqa: E402
from mogacore.locations import find_config  # noqa: E402

OPENERS = {'onnx': ('net.onnx', open_onnx), 'openvino': ('net.xml', open_openvino)}


def compare_classes(model, images, run, facts):
    expected = np.stack([sample.pred_score.numpy() for sample in predict(model, images, {})])
    found = run({'images': images.numpy()})['probabilities']
    return {'log-probabilities': np.abs(np.log(found) - np.log(expected)).max()}


def compare_maps(model, images, run, facts):
    size = (images.shape[2] * 3 // 2, images.shape[3] - 5)
    samples = predict(model, images, {'ori_shape': size})
    expected = np.concatenate([sample.pred_sem_seg.data.numpy() for sample in samples])
    found = run({'images': images.numpy(), 'output_size': np.array(size)})['class_map']
    return {'pixels that differ': (found != expected).mean()}


def compare_poses(model, images, run, facts):
    """Keypoints inside the crop: a flat heatmap puts them far outside, where rounding moves them."""
    found = run({'images': images.numpy()})
    errors = {'keypoints, px or mm': 0.0, 'scores': 0.0, 'keypoints inside, largest batch': 0, 'highest score': 0.0}
    for i, sample in enumerate(predict(model, images, {'flip_indices': facts['keypoints']['flip_indices']})):
        instances = sample.pred_instances
        points, scores = instances.keypoints[0], instances.keypoint_scores[0] / facts['max_score']
        if 'hand_type' in instances:
            scores = np.clip(scores, 0, 1) * np.repeat(instances.hand_type[0], len(scores) // 2)
        is_inside = ((points[:, :2] >= 0) & (points[:, :2] <= images.shape[:1:-1])).all(1)
        distance = np.abs(found['keypoints'][i] - points)[is_inside]
        errors['keypoints, px or mm'] = max([errors['keypoints, px or mm'], *distance.ravel()])
        errors['keypoints inside, largest batch'] += int(is_inside.sum())
        errors['highest score'] = max(errors['highest score'], scores.max())
        errors['scores'] = max(errors['scores'], np.abs(found['scores'][i] - scores).max())
    return errors


def compare_frames(model, frames, run, facts):
    with torch.no_grad():
        expected = model(frames).numpy()
    return {'frames': np.abs(run({'past_frames': frames.numpy()})['frames'] - expected).max()}


LIMITS = {
    'log-probabilities': 1e-4, 'pixels that differ': 1e-3, 'keypoints, px or mm': 0.05, 'scores': 1e-3, 'frames': 1e-4,
}  # fmt: skip
FAMILIES = {
    'classifier': (
        'classification/moganet-xtiny_8xb128_in1k-224', compare_classes, [(224, 224), (192, 288), (321, 250)],
    ),
    'Semantic FPN': (
        'segmentation/semantic-fpn_moganet-xtiny_80k_ade20k-512x512', compare_maps,
        [(256, 384), (384, 224), (288, 288)],
    ),
    'UperNet': (
        'segmentation/upernet_moganet-xtiny_160k_ade20k-512x512', compare_maps, [(160, 256), (256, 192), (224, 224)],
    ),
    'top-down pose': ('pose/td-hm_moganet-xtiny_210e_coco-256x192', compare_poses, [(256, 192)] * 3),
    'two hands': (
        'pose/hand3d/internet_moganet-xtiny_20e_interhand3d-256x256', compare_poses, [(256, 256)] * 3,
    ),
    'one hand': ('pose/hand3d/heatmap3d_moganet-tiny_100e_freihand-224x224', compare_poses, [(224, 224)] * 3),
    'SimVP': ('video_prediction/simvp_moganet_200e_moving-mnist', compare_frames, [(64, 64), (48, 80), (96, 64)]),
}  # fmt: skip


def walk(family, batches):
    """Rows of a family, one per format."""
    config, compare, sizes = FAMILIES[family]
    start = time.perf_counter()
    model = build_small(find_config(config))
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / 'weights.pth'
        torch.save(model.state_dict(), weights)
        shape = load_config_shape(config)
        source = load_source(config, str(weights), {'input_shape': (*shape[:-2], *sizes[0])})
        done = export(source, [Path(folder) / name for name, _ in OPENERS.values()])
        facts = dict(source.facts, max_score=getattr(getattr(model, 'head', None), 'decoder', None))
        facts['max_score'] = getattr(facts['max_score'], 'max_bound', 1.0)
        seconds = time.perf_counter() - start
        rows = []
        for exported, (kind, (name, opener)) in zip(done, OPENERS.items(), strict=True):
            run, errors, count = opener(Path(folder) / name), {}, 0
            for number, (height, width) in enumerate(sizes):
                for position, batch in enumerate(batches):
                    inputs = inputs_of(shape, batch, height, width, seed=10 * number + position)
                    for key, value in compare(model, inputs, run, facts).items():
                        errors[key] = max(errors.get(key, 0.0), float(value))
                    count += batch
            rows.append(
                dict(
                    family=family, config=config, format=kind, images=count, inputs=exported.inputs, errors=errors,
                    passed=all(value <= LIMITS[key] for key, value in errors.items() if key in LIMITS)
                    and errors.get('keypoints inside, largest batch', 1) > 0, export_s=round(seconds, 1),
                )
            )  # fmt: skip
    return rows


def load_config_shape(config):
    from mogacore.engine.config import load_config

    return tuple(load_config(config).input_shape)


def inputs_of(shape, batch, height, width, seed):
    if len(shape) == 3:
        return photos(batch, shape[0], height, width, seed)
    frames = photos(batch * shape[0], shape[1], height, width, seed)
    return frames.float().div(255).view(batch, *shape[:2], height, width)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--families', nargs='+', choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument('--batches', nargs='+', type=int, default=[1, 3, 3], help='of each input size')
    parser.add_argument('--out', type=Path, help='JSON file to write')
    args = parser.parse_args()
    rows = []
    for family in args.families:
        for row in walk(family, args.batches):
            rows.append(row)
            errors = ', '.join(f'{key} {value:.1e}' for key, value in row['errors'].items())
            print(f'| {family} | {row["format"]} | {row["images"]} | {errors} | {row["passed"]} |', flush=True)
        if args.out:
            args.out.write_text(json.dumps(rows, indent=2, default=str))
    sys.exit(not all(row['passed'] for row in rows))


if __name__ == '__main__':
    main()
