"""The command `mogacore serve` as a process: load, limits on the wire, its end, and user errors."""

import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest

pytest.importorskip('fastapi')
pytest.importorskip('onnx')
from onnx_files import write_classifier, write_detector
from runtime.serve.serving import ServerProcess, encode, filled
from stress.server_load import MAX_BYTES, is_passed, run_load, stop_during_load

from mogacore.cli.serve import main
from mogacore.errors import UserError
from mogacore.images import LIMIT_VARIABLE


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp('model') / 'colors.onnx')


def test_no_request_is_lost_under_load_nor_when_the_server_is_stopped(model):
    with ServerProcess(model, '--threads', 1, '--max-bytes', MAX_BYTES) as server:
        load = run_load(server, num_requests=200, num_invalid=12)
        stop = stop_during_load(server, after=40, already_answered=sum(load['statuses'].values()))
    load['memory_mb'] = {0: 1, 1: 1}  # so few requests say nothing about it
    assert is_passed(load, stop, 200, 12), (load, stop)
    assert stop['refused']['ConnectionRefusedError'] == 8


def raw(server, *parts, timeout=30):
    """Send bytes as they are; return the connection and the status of the answer."""
    host, port = urlsplit(server.url).netloc.split(':')
    connection = socket.create_connection((host, int(port)), timeout)
    for part in parts:
        connection.sendall(part)
    return connection


def answer(connection):
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response, json.loads(response.read())


def head(*lines):
    return '\r\n'.join(['POST /predict HTTP/1.1', 'Host: x', *lines, '', '']).encode()


@pytest.fixture(scope='module')
def strict_server(model):
    """A server for one request at a time, which has a second for its body."""
    options = ('--threads', 1, '--max-queue', 1, '--max-bytes', 5000, '--body-timeout-s', 1)
    with ServerProcess(model, *options) as server:
        yield server


def test_long_body_is_refused_before_it_is_sent(strict_server):
    response, body = answer(raw(strict_server, head('Content-Length: 1000000000000')))
    assert response.status == 413 and 'larger than 5,000' in body['error']


def test_request_beyond_the_limit_is_refused_and_a_slow_body_gives_up_its_place(strict_server):
    slow = raw(strict_server, head('Content-Length: 1000'), b'x')
    while True:  # until the server has seen the slow request
        response, body = answer(raw(strict_server, head('Content-Length: 1000')))
        if response.status == 503:
            break
    assert response.getheader('Retry-After') == '1' and 'try again' in body['error']
    response, body = answer(slow)
    assert response.status == 408 and 'within 1 seconds' in body['error']
    content = encode(filled((1, 2, 3)))
    response, body = answer(raw(strict_server, head(f'Content-Length: {len(content)}'), content))
    assert response.status == 200 and body['prediction']['pred_class'] == 'blue'


def test_client_that_hangs_up_leaves_no_error_in_the_log(model):
    with ServerProcess(model, '--threads', 1) as server:
        raw(server, head('Content-Length: 1000'), b'x').close()
        content = encode(filled((1, 2, 3)))
        raw(server, head(f'Content-Length: {len(content)}'), content).close()
        response, _ = answer(raw(server, head(f'Content-Length: {len(content)}'), content))
        assert response.status == 200
        probe = http.client.HTTPConnection(urlsplit(server.url).netloc)
        probe.request('HEAD', '/v2/health')
        response = probe.getresponse()
        assert response.status == 200 and response.read() == b'' and int(response.getheader('Content-Length')) > 0
        probe.close()
        exit_code, stdout, stderr = server.terminate()
    assert exit_code == 0 and stdout.startswith('stopped after ') and stderr == ''


def test_address_in_use_and_missing_file_are_user_errors(model, tmp_path, monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, '1000')
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as raised:
            main([str(model), '--port', str(port)])
    assert str(raised.value) == (
        f'cannot listen on 127.0.0.1:{port} (Address already in use): choose another --host or --port'
    )
    for arguments, message in (
        (['--port', '70000'], '--port 70000 is out of range: use 0 to 65535'),
        (['--host', 'x' * 70], 'cannot listen on x'),
    ):
        with pytest.raises(UserError, match=message):
            main([str(model), *arguments])
    with pytest.raises(UserError, match=r'none\.onnx'):
        main([str(tmp_path / 'none.onnx'), '--port', '0'])


@pytest.mark.parametrize(
    ('write', 'arguments', 'message'),
    [
        (write_classifier, ['--score-thr', '0.5'], '--score-thr 0.5 has no effect on models for classification'),
        (write_detector, ['--max-batch', '4'], '--max-batch 4 has no effect on files that take one image'),
        (write_detector, ['--max-delay-ms', '0'], '--max-delay-ms 0.0 has no effect on files that take one'),
    ],
)
def test_an_option_without_effect_on_all_models_is_refused(write, arguments, message, tmp_path, monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, '1000')
    path = write(tmp_path / 'model.onnx')
    with pytest.raises(UserError, match=message):
        main([str(path), '--port', '0', '--threads', '1', *arguments])
