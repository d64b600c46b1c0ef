"""Small exported files, made with onnx.helper."""

import json

import pytest


@pytest.fixture
def write_model(tmp_path):
    """Function that writes an ONNX file with a description: nodes, inputs and outputs as onnx.helper takes them."""
    onnx = pytest.importorskip('onnx')
    from onnx import helper

    def write(name, nodes, inputs, outputs, initializers=(), **metadata):
        def info(table):
            return [helper.make_tensor_value_info(key, kind, shape) for key, (kind, shape) in table.items()]

        graph = helper.make_graph(nodes, 'test', info(inputs), info(outputs), list(initializers))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)])
        model.ir_version = 10
        first, (kind, shape) = next(iter(inputs.items()))
        described = {
            'format': 1, 'raw': False, 'classes': None, 'palette': None, 'keypoints': None, 'preprocess': [],
            'postprocess': {},
            'input': {
                'name': first, 'dtype': helper.tensor_dtype_to_np_dtype(kind).name,
                'channels': {1: 'gray', 3: 'rgb'}[shape[1]], 'size': [32, 32], 'dynamic': ['batch', 'height', 'width'],
            },
        }  # fmt: skip
        helper.set_model_props(model, {'mogacore': json.dumps(described | metadata)})
        onnx.checker.check_model(model, full_check=True)
        path = tmp_path / f'{name}.onnx'
        onnx.save(model, path)
        return path

    return write
