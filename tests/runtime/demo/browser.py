"""Headless Chromium."""

import json
import shutil
from urllib.parse import urlsplit

import pytest

BROWSER, DRIVER = shutil.which('chromium'), shutil.which('chromedriver')
FLAGS = (
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
    '--disable-background-networking', '--disable-component-update', '--disable-dev-shm-usage',
    '--window-size=1280,900',
)  # fmt: skip
needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason='needs chromium and chromedriver (Debian: chromium, chromium-driver)'
)


def open_browser(profile):
    """A browser with a new profile folder, which records its requests; downloads go to ``profile / 'downloads'``."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f'--user-data-dir={profile}'):
        options.add_argument(flag)
    options.add_experimental_option('prefs', {'download.default_directory': str(profile / 'downloads')})
    options.set_capability('goog:loggingPrefs', {'performance': 'ALL'})
    return webdriver.Chrome(options, Service(DRIVER))


def requested_hosts(browser):
    """Hosts that the browser has sent requests to since the last call."""
    messages = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    urls = [
        message['params']['request']['url'] for message in messages if message['method'] == 'Network.requestWillBeSent'
    ]
    return {urlsplit(url).hostname for url in urls if url.startswith(('http', 'ws'))}
