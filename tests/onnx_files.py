"""Small exported files, written in the text format of ONNX."""

import json

import numpy as np
import onnx
from onnx import helper, parser


def write_model(path, graph, **metadata):
    """Write an ONNX file with a description.

    Args:
        path: File to write.
        graph: Text for onnx.parser; the first input is the image.
        **metadata: Entries of the description that differ from the default.
    """
    model = helper.make_model(parser.parse_graph(graph), opset_imports=[helper.make_opsetid('', 20)])
    model.ir_version = 10
    first = model.graph.input[0]
    kind = first.type.tensor_type
    described = {
        'format': 1, 'raw': False, 'classes': None, 'palette': None, 'keypoints': None, 'preprocess': [],
        'postprocess': {},
        'input': {
            'name': first.name, 'dtype': helper.tensor_dtype_to_np_dtype(kind.elem_type).name,
            'channels': {1: 'gray', 3: 'rgb'}.get(kind.shape.dim[1].dim_value), 'size': [32, 32],
            'dynamic': ['batch', 'height', 'width'],
        },
    }  # fmt: skip
    helper.set_model_props(model, {'mogacore': json.dumps(described | metadata)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_classifier(path, batch='batch', size='height, width', **metadata):
    """A classifier whose probabilities are the softmax of the mean red, green and blue."""
    graph = f"""
    classifier (uint8[{batch}, 3, {size}] images) => (float[{batch}, 3] probabilities) {{
        floats = Cast <to = 1> (images)
        axes = Constant <value_ints = [2, 3]> ()
        means = ReduceMean <keepdims = 0> (floats, axes)
        probabilities = Softmax <axis = 1> (means)
    }}"""
    return write_model(
        path, graph, **{'task': 'classification', 'classes': ['red', 'green', 'blue'], **metadata}
    )  # fmt: skip


def write_detector(path, with_masks=False, size='height, width', **metadata):
    """A detector of one box around all pixels with red above 127; its score is that of the brightest, / 255.

    Without such a pixel, it finds nothing. The masks are 1 in their left half.
    """
    mask = np.zeros((28, 28), np.float32)
    mask[:, :14] = 1
    masks = f"""
        mask_values = Constant <value_floats = [{', '.join(map(str, mask.ravel()))}]> ()
        mask_shape = Constant <value_ints = [1, 28, 28]> ()
        mask = Reshape (mask_values, mask_shape)
        masks = Compress <axis = 0> (mask, is_found)"""
    graph = f"""
    detector (uint8[1, 3, {size}] images)
    => (float[count, 4] boxes, float[count] scores, int64[count] labels{
        ', float[count, 28, 28] masks' if with_masks else ''
    }) {{
        first = Constant <value_ints = [0]> ()
        one = Constant <value_ints = [1]> ()
        channel = Constant <value_ints = [1]> ()
        reds_4d = Slice (images, first, one, channel)
        reds = Cast <to = 7> (reds_4d)
        limit = Constant <value_int = 127> ()
        bright_pixels = Greater (reds, limit)
        bright = Cast <to = 7> (bright_pixels)
        over_rows = Constant <value_ints = [0, 1, 2]> ()
        over_columns = Constant <value_ints = [0, 1, 3]> ()
        columns = ReduceMax <keepdims = 0> (bright, over_rows)
        rows = ReduceMax <keepdims = 0> (bright, over_columns)
        x1 = ArgMax <axis = 0> (columns)
        y1 = ArgMax <axis = 0> (rows)
        x2_before = ArgMax <axis = 0, select_last_index = 1> (columns)
        y2_before = ArgMax <axis = 0, select_last_index = 1> (rows)
        x2 = Add (x2_before, one)
        y2 = Add (y2_before, one)
        corners = Concat <axis = 0> (x1, y1, x2, y2)
        corners_float = Cast <to = 1> (corners)
        box = Unsqueeze (corners_float, first)
        most = ReduceMax <keepdims = 0> (reds)
        is_found_scalar = Greater (most, limit)
        is_found = Unsqueeze (is_found_scalar, first)
        boxes = Compress <axis = 0> (box, is_found)
        most_float = Cast <to = 1> (most)
        full = Constant <value_float = 255.0> ()
        score_scalar = Div (most_float, full)
        score = Unsqueeze (score_scalar, first)
        scores = Compress <axis = 0> (score, is_found)
        labels = Compress <axis = 0> (one, is_found)
        {masks if with_masks else ''}
    }}"""
    return write_model(path, graph, **{'task': 'detection', 'classes': ['nothing', 'thing'], **metadata})


def write_segmenter(path, size='height, width', **metadata):
    """A segmentation model whose class is 1 where red is above 127, in the middle of each output pixel."""
    graph = f"""
    segmenter (uint8[batch, 3, {size}] images, int64[2] output_size)
    => (int64[batch, out_height, out_width] class_map) {{
        first = Constant <value_ints = [0]> ()
        one = Constant <value_ints = [1]> ()
        two = Constant <value_ints = [2]> ()
        reds = Slice (images, first, one, one)
        floats = Cast <to = 1> (reds)
        shape = Shape (floats)
        leading = Slice (shape, first, two, first)
        sizes = Concat <axis = 0> (leading, output_size)
        resized = Resize <mode = "linear"> (floats, , , sizes)
        limit = Constant <value_float = 127.0> ()
        bright = Greater (resized, limit)
        labels = Cast <to = 7> (bright)
        class_map = Squeeze (labels, one)
    }}"""
    return write_model(path, graph, **{'task': 'segmentation', 'classes': ['dark', 'bright'], **metadata})


def write_pose(path, size=(32, 24), **metadata):
    """A pose model of one keypoint, the pixel of the crop with the most red; its score is that, / 255."""
    height, width = size
    graph = f"""
    pose (uint8[batch, 3, {height}, {width}] images) => (float[batch, 1, 2] keypoints, float[batch, 1] scores) {{
        first = Constant <value_ints = [0]> ()
        one = Constant <value_ints = [1]> ()
        flat_shape = Constant <value_ints = [-1, {height * width}]> ()
        reds_4d = Slice (images, first, one, one)
        reds = Cast <to = 1> (reds_4d)
        flat = Reshape (reds, flat_shape)
        index = ArgMax <axis = 1> (flat)
        step = Constant <value_int = {width}> ()
        x = Mod (index, step)
        y = Div (index, step)
        points = Concat <axis = 1> (x, y)
        points_float = Cast <to = 1> (points)
        keypoints = Unsqueeze (points_float, one)
        most = ReduceMax <keepdims = 1> (flat, one)
        full = Constant <value_float = 255.0> ()
        scores = Div (most, full)
    }}"""
    keypoints = {'names': ['brightest'], 'colors': [[255, 0, 0]], 'skeleton': [], 'skeleton_colors': []}
    steps = [{'step': 'warp', 'size': [height, width], 'padding': 1.0, 'udp': False}]
    return write_model(path, graph, **{'task': 'pose', 'keypoints': keypoints, 'preprocess': steps, **metadata})


def write_video_predictor(path, **metadata):
    """A video predictor that repeats the last of two gray frames of 16 x 16 px three times, negated (1 - x)."""
    graph = """
    repeater (float[batch, 2, 1, 16, 16] past_frames) => (float[batch, 3, 1, 16, 16] frames) {
        one = Constant <value_ints = [1]> ()
        two = Constant <value_ints = [2]> ()
        last = Slice (past_frames, one, two, one)
        full = Constant <value_float = 1.0> ()
        negated = Sub (full, last)
        frames = Concat <axis = 1> (negated, negated, negated)
    }"""

    described = {
        'name': 'past_frames',
        'dtype': 'float32',
        'channels': 'gray',
        'size': [16, 16],
        'dynamic': ['batch'],
    }
    return write_model(path, graph, **{'task': 'video_prediction', 'input': described, **metadata})
