"""Every command that loads a weight file refuses each broken one in one line, without a traceback or a hang."""

import signal
import time

import pytest
import torch
from broken_containers import make
from tiny_project import inside_project

from mogacore.checkpoint import read
from mogacore.cli import main as command

pytest.importorskip('mmpretrain')
LIMIT_S = 60  # per file; more than the slowest machine needs


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    with inside_project(tmp_path_factory.mktemp('project')) as folder:
        yield folder


def arguments(kind, path):
    image = 'data/val/3/a.png'
    return {
        'convert': ['convert', path, 'out.pth', '--force'],
        'infer': ['infer', 'tiny.py', path, image, '--out-dir', 'out', '--device', 'cpu'],
        'test': ['test', 'tiny.py', path, '--work-dir', 'tested', '--cfg-options', 'log_level=ERROR'],
        'resume': ['train', 'tiny.py', '--work-dir', 'resumed', '--resume', path, '--cfg-options', 'log_level=ERROR'],
        'load_from': ['train', 'tiny.py', '--work-dir', 'new', '--cfg-options', f'load_from={path}', 'log_level=ERROR'],
    }[kind]


def call(kind, path):
    """Exit code of the command, interrupted if it hangs."""

    def interrupt(*_):
        raise TimeoutError(f'{kind} {path} hangs')

    old = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(LIMIT_S)
    try:
        with pytest.raises(SystemExit) as leave:
            command.main(list(map(str, arguments(kind, path))))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    return leave.value.code or 0


@pytest.mark.parametrize('kind', ['convert', 'infer', 'test', 'load_from', 'resume'])
def test_the_unbroken_file_is_accepted(project, kind, tmp_path):
    path = tmp_path / 'state.pth'
    torch.save(read(project / 'trained' / 'epoch_1.pth'), path)
    assert call(kind, path) == 0


def test_every_broken_file_is_refused_in_one_line(project, tmp_path, capsys):
    state = read(project / 'trained' / 'epoch_1.pth')
    slots = state['optimizer']['state']
    state['optimizer']['state'] = {0: slots[0]}  # the optimizer creates the others; small files are read sooner
    cases = make(tmp_path, state)
    assert len(cases) >= 200
    wrong, start = [], time.perf_counter()
    for case in cases:
        try:
            code = call(case.command, case.path)
        except BaseException as error:  # a traceback
            code = f'{type(error).__name__}: {error}'
        lines = capsys.readouterr().err.strip().splitlines()
        if code != 2 or len(lines) != 1 or not lines[0].startswith('error: ') or len(lines[0]) > 1000:
            wrong.append((case.command, case.name, code, lines[-3:]))
    print(f'{len(cases)} files in {time.perf_counter() - start:.1f} s')
    assert not wrong, f'{len(wrong)} of {len(cases)}:' + ''.join(f'\n{line}' for line in wrong)
