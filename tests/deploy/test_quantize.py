import json

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import write_classifier, write_pose

from mogacore.cli.main import main
from mogacore.deploy import Predictor
from mogacore.deploy.calibration import find_images, read_feeds, spread
from mogacore.deploy.quantize import check_precision, convert, has_int8_instructions, last_layers
from mogacore.errors import UserError, run
from mogacore.runtime.backends import open_backend, openvino_core

STEPS = [{'step': 'resize', 'mode': 'exact', 'size': [24, 20], 'interpolation': 'bilinear', 'backend': 'cv2'}]


def weights(shape, seed):
    return (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    """An exported classifier with a convolution, one whose weight is scaled in the graph, and a linear layer."""
    values = {
        'first': weights((32, 3, 3, 3), 0) / 60, 'first_bias': weights((32, 1), 1)[:, 0],
        'second': weights((48, 32, 3, 3), 2), 'scale': 1 + weights((48, 1, 1, 1), 3),
        'depthwise': weights((48, 1, 5, 5), 4), 'head': 3 * weights((48, 5), 5),
    }  # fmt: skip
    nodes = [
        helper.make_node('Cast', ['images'], ['floats'], 'cast', to=TensorProto.FLOAT),
        helper.make_node('Conv', ['floats', 'first', 'first_bias'], ['a'], 'conv_first', strides=[2, 2]),
        helper.make_node('Relu', ['a'], ['b'], 'relu'),
        helper.make_node('Mul', ['second', 'scale'], ['scaled'], 'scale_weight'),
        helper.make_node('Conv', ['b', 'scaled'], ['c'], 'conv_second'),
        helper.make_node('Conv', ['c', 'depthwise'], ['d'], 'conv_depthwise', group=48),
        helper.make_node('GlobalAveragePool', ['d'], ['e'], 'pool'),
        helper.make_node('Flatten', ['e'], ['f'], 'flatten'),
        helper.make_node('MatMul', ['f', 'head'], ['logits'], 'linear'),
        helper.make_node('Softmax', ['logits'], ['probabilities'], 'softmax', axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        'network',
        [helper.make_tensor_value_info('images', TensorProto.UINT8, ['batch', 3, 'height', 'width'])],
        [helper.make_tensor_value_info('probabilities', TensorProto.FLOAT, ['batch', 5])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    path = tmp_path_factory.mktemp('network') / 'network.onnx'
    described = open_backend(write_classifier(path, preprocess=STEPS, precision='fp32')).metadata
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)])
    model.ir_version = 10
    helper.set_model_props(model, {'mogacore': json.dumps(described | {'classes': list('abcde')}), 'other': 'kept'})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def images(count, seed=0):
    """Smooth images (1, 3, 24, 20), which differ in color."""
    rng = np.random.default_rng(seed)
    found = [cv2.resize(rng.integers(0, 256, (3, 3, 3), np.uint8), (20, 24)) for _ in range(count)]
    return [{'images': image.transpose(2, 0, 1)[None]} for image in found]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    for number, feed in enumerate(images(8)):
        large = cv2.resize(feed['images'][0].transpose(1, 2, 0), (50, 40))
        assert cv2.imwrite(str(folder / f'{number}.png'), large)
    return folder


def outputs(path, count=8, **settings):
    backend = open_backend(path, **settings)
    return np.concatenate([backend.run(feed)['probabilities'] for feed in images(count)])


def tensors(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_fp16_halves_the_weights_only(network, tmp_path):
    half = tmp_path / 'half.onnx'
    convert(network, half, 'fp16')
    assert half.stat().st_size < 0.55 * network.stat().st_size
    kinds = {value.dtype for name, value in tensors(half).items() if value.ndim >= 2}
    assert kinds == {np.dtype(np.float16)}
    assert tensors(half)['first_bias'].dtype == np.float32
    assert {item.domain for item in onnx.load(half).opset_import} == {''}
    onnx.checker.check_model(onnx.load(half), full_check=True)
    difference = np.abs(outputs(half) - outputs(network)).max()
    assert 0 < difference < 2e-3


def test_a_weight_that_half_precision_cannot_hold_stays_in_fp32(network, tmp_path):
    model = onnx.load(network)
    for tensor in model.graph.initializer:
        if tensor.name == 'head':
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1e6, 'head'))
    onnx.save(model, tmp_path / 'large.onnx')
    convert(tmp_path / 'large.onnx', tmp_path / 'half.onnx', 'fp16')
    assert tensors(tmp_path / 'half.onnx')['head'].dtype == np.float32
    assert np.isfinite(outputs(tmp_path / 'half.onnx')).all()


@pytest.mark.parametrize('precision', ['fp16', 'int8'])
def test_the_description_names_the_precision_and_the_rest_is_kept(network, tmp_path, precision):
    smaller = tmp_path / 'smaller.onnx'
    convert(network, smaller, precision, images(4), reduce_range=True)
    expected = open_backend(network).metadata | {'precision': precision}
    if precision == 'int8':
        expected['reduce_range'] = True
    assert Predictor(smaller).metadata == expected
    assert {item.key: item.value for item in onnx.load(smaller).metadata_props}['other'] == 'kept'
    assert [file.name for file in tmp_path.iterdir()] == ['smaller.onnx']


@pytest.mark.parametrize('reduce_range', [False, True])
def test_int8_quantizes_each_channel_of_all_layers_but_the_last(network, tmp_path, reduce_range):
    small = tmp_path / 'int8.onnx'
    convert(network, small, 'int8', images(8), reduce_range)
    values = tensors(small)
    quantized = [value for value in values.values() if value.dtype == np.int8 and value.ndim == 4]
    assert sorted(len(value) for value in quantized) == [32, 48, 48]
    assert all(np.abs(value.astype(int)).max() in ((63, 64) if reduce_range else (127, 128)) for value in quantized)
    scales = [value for name, value in values.items() if name.endswith('_scale') and value.ndim == 1 and len(value) > 1]
    assert {len(value) for value in scales} == {32, 48}
    assert values['head'].dtype == np.float32
    assert small.stat().st_size < 0.45 * network.stat().st_size
    difference = np.abs(outputs(small) - outputs(network))
    assert 0 < difference.max() < 0.05
    assert (outputs(small).argmax(1) == outputs(network).argmax(1)).mean() >= 7 / 8


def test_openvino_files_get_smaller_too(network, tmp_path):
    openvino, _ = pytest.importorskip('openvino'), pytest.importorskip('nncf')
    model = openvino.convert_model(network)
    model.set_rt_info(json.dumps(open_backend(network).metadata), 'mogacore')
    full = tmp_path / 'full.xml'
    openvino.save_model(model, full, compress_to_fp16=False)
    np.testing.assert_allclose(outputs(full), outputs(network), atol=1e-5)
    for precision, size, limit in (('fp16', 0.55, 2e-3), ('int8', 0.45, 0.05)):
        path = tmp_path / f'{precision}.xml'
        convert(full, path, precision, images(8))
        assert path.with_suffix('.bin').stat().st_size < size * full.with_suffix('.bin').stat().st_size
        assert 0 < np.abs(outputs(path) - outputs(network)).max() < limit
        assert open_backend(path).metadata['precision'] == precision
    # A hint, which a CPU without bf16 ignores.
    assert np.abs(outputs(full, precision='bf16') - outputs(network)).max() < 0.05
    kinds = [op.get_type_name() for op in openvino_core().read_model(tmp_path / 'int8.xml').get_ops()]
    assert kinds.count('FakeQuantize') >= 3


def test_last_layers_are_those_before_outputs_and_decisions():
    nodes = {
        'trunk': ('Conv', ['']), 'proposals': ('Conv', ['trunk']), 'deltas': ('Conv', ['trunk']),
        'sigmoid': ('Sigmoid', ['proposals']), 'topk': ('TopK', ['sigmoid', '']),
        'gather': ('Gather', ['deltas', 'topk']), 'nms': ('NonMaxSuppression', ['gather', 'topk']),
        'pick': ('Gather', ['gather', 'nms']),
        'pool': ('RoiAlign', ['trunk', 'pick', '']), 'shared': ('Gemm', ['pool']), 'classes': ('Gemm', ['shared']),
        'softmax': ('Softmax', ['classes']),
    }  # fmt: skip
    types, sources = ({name: node[i] for name, node in nodes.items()} for i in range(2))
    assert set(last_layers(types, sources, ['softmax'])) == {'proposals', 'deltas', 'classes'}


@pytest.mark.parametrize(
    ('path', 'precision', 'message'),
    [
        ('net.onnx', 'bf16', r'bf16 is not stored in a file: .*backend="openvino", precision="bf16"'),
        ('net.onnx', 'int4', 'int4.* is unknown: choose from fp32, fp16, int8'),
        ('net.pt2', 'fp16', r'net.pt2 cannot be written in fp16: use .onnx or .xml'),
    ],
)
def test_an_impossible_precision_is_refused_with_advice(path, precision, message):
    with pytest.raises(UserError, match=message):
        check_precision(path, precision)


def test_bf16_is_refused_where_it_is_not_available(network):
    with pytest.raises(UserError, match="'bf16' is not available in onnxruntime: use backend openvino"):
        Predictor(network, precision='bf16')
    with pytest.raises(UserError, match="precision 'fp8' is unknown: use fp32 or bf16"):
        Predictor(network, precision='fp8')


def test_the_command_refuses_before_it_loads_anything(capsys):
    with pytest.raises(SystemExit) as stopped:
        run(lambda: main(['export', 'no_such_network', 'no.pth', 'net.onnx', '--precision', 'bf16']))
    assert stopped.value.code == 2 and 'bf16 is not stored in a file' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('precision', 'option'),
    [
        ('fp32', ['--calibration', 'photos']),
        ('fp16', ['--calibration', 'photos']),
        ('fp16', ['--reduce-range']),
        ('fp32', ['--report', 'report.json']),
        ('fp32', ['--test-images', '0']),
    ],
)
def test_an_option_without_effect_is_refused(precision, option, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(['export', 'no_such_network', 'no.pth', 'net.onnx', '--precision', precision, *option])
    message = f'{" ".join(option)} has no effect with --precision {precision}: omit it'
    assert stopped.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['net.xml', '--precision', 'int8', '--calibration', 'photos', '--reduce-range'],
            '--reduce-range has no effect on files other than .onnx: omit it',
        ),
        (
            ['net.onnx', '--precision', 'fp16', '--test-images', '5'],
            '--test-images 5 has no effect on networks by name, which have no test set: omit it',
        ),
        (['net.onnx', '--features', '--num-classes', '5'], '--num-classes 5 has no effect with --features: omit it'),
    ],
)
def test_an_option_without_effect_on_the_file_or_network_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(['export', 'moganet_tiny', 'no.pth', *arguments])
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_int8_without_images_is_refused(network, tmp_path):
    with pytest.raises(UserError, match='at least one'):
        convert(network, tmp_path / 'small.onnx', 'int8')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('flags', 'expected'),
    [
        ('fpu sse4_1 avx2 fma', False),
        ('avx512f avx512_vnni', True),
        ('avx2 avx_vnni', True),
        ('fp asimd asimddp', True),
    ],
)
def test_instructions_are_read_from_the_description_of_the_cpu(tmp_path, flags, expected):
    (tmp_path / 'cpuinfo').write_text(f'processor : 0\nflags : {flags}\n')
    assert has_int8_instructions(tmp_path / 'cpuinfo') == expected


def test_calibration_images_are_prepared_as_the_file_says(network, folder):
    feeds = read_feeds(network, find_images(folder))
    assert len(feeds) == 8
    for number, feed in enumerate(feeds):
        image = cv2.imread(str(folder / f'{number}.png'))[..., ::-1]
        np.testing.assert_array_equal(feed['images'], cv2.resize(image, (20, 24)).transpose(2, 0, 1)[None])


def test_each_calibration_image_of_a_pose_model_is_one_object_as_the_help_says(folder, tmp_path, capsys):
    feeds = read_feeds(write_pose(tmp_path / 'pose.onnx'), find_images(folder))
    assert [feed['images'].shape for feed in feeds] == [(1, 3, 32, 24)] * 8
    with pytest.raises(SystemExit):
        main(['export', '--help'])
    assert 'for poses and hands, crops that one object fills' in ' '.join(capsys.readouterr().out.split())


def test_broken_images_are_skipped_with_one_line(network, folder, tmp_path):
    (tmp_path / 'good.png').write_bytes((folder / '0.png').read_bytes())
    for name in ('a.png', 'b.png'):
        (tmp_path / name).write_bytes(b'no image')
    lines = []
    assert len(read_feeds(network, find_images(tmp_path), lines.append)) == 1
    assert len(lines) == 1 and 'skipped 2 of 3 images' in lines[0] and 'a.png' in lines[0]
    (tmp_path / 'good.png').unlink()
    with pytest.raises(UserError, match='has no readable image'):
        read_feeds(network, [tmp_path / 'a.png', tmp_path / 'b.png'])


def test_indices_are_spread_evenly():
    assert spread(9, 3) == [0, 4, 8] and spread(3, 9) == [0, 1, 2] and spread(0, 5) == []
