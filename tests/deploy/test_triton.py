"""Model repositories for Triton, parsed with the messages of its client library."""

import importlib.util
import json
from importlib.metadata import PackageNotFoundError, distribution
from types import SimpleNamespace

import pytest

pytest.importorskip('onnx')
import onnx
from google.protobuf import text_format
from onnx_files import write_classifier, write_model

from mogacore.cli.export import main
from mogacore.deploy.triton import write_triton_repository
from mogacore.errors import UserError


@pytest.fixture(scope='module')
def messages():
    """Triton's messages, loaded without the package around them, which requires grpc."""
    try:
        path = distribution('tritonclient').locate_file('tritonclient/grpc/model_config_pb2.py')
    except PackageNotFoundError:
        pytest.skip('needs tritonclient')
    spec = importlib.util.spec_from_file_location('model_config_pb2', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(folder, messages):
    return text_format.Parse((folder / 'config.pbtxt').read_text(), messages.ModelConfig())


def described(tensors, messages):
    return {
        tensor.name: (messages.DataType.Name(tensor.data_type), list(tensor.dims), tensor.HasField('reshape'))
        for tensor in tensors
    }


def test_model_with_an_open_batch_is_batched(messages, tmp_path):
    classes = ['r"e\\d', 'grün\n', 'b']
    source = write_classifier(tmp_path / 'colors.onnx', classes=classes)
    folder = write_triton_repository(source, tmp_path / 'repository', max_batch=16)
    assert folder == tmp_path / 'repository' / 'colors'
    assert (folder / '1' / 'model.onnx').read_bytes() == source.read_bytes()
    assert (folder / 'labels.txt').read_text() == 'r"e\\d\ngrün\nb\n'
    config = parse(folder, messages)
    assert (config.name, config.backend, config.max_batch_size) == ('colors', 'onnxruntime', 16)
    assert config.dynamic_batching.max_queue_delay_microseconds == 5000
    assert described(config.input, messages) == {'images': ('TYPE_UINT8', [3, -1, -1], False)}
    assert described(config.output, messages) == {'probabilities': ('TYPE_FP32', [3], False)}
    assert config.output[0].label_filename == 'labels.txt'
    (entry,) = onnx.load(source).metadata_props
    assert config.parameters['mogacore'].string_value == entry.value
    assert json.loads(entry.value)['classes'] == classes


def test_model_whose_outputs_have_no_batch_is_not_batched(messages, tmp_path):
    graph = """
    detector (uint8[1, 3, height, width] images) => (float maximum, int64[N, 4] places) {
        floats = Cast <to = 1> (images)
        maximum = ReduceMax <keepdims = 0> (floats)
        found = NonZero (floats)
        places = Transpose (found)
    }"""
    source = write_model(tmp_path / 'detector.onnx', graph, task='detection')
    folder = write_triton_repository(source, tmp_path, name='other')
    config = parse(folder, messages)
    assert (config.name, config.max_batch_size, config.HasField('dynamic_batching')) == ('other', 0, False)
    assert described(config.input, messages) == {'images': ('TYPE_UINT8', [1, 3, -1, -1], False)}
    assert described(config.output, messages) == {
        'maximum': ('TYPE_FP32', [1], True), 'places': ('TYPE_INT64', [-1, 4], False),
    }  # fmt: skip
    assert not (folder / 'labels.txt').exists()


def test_output_with_another_open_axis_is_no_batch(messages, tmp_path):
    graph = """
    peaks (uint8[batch, 3, height, width] images) => (int64[N, 4] places) {
        floats = Cast <to = 1> (images)
        found = NonZero (floats)
        places = Transpose (found)
    }"""
    config = parse(write_triton_repository(write_model(tmp_path / 'peaks.onnx', graph), tmp_path), messages)
    assert config.max_batch_size == 0
    assert described(config.input, messages) == {'images': ('TYPE_UINT8', [-1, 3, -1, -1], False)}


def test_second_model_and_second_writing_keep_the_rest(tmp_path):
    source = write_classifier(tmp_path / 'colors.onnx')
    for name in ('a', 'b', 'a'):
        write_triton_repository(source, tmp_path / 'repository', name=name)
    files = {str(path.relative_to(tmp_path / 'repository')) for path in (tmp_path / 'repository').rglob('*.*')}
    assert files == {f'{name}/{file}' for name in 'ab' for file in ('config.pbtxt', 'labels.txt', '1/model.onnx')}


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('net.xml', b'', r'net\.xml is not an ONNX file, as a Triton repository needs'),
        ('none.onnx', None, r'none\.onnx cannot be read \(No such file'),
        ('net.onnx', b'hello', r'net\.onnx is not an ONNX file: give'),
        (
            'net.onnx',
            onnx.helper.make_model(onnx.helper.make_graph([], 'g', [], [])).SerializeToString(),
            'has no description',
        ),
    ],
)
def test_other_files_are_refused_and_nothing_is_written(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        write_triton_repository(tmp_path / name, tmp_path / 'repository')
    assert not (tmp_path / 'repository').exists()


def test_export_writes_a_repository_on_request(tmp_path, monkeypatch):
    def export(source, paths, *_):
        return [
            SimpleNamespace(path=write_classifier(path), inputs={}, outputs=[], error=0.0, fixed='') for path in paths
        ]

    source = SimpleNamespace(shape=(3, 32, 32))
    monkeypatch.setattr('mogacore.deploy.source.load_source', lambda *_, **__: source)
    monkeypatch.setattr('mogacore.deploy.export.export', export)
    main(['config', 'checkpoint', str(tmp_path / 'net.onnx'), '--triton', str(tmp_path / 'repository')])
    assert (tmp_path / 'repository' / 'net' / 'config.pbtxt').is_file()
    with pytest.raises(UserError, match=r'other\.xml is not an ONNX file'):
        main(['config', 'checkpoint', str(tmp_path / 'other.xml'), '--triton', str(tmp_path / 'repository')])
    assert not list(tmp_path.glob('other.*'))
