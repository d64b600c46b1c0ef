import cv2

from mogacore import opencv

WARNINGS = 3


def test_silent_level_hides_the_warning_for_a_missing_image_until_reset(tmp_path, capfd):
    original = opencv.set_log_level(WARNINGS)  # an earlier test may have changed it
    before = opencv.set_log_level(opencv.SILENT)
    assert cv2.imread(str(tmp_path / 'none.png')) is None
    assert capfd.readouterr().err == ''
    assert opencv.set_log_level(before) == opencv.SILENT
    assert cv2.imread(str(tmp_path / 'none.png')) is None
    assert 'none.png' in capfd.readouterr().err
    opencv.set_log_level(original)
