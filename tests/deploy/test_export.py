import runpy
from importlib.util import find_spec

import pytest
import torch
from conftest import ROOT, TINY_ARCH, fill_by_name
from mmengine.config import Config

from mogacore.deploy import export as export_module
from mogacore.deploy.export import PACKAGES, READERS, TensorOutputs, export, load_network, load_runtime, output_names
from mogacore.engine.config import build_model, load_config
from mogacore.errors import UserError
from mogacore.models import MogaNet, SimVP


@pytest.fixture
def model():
    with torch.no_grad():
        return fill_by_name(MogaNet(TINY_ARCH, out_indices=(2, 3))).eval()


def names_in(path):
    """Names of the outputs of an exported file."""
    if path.suffix == '.onnx':
        import onnxruntime

        return [output.name for output in onnxruntime.InferenceSession(path.read_bytes()).get_outputs()]
    import openvino

    return [output.any_name for output in openvino.Core().read_model(path).outputs]


@pytest.mark.parametrize('kind, name', [('onnx', 'net.onnx'), ('openvino', 'net.xml')])
def test_exported_file_equals_the_network_at_any_batch_size(kind, name, model, tmp_path):
    for package in PACKAGES[kind]:
        pytest.importorskip(package)
    images = torch.randn(1, 3, 32, 64)
    assert export(model, tmp_path / name, images) < 1e-4
    assert names_in(tmp_path / name) == ['features_2', 'features_3']
    more = torch.randn(3, 3, 32, 64)
    with torch.no_grad():
        for ours, theirs in zip(READERS[kind](tmp_path / name)(more), model(more), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        for ours, theirs in zip(load_runtime(model, kind, images)(more), model(more), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('kind', ['onnx', 'openvino'])
def test_a_video_predictor_runs_at_any_batch_size(kind):
    for package in PACKAGES[kind]:
        pytest.importorskip(package)
    with torch.no_grad():
        model = fill_by_name(SimVP(3, spatial_dims=8, temporal_dims=16, temporal_depth=3)).eval()
        run = load_runtime(model, kind, torch.rand(1, 3, 1, 16, 24))
        videos = torch.rand(3, 3, 1, 16, 24)
        torch.testing.assert_close(run(videos), model(videos), rtol=1e-3, atol=1e-4)


def test_a_file_with_different_outputs_is_not_written(model, tmp_path, monkeypatch):
    monkeypatch.setitem(export_module.PACKAGES, 'onnx', ())
    monkeypatch.setitem(export_module.WRITERS, 'onnx', lambda model, path, images, names: path.write_bytes(b'draft'))
    monkeypatch.setitem(export_module.READERS, 'onnx', lambda path: lambda images: [m + 1 for m in model(images)])
    with pytest.raises(UserError, match=r'net.onnx was not written, since its outputs differ .* by 1, more than'):
        export(model, tmp_path / 'net.onnx', torch.randn(1, 3, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_unknown_suffixes_and_missing_packages_are_reported(model, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r'net\.pt has an unknown suffix: use \.onnx or \.xml'):
        export(model, tmp_path / 'net.pt', torch.randn(1, 3, 32, 32))
    monkeypatch.setitem(export_module.PACKAGES, 'onnx', ('no_such_package',))
    assert find_spec('no_such_package') is None
    with pytest.raises(UserError, match='onnx requires no_such_package: run pip install no_such_package'):
        export(model, tmp_path / 'net.onnx', torch.randn(1, 3, 32, 32))


@pytest.fixture
def segmentor(tmp_path):
    """Config file and weight file of a small segmentor."""
    pytest.importorskip('mmseg')
    base = ROOT / 'configs' / 'segmentation' / 'semantic-fpn_moganet-xtiny_digits.py'
    path = tmp_path / 'small.py'
    path.write_text(
        f"_base_ = '{base}'\n"
        f'model = dict(backbone=dict(_delete_=True, type="MogaNet", arch={TINY_ARCH}),'
        f'neck=dict(in_channels={list(TINY_ARCH["embed_dims"])}))\n'
    )
    torch.save(build_model(Config.fromfile(path)).state_dict(), tmp_path / 'small.pth')
    return path, tmp_path / 'small.pth'


def test_complete_model_of_a_config_is_exported_by_the_tool(segmentor, tmp_path, monkeypatch, capsys):
    for package in PACKAGES['onnx']:
        pytest.importorskip(package)
    config, weights = map(str, segmentor)
    out = tmp_path / 'out' / 'net.onnx'
    monkeypatch.setattr('sys.argv', ['export.py', config, weights, str(out), '--shape', '3', '64', '64'])
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / 'tools' / 'export.py'), run_name='__main__')
    assert not leave.value.code
    assert 'images (any, 3, 64, 64), differs from PyTorch by' in capsys.readouterr().out
    assert names_in(out) == ['seg_logits']
    network, shape = load_network(config, weights)
    assert shape == (3, 128, 128)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (expected,) = network(images)
    assert expected.shape == (2, 11, 16, 16)
    torch.testing.assert_close(READERS['onnx'](out)(images)[0], expected, rtol=1e-3, atol=1e-4)


def test_two_stage_detectors_are_refused(tmp_path):
    pytest.importorskip('mmdet')
    with pytest.raises(UserError, match='is a two-stage detector, which cannot be exported'):
        load_network(str(ROOT / 'configs' / 'detection' / 'mask-rcnn_moganet-xtiny_fpn_digits.py'), 'weights.pth')


WIDTHS = list(TINY_ARCH['embed_dims'])
HEADS = {
    'classification/moganet-xtiny_digits.py': (f'head=dict(in_channels={WIDTHS[3]})', ['logits']),
    'segmentation/upernet_moganet-xtiny_digits.py': (
        f'decode_head=dict(in_channels={WIDTHS}, channels=16), auxiliary_head=dict(in_channels={WIDTHS[2]})',
        ['seg_logits'],
    ),
    'pose/td-hm_moganet-xtiny_digits.py': (
        f'head=dict(in_channels={WIDTHS[3]}, deconv_out_channels=(16, 16, 16))', ['heatmaps'],
    ),
    'detection/retinanet_moganet-xtiny_fpn_digits.py': (f'neck=dict(in_channels={WIDTHS})', None),
}  # fmt: skip


@pytest.mark.parametrize('config', HEADS)
def test_outputs_of_every_task_are_named_for_what_they_are(config, tmp_path):
    pytest.importorskip('mmdet')
    changes, expected = HEADS[config]
    (tmp_path / 'small.py').write_text(
        f"_base_ = '{ROOT / 'configs' / config}'\n"
        f'model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY_ARCH})), {changes})\n'
    )
    cfg = load_config(tmp_path / 'small.py')
    model = TensorOutputs(build_model(cfg)).eval()
    images = torch.randn(1, cfg.input_shape[0], 64, 64)
    names = output_names(model, images)
    with torch.no_grad():
        outputs = dict(zip(names, model(images), strict=True))
    if expected is not None:
        assert names == expected
        return
    # A cell of a level has the same number of anchors in both: 10 classes and 4 coordinates each.
    anchors = outputs['bbox_preds_0'].shape[1] // 4
    for level in range(len(names) // 2):
        scores, boxes = outputs[f'cls_scores_{level}'], outputs[f'bbox_preds_{level}']
        assert scores.shape[1] == 10 * anchors and boxes.shape[1] == 4 * anchors
        assert scores.shape[2:] == boxes.shape[2:]


def test_outputs_in_a_dict_a_video_and_unknown_outputs_have_names():
    class Head(torch.nn.Module):
        def forward(self, images, samples, mode):
            return {'rotations': images, 'points': [images, images]}

    images = torch.rand(1, 3, 8, 8)
    assert output_names(TensorOutputs(Head()), images) == ['rotations', 'points_0', 'points_1']
    assert output_names(torch.nn.Identity(), images) == ['output']
    model = SimVP(3, spatial_dims=8, temporal_dims=16, temporal_depth=3).eval()
    assert output_names(model, torch.rand(1, 3, 1, 16, 16)) == ['frames']


@pytest.mark.parametrize(
    'shape', [('4', '64', '64'), ('3', '0', '64'), ('3', '-2', '64'), ('64', '64'), ('1', '3', '64', '64')]
)
def test_shapes_that_do_not_fit_are_refused_in_one_line(shape, segmentor, tmp_path):
    from mogacore.cli.export import main

    with pytest.raises(UserError, match=r'does not accept inputs of|shape .* is invalid') as caught:
        main([*map(str, segmentor), str(tmp_path / 'net.onnx'), '--shape', *shape])
    assert '\n' not in str(caught.value) and ' x '.join(shape) in str(caught.value)
    assert not (tmp_path / 'net.onnx').exists()
