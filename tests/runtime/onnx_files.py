"""Small exported files, made with onnx.helper."""

import json

import onnx
from onnx import TensorProto, helper


def write_model(path, nodes, inputs, outputs, initializers=(), **metadata):
    """Write an ONNX file with a description.

    Args:
        path: File to write.
        nodes: As of onnx.helper.
        inputs: Name -> type and shape.
        outputs: The same.
        initializers: Constant tensors.
        **metadata: Entries of the description that differ from the default.
    """
    tables = [
        [helper.make_tensor_value_info(key, kind, shape) for key, (kind, shape) in table.items()]
        for table in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, 'test', *tables, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)])
    model.ir_version = 10
    name, (kind, shape) = next(iter(inputs.items()))
    described = {
        'format': 1, 'raw': False, 'classes': None, 'palette': None, 'keypoints': None, 'preprocess': [],
        'postprocess': {},
        'input': {
            'name': name, 'dtype': helper.tensor_dtype_to_np_dtype(kind).name,
            'channels': {1: 'gray', 3: 'rgb'}[shape[1]], 'size': [32, 32], 'dynamic': ['batch', 'height', 'width'],
        },
    }  # fmt: skip
    helper.set_model_props(model, {'mogacore': json.dumps(described | metadata)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_classifier(path, batch='batch', **metadata):
    """A classifier whose probabilities are the softmax of the mean red, green and blue."""
    axes = helper.make_tensor('axes', TensorProto.INT64, [2], [2, 3])
    nodes = [
        helper.make_node('Cast', ['images'], ['floats'], to=TensorProto.FLOAT),
        helper.make_node('ReduceMean', ['floats', 'axes'], ['means'], keepdims=0),
        helper.make_node('Softmax', ['means'], ['probabilities'], axis=1),
    ]
    return write_model(
        path, nodes, {'images': (TensorProto.UINT8, [batch, 3, 'height', 'width'])},
        {'probabilities': (TensorProto.FLOAT, [batch, 3])}, [axes],
        **{'task': 'classification', 'classes': ['red', 'green', 'blue'], **metadata},
    )  # fmt: skip
