"""Time over pixels: each case is measured once, and the figure stays inside its frame."""

import pytest
from conftest import TINY_ARCH
from matplotlib.backends.backend_agg import FigureCanvasAgg

from mogacore.analysis import throughput
from mogacore.analysis.growth import draw_growth, growth_figure, measure_growth
from mogacore.models import MogaNet


def test_growth_is_measured_by_size_and_by_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(throughput, 'build', lambda name: MogaNet(TINY_ARCH))
    growth = measure_growth('a', 'eager', (32, 64), (1, 2, 3), 32, 2, rounds=2)
    cases = {key: [(row['size'], row['batch_size'], row['pixels']) for row in rows] for key, rows in growth.items()}
    assert cases == {
        'pixels': [(32, 2, 2048), (64, 2, 8192)],
        'batch': [(32, 1, 1024), (32, 2, 2048), (32, 3, 3072)],
    }
    assert all(row['quartiles'][0] <= row['ms'] <= row['quartiles'][1] for rows in growth.values() for row in rows)
    assert growth['pixels'][0] is growth['batch'][1]  # the same case
    report = {'growth': growth, 'mode': 'infer', 'machine': 'm', 'network': 'a', 'backend': 'eager'}
    draw_growth(report, tmp_path / 'growth.png')
    assert (tmp_path / 'growth.png').stat().st_size > 5000


@pytest.mark.parametrize('keys', [('pixels', 'batch'), ('batch',)])
def test_labels_stay_inside_the_frame_and_do_not_cover_each_other(keys):
    """The times of docs/benchmarks.md."""
    series = {
        'pixels': [(112, 1, 21), (224, 1, 46), (336, 1, 77), (448, 1, 87)],
        'batch': [(224, 1, 27), (224, 2, 43), (224, 4, 92), (224, 8, 139)],
    }
    growth = {
        key: [
            dict(size=size, batch_size=batch, pixels=size * size * batch, ms=ms, quartiles=[0.9 * ms, 1.2 * ms])
            for size, batch, ms in (series[key] if key in keys else [])
        ]
        for key in series
    }
    report = dict(growth=growth, mode='infer', machine='AMD EPYC, 2 threads', network='moganet_xtiny', backend='eager')
    figure = growth_figure(report)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    assert len(figure.axes) == len(keys)
    for axis in figure.axes:
        frame = axis.get_window_extent(renderer)
        boxes = [text.get_window_extent(renderer) for text in axis.texts]
        assert len(boxes) == 4
        for box in boxes:
            assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            assert not box.overlaps(axis.get_legend().get_window_extent(renderer))
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
