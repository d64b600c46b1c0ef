"""Load test of the server: python tests/stress/server_load.py MODEL.onnx [--requests 2000] [flags of mogacore serve].

Eight clients send photos of 640x480 to `POST /predict` on the loopback interface, and invalid uploads between them; the
memory of the server is measured on the way. Then the server gets SIGTERM in the middle of further requests. Prints a
JSON object; exit code 1 if a request was lost, an invalid upload was not refused, or the memory grew by over 5 %.
"""

import argparse
import http.client
import json
import sys
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from runtime.serve.serving import ServerProcess

MAX_BYTES = 1_000_000
MEMORY_GROWTH = 1.05


def make_photo(seed: int, height: int = 480, width: int = 640) -> bytes:
    """A JPEG file with smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return cv2.imencode('.jpg', cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))[1].tobytes()


def invalid_uploads(photo: bytes) -> list[bytes]:
    """Broken, oversized and other files that the server must refuse."""
    return [photo[: len(photo) // 2], b'GIF89a' + bytes(100), b'hello', photo + bytes(MAX_BYTES), b'', b'%PDF-1.7\n']


class Clients:
    """Threads that send uploads to a server and keep their connections open.

    Attributes:
        statuses: Number of answers by status.
        unanswered: Number of requests without an answer, by error.
        seconds: Time of each answered request.
        without_message: Number of refusals without a text.
    """

    def __init__(self, url: str, uploads: list[bytes], num_clients: int = 8):
        self.address = urlsplit(url).netloc
        self.uploads = uploads
        self.num_clients = num_clients
        self.statuses: Counter = Counter()
        self.unanswered: Counter = Counter()
        self.seconds: list[float] = []
        self.without_message = 0
        self._lock = threading.Lock()

    def run(self, num_requests: int | None, on_answer=lambda number: None) -> None:
        """Send the uploads in turn.

        Args:
            num_requests: Number of requests; None to continue until the server refuses connections.
            on_answer: Called with the number of answers so far.
        """
        numbers = iter(range(num_requests)) if num_requests else count()
        threads = [threading.Thread(target=self._send_all, args=(numbers, on_answer)) for _ in range(self.num_clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _send_all(self, numbers, on_answer) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        while True:
            with self._lock:
                number = next(numbers, None)
            if number is None:
                break
            start = time.perf_counter()
            try:
                connection.request('POST', '/predict', self.uploads[number % len(self.uploads)])
                answer = connection.getresponse()
                body = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                with self._lock:
                    self.unanswered[type(error).__name__] += 1
                if isinstance(error, ConnectionRefusedError):
                    break
                continue
            with self._lock:
                self.seconds.append(time.perf_counter() - start)
                self.statuses[answer.status] += 1
                if answer.status != 200 and not body.get('error'):
                    self.without_message += 1
                answered = len(self.seconds)
            on_answer(answered)
        connection.close()


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    status = Path(f'/proc/{pid}/status').read_text()
    return int(status.split('VmRSS:')[1].split()[0]) / 1024


def run_load(server: ServerProcess, num_requests: int, num_invalid: int) -> dict:
    """Send photos and invalid uploads, the latter evenly between them, and measure the memory of the server.

    Returns:
        Counts of answers, the memory after a quarter of the requests and after all, and requests per second.
    """
    photos = [make_photo(seed) for seed in range(20)]
    invalid = invalid_uploads(photos[0])
    total = num_requests + num_invalid
    places = np.linspace(0, total - 1, num_invalid).astype(int).tolist()
    uploads = [photos[i % len(photos)] for i in range(total)]
    for i, place in enumerate(places):
        uploads[place] = invalid[i % len(invalid)]
    memory: dict[int, float] = {}

    def measure(answered):
        if answered in (total // 4, total):
            memory[answered] = resident_mb(server.process.pid)

    clients = Clients(server.url, uploads)
    start = time.perf_counter()
    clients.run(total, measure)
    seconds = time.perf_counter() - start
    milliseconds = 1000 * np.array(clients.seconds)
    return {
        'statuses': dict(clients.statuses),
        'lost': total - len(clients.seconds),
        'unanswered': dict(clients.unanswered),
        'refusals_without_message': clients.without_message,
        'memory_mb': {number: round(value, 1) for number, value in memory.items()},
        'requests_per_s': round(total / seconds, 1),
        'median_ms': round(float(np.median(milliseconds)), 1),
        'p99_ms': round(float(np.quantile(milliseconds, 0.99)), 1),
    }


def stop_during_load(server: ServerProcess, after: int, already_answered: int) -> dict:
    """Send SIGTERM after a number of answers, while all clients send requests.

    Args:
        server: The server.
        after: Number of answers before the signal.
        already_answered: Number of requests that it answered before.

    Returns:
        Counts; ``lost`` is the number of requests that the server counts as answered but the clients do not.
    """
    clients = Clients(server.url, [make_photo(seed) for seed in range(20)])
    ended: list = []
    stop = threading.Thread(target=lambda: ended.extend(server.terminate()))
    clients.run(None, lambda answered: stop.start() if answered == after else None)
    stop.join()
    exit_code, stdout, stderr = ended
    counted = int(stdout.split('stopped after ')[1].split()[0]) - already_answered
    return {
        'exit_code': exit_code, 'statuses': dict(clients.statuses), 'lost': counted - len(clients.seconds),
        'refused': dict(clients.unanswered), 'stderr': stderr,
    }  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the test and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help='exported file')
    parser.add_argument('--requests', type=int, default=2000)
    parser.add_argument('--invalid', type=int, default=50)
    args, flags = parser.parse_known_args(argv)
    with ServerProcess(args.model, '--max-bytes', MAX_BYTES, *flags) as server:
        load = run_load(server, args.requests, args.invalid)
        stop = stop_during_load(server, after=100, already_answered=sum(load['statuses'].values()))
    print(json.dumps({'model': args.model, 'load': load, 'sigterm': stop}, indent=2))
    return 0 if is_passed(load, stop, args.requests, args.invalid) else 1


def is_passed(load: dict, stop: dict, num_requests: int, num_invalid: int) -> bool:
    """Whether no request was lost, all invalid uploads were refused, and the memory did not grow."""
    refused = sum(number for status, number in load['statuses'].items() if 400 <= status < 500)
    first, last = load['memory_mb'].values()
    return (
        load['statuses'].get(200) == num_requests
        and refused == num_invalid
        and not load['refusals_without_message']
        and last <= MEMORY_GROWTH * first
        and stop['lost'] == 0
        and stop['exit_code'] == 0
        and set(stop['statuses']) == {200}
        and not stop['stderr']
    )


if __name__ == '__main__':
    sys.exit(main())
