"""The demo page in a browser: results, messages, and nothing requested from other hosts."""

import json
import urllib.request

import cv2
import numpy as np
import pytest

pytest.importorskip('gradio')
pytest.importorskip('selenium')
pytest.importorskip('onnx')
from onnx_files import write_classifier
from runtime.demo.browser import needs_browser, open_browser, requested_hosts
from runtime.demo.test_uploads import write_video
from runtime.serve.serving import ServerProcess, encode, filled
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from mogacore.runtime import Predictor

pytestmark = needs_browser
MAX_BYTES = 500_000


class Page:
    """The page, newly loaded."""

    def __init__(self, browser, url):
        self.browser = browser
        browser.get(url)

    def wait(self, condition):
        """The first true value of a function."""
        return WebDriverWait(self.browser, 60, poll_frequency=0.1).until(lambda _: condition())

    def find(self, selector):
        """The first element, as soon as it is there."""
        return self.wait(lambda: self.browser.find_elements(By.CSS_SELECTOR, selector))[0]

    def upload(self, path):
        self.find('#upload input[type=file]').send_keys(str(path))

    def status(self, start):
        """The text of the status, as soon as it begins with ``start``."""
        box = self.find('#status textarea')
        return self.wait(lambda: text if (text := box.get_attribute('value')).startswith(start) else None)

    @property
    def text(self):
        return self.find('body').text


# One test, since server and browser take seconds to start.
def test_page_in_a_browser(tmp_path):
    models = [write_classifier(tmp_path / 'colors.onnx')]
    models += [write_classifier(tmp_path / 'renamed.onnx', classes=['rouge', 'vert', 'bleu'])]
    options = ('--threads', 1, '--max-frames', 3, '--max-bytes', MAX_BYTES)
    with ServerProcess(*models, *options, command='demo') as server, open_browser(tmp_path / 'profile') as browser:
        page = Page(browser, server.url)
        check_image(page, models[0], tmp_path)
        check_other_model(page)
        for name in ('photo.png', 'clip.mp4', 'notes.txt'):
            check_broken_file(Page(browser, server.url), tmp_path / name)
        check_too_large_file(Page(browser, server.url), tmp_path / 'photo.png')
        check_video(Page(browser, server.url), tmp_path)
        assert requested_hosts(browser) == {'127.0.0.1'}
        exit_code, stdout, stderr = server.terminate()  # while the page is open
    assert (exit_code, stdout) == (0, 'stopped\n')
    assert not [line for line in stderr.splitlines() if 'FFMPEG: tag' not in line], stderr


def check_image(page, model, folder):
    """The drawn result, the time, and the records as a file."""
    photo = folder / 'photo.png'
    photo.write_bytes(encode(filled((10, 90, 40), 300, 400)))
    page.upload(photo)
    assert page.status('Predicted in ').endswith(' ms')
    with urllib.request.urlopen(page.find('#drawn img').get_attribute('src')) as file:
        shown = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    (expected,) = Predictor(model, threads=1).predict([photo])
    np.testing.assert_array_equal(shown[..., ::-1], expected.draw())
    page.wait(lambda: 'green' in page.text)
    page.find('#download').click()
    downloaded = folder / 'profile' / 'downloads' / 'photo.json'
    page.wait(downloaded.is_file)
    assert json.loads(downloaded.read_text()) == [{**expected.record, 'image': 'photo.png'}]


def check_other_model(page):
    """Choosing another model predicts the same file again."""
    page.find('#model input').click()
    page.find('[role=option]:nth-of-type(2)').click()
    page.wait(lambda: 'vert' in page.text)


def check_broken_file(page, path):
    """A message in place of a result."""
    path.write_bytes(b'broken')
    page.upload(path)
    assert f'{path.name} cannot be read: use ' in page.status('Error: ')
    assert not page.browser.find_elements(By.CSS_SELECTOR, '#drawn img')


def check_too_large_file(page, path):
    """A message."""
    path.write_bytes(bytes(MAX_BYTES + 1))
    page.upload(path)
    page.wait(lambda: 'exceed the maximum allowed size' in page.text)


def check_video(page, folder):
    """A video that the browser plays."""
    page.upload(write_video(folder / 'clip.mp4', ['red', 'green', 'blue', 'red'], 240, 320))
    assert page.status('Predicted').endswith('the first of a longer video: --max-frames 3')
    video = page.find('#video video')
    page.wait(lambda: video.get_property('readyState') >= 2)  # the current frame is decoded
    assert video.get_property('videoWidth') * 3 == video.get_property('videoHeight') * 4 > 0
