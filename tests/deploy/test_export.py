from importlib.util import find_spec

import pytest
import torch
from conftest import TINY_ARCH, fill_by_name

from mogacore.deploy import export as export_module
from mogacore.deploy.export import PACKAGES, READERS, export, load_runtime
from mogacore.errors import UserError
from mogacore.models import MogaNet


@pytest.fixture
def model():
    with torch.no_grad():
        return fill_by_name(MogaNet(TINY_ARCH, out_indices=(2, 3))).eval()


@pytest.mark.parametrize('kind, name', [('onnx', 'net.onnx'), ('openvino', 'net.xml')])
def test_file_gives_what_the_network_gives_at_any_batch_size(kind, name, model, tmp_path):
    for package in PACKAGES[kind]:
        pytest.importorskip(package)
    images = torch.randn(1, 3, 32, 64)
    assert export(model, tmp_path / name, images) < 1e-4
    more = torch.randn(3, 3, 32, 64)
    with torch.no_grad():
        for ours, theirs in zip(READERS[kind](tmp_path / name)(more), model(more), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        for ours, theirs in zip(load_runtime(model, kind, images)(more), model(more), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_file_that_gives_something_else_is_not_written(model, tmp_path, monkeypatch):
    monkeypatch.setitem(export_module.PACKAGES, 'onnx', ())
    monkeypatch.setitem(export_module.WRITERS, 'onnx', lambda model, path, images: path.write_bytes(b'draft'))
    monkeypatch.setitem(export_module.READERS, 'onnx', lambda path: lambda images: [m + 1 for m in model(images)])
    with pytest.raises(UserError, match=r'net.onnx was not written: its outputs differ by'):
        export(model, tmp_path / 'net.onnx', torch.randn(1, 3, 32, 32))
    assert list(tmp_path.iterdir()) == []


def test_other_suffixes_and_missing_packages_are_told(model, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r'net\.pt cannot be written: choose the suffix \.onnx or \.xml'):
        export(model, tmp_path / 'net.pt', torch.randn(1, 3, 32, 32))
    monkeypatch.setitem(export_module.PACKAGES, 'onnx', ('no_such_package',))
    assert find_spec('no_such_package') is None
    with pytest.raises(UserError, match='onnx needs no_such_package: run pip install no_such_package'):
        export(model, tmp_path / 'net.onnx', torch.randn(1, 3, 32, 32))
