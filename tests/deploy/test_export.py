"""The export driver: what it writes, checks and refuses. For the outputs of every task see test_tasks.py."""

import json
import os
import runpy
import signal
from importlib.metadata import version
from importlib.util import find_spec

import pytest
import torch
from conftest import ROOT, TINY_ARCH, fill_by_name
from small_models import Pyramid, write_small

from mogacore.cli.export import main
from mogacore.deploy import export as driver
from mogacore.deploy import formats
from mogacore.deploy.export import export, load_runtime
from mogacore.deploy.formats import PACKAGES
from mogacore.deploy.graphs.raw import Raw
from mogacore.deploy.source import Source, load_source
from mogacore.errors import UserError, run
from mogacore.models import MogaNet, SimVP

CONFIG = 'classification/moganet-xtiny_digits'


def needs_packages(kind):
    for package in PACKAGES[kind]:
        pytest.importorskip(package)


@pytest.fixture
def pyramid():
    """A network of four convolutions, of which the maps are exported."""
    with torch.no_grad():
        return Source(
            fill_by_name(Pyramid()).eval(), shape=(3, 64, 48), raw=True, facts={'config': 'a', 'classes': None}
        )


def test_a_pt2_file_has_the_metadata_and_runs_in_any_size(pyramid, tmp_path):
    (done,) = export(pyramid, [tmp_path / 'out' / 'net.pt2'])
    assert done.inputs == {'images': ('batch', 3, 'height', 'width')} and not done.fixed
    assert done.outputs == ('features_0', 'features_1', 'features_2', 'features_3')
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['net.pt2']
    files = {'mogacore.json': ''}
    module = torch.export.load(tmp_path / 'out' / 'net.pt2', extra_files=files).module()
    metadata = json.loads(files['mogacore.json'])
    assert metadata['format'] == 1 and metadata['opset'] == 20
    assert metadata['raw'] and metadata['config'] == 'a' and metadata['precision'] == 'fp32'
    assert metadata['input'] == {
        'name': 'images', 'dtype': 'uint8', 'channels': 'rgb', 'size': [64, 48],
        'ignore_orientation': False, 'dynamic': ['batch', 'height', 'width'],
    }  # fmt: skip
    assert metadata['versions']['torch'] == version('torch')
    images = torch.randint(0, 256, (3, 3, 37, 80), dtype=torch.uint8)
    for ours, theirs in zip(module(images), pyramid.model(images.float()), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_a_shape_fixes_the_size_and_with_a_batch_everything(pyramid, tmp_path):
    (done,) = export(pyramid, [tmp_path / 'net.pt2'], (3, 40, 32), dtype='float32')
    assert done.inputs == {'images': ('batch', 3, 40, 32)}
    (done,) = export(pyramid, [tmp_path / 'net.pt2'], (5, 3, 40, 32))
    assert done.inputs == {'images': (5, 3, 40, 32)}


def test_onnx_files_name_their_axes_and_hold_no_paths(pyramid, tmp_path):
    needs_packages('onnx')
    import onnx

    export(pyramid, [tmp_path / 'net.onnx'])
    model = onnx.load(tmp_path / 'net.onnx')
    dims = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ['batch', 3, 'height', 'width']
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == 'batch'
    assert str(ROOT).encode() not in (tmp_path / 'net.onnx').read_bytes()


class Frozen(torch.nn.Module):
    """Computes a size as a Python number, which only the example has."""

    def forward(self, x):
        return torch.nn.functional.interpolate(x, size=(int(x.shape[2]) * 2, 5))


class Lying(torch.nn.Module):
    """Gives other values under export."""

    def forward(self, x):
        return x.mean((2, 3)) + float(torch.compiler.is_exporting())


class ForOneSize(torch.nn.Module):
    """Right for the size of the example only."""

    def forward(self, x):
        return x.mean((2, 3)) * (48 if torch.compiler.is_exporting() else x.shape[3])


class Growing(torch.nn.Module):
    """Right for the batch and size of the example only."""

    def forward(self, x):
        return x.mean((2, 3)) * (96 if torch.compiler.is_exporting() else x.shape[3] * x.shape[0])


def test_a_size_that_the_model_cannot_vary_is_fixed_and_reported(tmp_path):
    (done,) = export(Source(Frozen().eval(), shape=(3, 64, 48), raw=True), [tmp_path / 'net.pt2'])
    assert done.inputs == {'images': ('batch', 3, 64, 48)} and done.fixed


def test_a_size_that_no_file_is_right_for_is_fixed_and_reported(tmp_path):
    source = Source(ForOneSize().eval(), shape=(3, 64, 48), raw=True)
    (done,) = export(source, [tmp_path / 'net.pt2'])
    assert done.inputs == {'images': ('batch', 3, 64, 48)}
    assert done.fixed.startswith('its outputs for inputs of 1 x 3 x 86 x 39 differ from eager PyTorch, output by ')
    files = {'mogacore.json': ''}
    torch.export.load(tmp_path / 'net.pt2', extra_files=files)
    assert json.loads(files['mogacore.json'])['input']['dynamic'] == ['batch']


def test_only_the_pt2_file_has_the_size_that_its_format_fixes(tmp_path):
    needs_packages('onnx')

    class Small(torch.nn.Module):
        def forward(self, x):  # torch.export makes 33 px its smallest size, so that its program refuses 32 px
            return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (0, 1, 0, 1)), 33).mean((2, 3))

    source = Source(Small().eval(), shape=(3, 32, 32), raw=True)
    files = [tmp_path / name for name in ('net.pt2', 'net.onnx')]
    for paths in (files, files[::-1]):
        by_name = {done.path.name: done for done in export(source, paths)}
        assert list(by_name) == [path.name for path in paths]
        assert by_name['net.onnx'].inputs == {'images': ('batch', 3, 'height', 'width')}
        assert by_name['net.pt2'].inputs == {'images': ('batch', 3, 32, 32)}
        assert by_name['net.pt2'].fixed and not by_name['net.onnx'].fixed


def test_a_network_that_pads_by_the_size_of_the_image_has_the_size_of_the_example(tmp_path):
    pytest.importorskip('mmcv')
    from mmcv.cnn.bricks import Conv2dAdaptivePadding

    source = Source(Conv2dAdaptivePadding(3, 4, 3, stride=2).eval(), shape=(3, 64, 48), raw=True)
    (done,) = export(source, [tmp_path / 'net.pt2'])
    assert done.inputs == {'images': ('batch', 3, 64, 48)}
    assert done.fixed == 'Conv2dAdaptivePadding computes its padding from the size of the image'
    (done,) = export(source, [tmp_path / 'net.pt2'], (3, 35, 40))
    assert done.inputs == {'images': ('batch', 3, 35, 40)} and not done.fixed


def test_a_network_with_a_smallest_size_is_checked_at_larger_ones(tmp_path):
    source = Source(torch.nn.Conv2d(3, 2, 40).eval(), shape=(3, 64, 48), raw=True)  # the smaller width would be 39
    (done,) = export(source, [tmp_path / 'net.pt2'])
    assert done.inputs == {'images': ('batch', 3, 'height', 'width')} and not done.fixed


@pytest.mark.parametrize('model, case', [(Lying, '2 x 3 x 64 x 48 differ'), (Growing, 'for inputs of 3 x 3 x 64 x 48')])
def test_a_file_with_other_outputs_at_any_checked_size_is_not_written(model, case, tmp_path):
    with pytest.raises(UserError, match=f'net.pt2 was not written, since its outputs .*{case}'):
        export(Source(model().eval(), shape=(3, 64, 48), raw=True), [tmp_path / 'net.pt2'])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fails_leaves_no_file_and_those_of_an_earlier_export(pyramid, tmp_path, monkeypatch):
    (tmp_path / 'net.pt2').write_bytes(b'earlier')

    def fail(*inputs):
        raise RuntimeError('no\nway')

    monkeypatch.setattr(driver, 'read', lambda *args: fail)
    with pytest.raises(UserError, match=r'net.pt2 was not written, since the file fails for inputs of .*: no way; fix'):
        export(pyramid, [tmp_path / 'net.pt2'])
    assert [path.name for path in tmp_path.iterdir()] == ['net.pt2']
    assert (tmp_path / 'net.pt2').read_bytes() == b'earlier'


@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize('name', ['write', 'copy_contents'])
def test_a_signal_leaves_no_file(name, number, code, pyramid, tmp_path, monkeypatch):
    """Until the files are complete, the output folder is empty, so that SIGKILL leaves nothing there either."""
    drafts, out = tmp_path / 'drafts', tmp_path / 'out'
    drafts.mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(drafts))
    monkeypatch.setattr('mogacore.deploy.source.load_source', lambda *args, **kwargs: pyramid)
    original = getattr(driver, name)

    def interrupted(*args):
        assert list(drafts.iterdir()) and not list(out.iterdir())
        if name == 'write':
            original(*args)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(driver, name, interrupted)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        run(main, [CONFIG, 'none.pth', str(out / 'net.pt2')])
    assert stopped.value.code == code
    assert not list(drafts.iterdir()) and not list(out.iterdir())
    assert signal.getsignal(signal.SIGTERM) is handler


def test_unknown_suffixes_tolerances_and_missing_packages_are_reported(pyramid, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r'net\.pt has an unknown suffix: use \.onnx, \.xml, \.pt2'):
        export(pyramid, [tmp_path / 'net.onnx', tmp_path / 'net.pt'])
    with pytest.raises(UserError, match='--tolerance -1 is out of range'):
        export(pyramid, [tmp_path / 'net.pt2'], tolerance=-1)
    (tmp_path / 'folder.pt2').mkdir()
    with pytest.raises(UserError, match=r'folder\.pt2 is a folder: give the name of a file'):
        export(pyramid, [tmp_path / 'folder.pt2'])
    (tmp_path / 'folder.pt2').rmdir()
    monkeypatch.setitem(formats.PACKAGES, 'onnx', ('no_such_package',))
    assert find_spec('no_such_package') is None
    with pytest.raises(UserError, match='onnx requires no_such_package: run pip install no_such_package'):
        export(pyramid, [tmp_path / 'net.onnx'])
    assert list(tmp_path.iterdir()) == []


def test_shapes_that_the_outputs_do_not_allow_are_refused(pyramid, tmp_path, monkeypatch):
    class OneByOne(Raw):
        dynamic = ()

    monkeypatch.setattr(driver, 'create_graph', lambda model, cfg, meta, raw: OneByOne(model, cfg, meta))
    with pytest.raises(UserError, match='--shape 3 x 32 x 32 is not the size of the model, 64 x 48'):
        export(pyramid, [tmp_path / 'net.pt2'], (3, 32, 32))
    with pytest.raises(UserError, match='--shape 2 x 3 x 64 x 48 has 2 images, but the file takes one at a time'):
        export(pyramid, [tmp_path / 'net.pt2'], (2, 3, 64, 48))


@pytest.mark.parametrize('kind', ['onnx', 'openvino'])
def test_a_runtime_for_benchmarks_equals_the_network_at_any_batch_size(kind):
    needs_packages(kind)
    with torch.no_grad():
        model = fill_by_name(Pyramid()).eval()
        run = load_runtime(model, kind, torch.randn(1, 3, 32, 64))
        for images in (torch.randn(1, 3, 32, 64), torch.randn(3, 3, 32, 64)):
            for ours, theirs in zip(run(images), model(images), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_tool_writes_files_and_prints_what_they_take(tmp_path, monkeypatch, capsys):
    pytest.importorskip('mmpose')
    files = write_small(tmp_path, 'pose/td-hm_moganet-xtiny_digits')
    out = str(tmp_path / 'out' / 'net.pt2')
    monkeypatch.setattr('sys.argv', ['export.py', *files, out, '--shape', '3', '64', '64', '--raw'])
    with pytest.raises(SystemExit) as leave:
        runpy.run_path(str(ROOT / 'tools' / 'export.py'), run_name='__main__')
    assert not leave.value.code
    assert f'{out}: images (batch, 3, 64, 64) -> heatmaps; differs from PyTorch by' in capsys.readouterr().out


@pytest.mark.parametrize(
    'shape',
    [
        ('4', '64', '64'),
        ('1', '0', '64'),
        ('1', '-2', '64'),
        ('64', '64'),
        ('1', '1', '1', '32', '32'),
        ('0', '1', '32', '32'),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_one_line(shape, tmp_path):
    with pytest.raises(UserError, match=r'does not accept inputs of|shape .* is invalid') as caught:
        main([*write_small(tmp_path, CONFIG), str(tmp_path / 'net.pt2'), '--shape', *shape])
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'net.pt2').exists()


def test_maps_of_the_backbone(tmp_path):
    source = load_source(*write_small(tmp_path, CONFIG), features=True)
    images = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    graph = driver._create_graph(source, source.model)
    graph.name_outputs(images)
    assert graph.task == 'features' and graph.output_names == tuple(f'features_{i}' for i in range(4))
    backbone = MogaNet(TINY_ARCH, in_channels=1).eval()
    backbone.load_state_dict(source.model.backbone.state_dict())
    preprocessor = source.model.data_preprocessor
    with torch.no_grad():
        expected = backbone((images.float() - preprocessor.mean) / preprocessor.std)
        for ours, theirs in zip(graph(images), expected, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_the_type_of_the_images_is_refused_for_videos(tmp_path):
    files = write_small(tmp_path, 'video_prediction/simvp_moganet_moving-digits')
    with pytest.raises(UserError, match='--input uint8 has no effect on videos, which are always float32: omit it'):
        main([*files, str(tmp_path / 'net.pt2'), '--input', 'uint8'])


def test_raw_outputs_of_a_video_predictor_have_the_range_of_the_data():
    model = SimVP(3, spatial_dims=8, temporal_dims=16, temporal_depth=2).eval()
    graph = driver._create_graph(Source(model, raw=True), model)
    (frames,) = graph.example((2, 3, 1, 16, 16), torch.uint8)
    assert frames.shape == (2, 3, 1, 16, 16) and 0 <= frames.min() < frames.max() <= 1
    graph.name_outputs(frames)
    assert graph.output_names == ('frames',) and graph.input_names == ('past_frames',) and graph.size_step == 4
