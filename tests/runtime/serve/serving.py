"""What tests of the server and the demo page share: small images, and a server in its own process."""

import os
import re
import signal
import subprocess
import sys

import cv2
import numpy as np


def encode(image, suffix='.png'):
    """An RGB image as the content of a file."""
    return cv2.imencode(suffix, image[..., ::-1])[1].tobytes()


def filled(color, height=8, width=6):
    """An image of one color; the small classifier gives its largest channel as class."""
    return np.full((height, width, 3), color, np.uint8)


MOGACORE = (sys.executable, '-W', 'ignore', '-m', 'mogacore')


class ServerProcess:
    """A context in which `mogacore serve` or another command runs on a free port; ``url`` is its address.

    ``program`` runs in place of `mogacore`, with ``env`` as its environment variables.
    """

    def __init__(self, *arguments, command='serve', program=MOGACORE, env=None):
        self.process = subprocess.Popen(
            [*map(str, (*program, command, *arguments)), '--port', '0'],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**(os.environ if env is None else env), 'PYTHONUNBUFFERED': '1'},
        )  # fmt: skip
        greeting = self.process.stdout.readline()
        found = re.search(r'http://[\d.:]+', greeting)
        if not found:
            self.process.kill()
            raise AssertionError(greeting + self.process.communicate()[1])
        self.url = found[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def terminate(self):
        """Send SIGTERM; return exit code, stdout and stderr of the process after its end."""
        self.process.send_signal(signal.SIGTERM)
        stdout, stderr = self.process.communicate(timeout=60)
        return self.process.returncode, stdout, stderr
