"""Latency of the Predictor for one 640 x 480 photo, in comparison with its parts and with plain eager PyTorch.

python tests/stress/predictor_latency.py [moganet_xtiny moganet_small ...] [--backend onnxruntime] [--threads 2]

The functions run in turn, so that all of them have the same machine; ratios are those of the medians. The weights are
random, which does not change the latency.
"""

import argparse
import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from mogacore import create_model
from mogacore.analysis.throughput import Plain
from mogacore.deploy import Predictor
from mogacore.deploy.export import export
from mogacore.deploy.report import alternate
from mogacore.deploy.source import load_source
from mogacore.engine.devices import describe_machine
from mogacore.runtime.batches import feed
from mogacore.runtime.decode import DECODERS

LIMITS = {'moganet_xtiny': 3.0, 'moganet_small': 1.3}  # at least as many times as fast as plain eager PyTorch
LARGEST_OVERHEAD = 1.15


def write_photo(path):
    """A smooth random JPEG of 640 x 480 px."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC))


def measure(name, folder, photo, backend, threads, rounds):
    """Medians in milliseconds and ratios for a network by name."""
    torch.manual_seed(0)
    model = create_model(name).eval()
    weights = folder / f'{name}.pth'
    torch.save(model.state_dict(), weights)
    suffix = '.xml' if backend == 'openvino' else '.onnx'
    (done,) = export(load_source(name, str(weights)), [folder / f'{name}{suffix}'])
    predictor = Predictor(done.path, backend=backend, threads=threads)
    decoder = DECODERS[predictor.task](predictor.metadata, predictor.backend.inputs)

    def prepare():
        return feed(predictor.metadata, decoder.crops(predictor.load(photo).pixels, None))

    inputs = prepare()
    plain, mean, std = Plain(model), torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])

    def eager():
        images = torch.from_numpy(prepare()['images']).float()
        with torch.inference_mode():
            return plain((images - mean.view(3, 1, 1)) / std.view(3, 1, 1)).softmax(1)

    probabilities = predictor.backend.run(inputs)['probabilities']
    np.testing.assert_allclose(eager().numpy(), probabilities, rtol=1e-3, atol=1e-5)
    runs = [lambda: predictor(photo), prepare, lambda: predictor.backend.run(inputs), eager]
    whole, preparing, running, plain_eager = (1e3 * seconds for seconds in alternate(runs, rounds))
    return {
        'network': name,
        'predictor_ms': whole,
        'decoding_and_resizing_ms': preparing,
        'backend_ms': running,
        'plain_eager_ms': plain_eager,
        'overhead': whole / (preparing + running),
        'speedup': plain_eager / whole,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('networks', nargs='*', default=list(LIMITS))
    parser.add_argument('--backend', choices=('onnxruntime', 'openvino'), default='onnxruntime')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--rounds', type=int, default=31)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        photo = Path(name) / 'photo.jpg'
        write_photo(photo)
        for network in args.networks:
            rows.append(measure(network, Path(name), photo, args.backend, args.threads, args.rounds))
            print(json.dumps({key: round(value, 2) if key != 'network' else value for key, value in rows[-1].items()}))
    print(f'{describe_machine("cpu")}, {args.threads} threads, {args.backend}, {args.rounds} rounds')
    for row in rows:
        assert row['overhead'] <= LARGEST_OVERHEAD, row
        assert row['speedup'] >= LIMITS.get(row['network'], 0), row


if __name__ == '__main__':
    main()
