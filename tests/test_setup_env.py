"""tools/setup_env.sh in broken environments, with a stand-in for Python: nothing is ever installed."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

BASH = shutil.which('bash')
TOOLS = (
    'awk', 'bash', 'cat', 'cp', 'cut', 'dirname', 'du', 'flock', 'grep', 'ls', 'mkdir', 'nproc', 'rm', 'sed', 'sh',
    'sha256sum', 'sleep', 'tail', 'touch', 'uname',
)  # fmt: skip

# Plays both the base Python and the environment's Python, but installs nothing.
STAND_IN = f"""#!/bin/sh
echo "$*" >>"$CALLS"
case "$1 $2" in
    '-m venv') mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg" ;;
    '-m pip')
        case "$*" in
            *"${{PIP_FAILS_ON:-no call}}"*) echo 'ERROR: No matching distribution found for torch==2.11.0'; exit 1 ;;
            *'install '*) sleep 0.2; echo "gpus=${{CUDA_VISIBLE_DEVICES-unset}}" >>"$CALLS" ;;
        esac ;;
    '-W ignore') echo "${{NEEDS:-}}" ;;
    *) exec '{sys.executable}' "$@" ;;
esac
"""


def script(path, text):
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def changed_python(path, change):
    """A Python in which ``change`` is true before the script's own code runs."""
    return script(path, f"""#!/bin/sh\nexec '{sys.executable}' -c "{change}; import sys; exec(sys.argv[1])" "$2"\n""")


class Machine:
    """A fake machine: its programs, and a path for the environment that contains a space."""

    def __init__(self, folder):
        self.bin = folder / 'bin'
        self.bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            if found:
                (self.bin / tool).symlink_to(found)
        script(self.bin / 'c++', '#!/bin/sh\n')
        self.disk(free_mb=100_000)
        self.venv = folder / 'my venv'
        self.calls = folder / 'calls'
        self.calls.touch()
        self.env = dict(
            PATH=str(self.bin),
            HOME=str(folder),
            MOGACORE_VENV=str(self.venv),
            CALLS=str(self.calls),
            PYTHON=str(script(folder / 'stand-in', STAND_IN)),
        )

    def disk(self, free_mb):
        script(self.bin / 'df', f'#!/bin/sh\necho head\necho disk 1 1 {free_mb * 1024} 1% /\n')

    def start(self, *arguments, **env):
        return subprocess.Popen(
            [BASH, ROOT / 'tools' / 'setup_env.sh', *arguments], env=self.env | env, cwd=self.bin, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def set_up(self, *arguments, **env):
        process = self.start(*arguments, **env)
        stdout, stderr = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def installs(self):
        return [
            line for line in self.calls.read_text().splitlines() if line.startswith('-m pip') and ' install ' in line
        ]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def assert_one_line_error(done, message):
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith('error: '), done.stderr
    assert re.search(message, lines[0]), lines[0]


COMPILE = dict(MOGACORE_COMPILE_MMCV='1')


def test_compiler_is_needed_only_to_compile(machine):
    (machine.bin / 'c++').unlink()
    assert_one_line_error(machine.set_up(**COMPILE), r'needs a C\+\+ compiler .*Debian: g\+\+')
    assert machine.set_up().returncode == 0


def test_python_that_is_too_old_is_reported(machine, tmp_path):
    python = changed_python(tmp_path / 'python3', "import sys; sys.version_info = (3, 8, 10, 'final', 0)")
    assert_one_line_error(machine.set_up(PYTHON=str(python)), r'python3 is python3\.8: mogacore runs on 3\.10 to 3\.12')


def test_python_that_is_too_new_is_reported(machine):
    changed_python(machine.bin / 'python3', "import sys; sys.version_info = (3, 13, 0, 'final', 0)")
    assert_one_line_error(machine.set_up(PYTHON=''), r'python3 is python3\.13')


def test_missing_python_is_reported(machine):
    assert_one_line_error(machine.set_up(PYTHON=''), r'no working Python among python3\.11 .*install Python')


def test_python_that_does_not_run_is_reported(machine, tmp_path):
    shim = script(tmp_path / 'shim', '#!/bin/sh\necho "shim: not found" >&2\nexit 127\n')
    assert_one_line_error(machine.set_up(PYTHON=str(shim)), 'no working Python among .*/shim')


def test_shim_that_fails_is_skipped(machine):
    script(machine.bin / 'python3.11', '#!/bin/sh\nexit 127\n')
    script(machine.bin / 'python3.12', STAND_IN)
    done = machine.set_up(PYTHON='')
    assert done.returncode == 0, done.stderr


def test_python_without_ensurepip_is_reported(machine, tmp_path):
    python = changed_python(tmp_path / 'python3', 'import importlib.util as u; u.find_spec = lambda name: None')
    assert_one_line_error(
        machine.set_up(PYTHON=str(python)), r'cannot create virtual environments: install python3\.\d+-venv'
    )


def test_python_headers_are_needed_only_to_compile(machine, tmp_path):
    python = script(
        tmp_path / 'python3',
        f"""#!/bin/sh
code="import sys; sys.argv[1:] = sys.argv[2:]; import sysconfig; sysconfig.get_path = lambda name: '/none'; exec(CODE)"
case "$1" in -c) CODE=$2 exec '{sys.executable}' -c "import os; CODE = os.environ['CODE']; $code" - "$3" ;; esac
exec '{machine.env['PYTHON']}' "$@"
""",
    )
    python = str(python)
    assert_one_line_error(machine.set_up(PYTHON=python, **COMPILE), r'no Python\.h, .*install python3\.\d+-dev')
    assert machine.set_up(PYTHON=python).returncode == 0


def test_full_disk_is_reported_with_numbers(machine):
    machine.disk(free_mb=3000)
    assert_one_line_error(machine.set_up(), r'my venv needs \d{4} MB of disk space, but 3000 MB are free')
    assert machine.installs() == []


def test_unwritable_folder_is_reported(machine, tmp_path):
    (tmp_path / 'file').touch()
    assert_one_line_error(machine.set_up(MOGACORE_VENV=str(tmp_path / 'file' / 'venv')), 'cannot write to .*/file/venv')


def test_folder_with_other_files_is_not_touched(machine):
    machine.venv.mkdir()
    (machine.venv / 'thesis.tex').touch()
    assert_one_line_error(machine.set_up(), 'my venv is not an environment of mogacore')
    assert os.listdir(machine.venv) == ['thesis.tex']


def test_unsupported_system_is_reported(machine):
    script(machine.bin / 'uname', '#!/bin/sh\n[ "$1" = -s ] && echo Darwin || echo arm64\n')
    assert_one_line_error(machine.set_up(), 'is for Linux x86_64, this is Darwin arm64')


def test_pip_failure_is_reported_with_package_and_log(machine):
    done = machine.set_up(PIP_FAILS_ON='-r ')
    assert_one_line_error(done, r'No matching distribution found for torch==2\.11\.0 .*my venv/\.mogacore/setup\.log')


def test_second_call_does_nothing_and_returns_quickly(machine):
    done = machine.set_up()
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert re.findall(r'\[./4\]', done.stdout) == ['[1/4]', '[2/4]', '[3/4]', '[4/4]']
    installs = machine.installs()
    start = time.monotonic()
    again = machine.set_up()
    assert time.monotonic() - start < 5
    assert (again.returncode, again.stdout, again.stderr) == (0, '', '')
    assert machine.installs() == installs
    assert not (machine.venv / '.mogacore' / 'tmp').exists()


def test_mmcv_is_built_in_isolation_and_the_project_is_installed_last(machine):
    machine.set_up()
    last = [re.sub('.* (-r|-e) ', '', line) for line in machine.installs()]
    locks = f'{ROOT}/locks/requirements'
    assert last == [f'{machine.venv}/.mogacore/build.txt', f'{locks}.txt', f'{locks}-mmcv.txt', str(ROOT)]
    isolated = ['--no-build-isolation' not in line for line in machine.installs()]
    assert isolated == [True, False, True, False]  # the first installs wheels only


def test_the_stand_ins_are_installed_for_the_libraries_own_tools(machine):
    machine.set_up()
    calls = machine.calls.read_text()
    assert '-m mogacore.operators --install' in calls and '-m mogacore.coco_eval --install' in calls


def test_development_packages_are_installed_on_request(machine):
    machine.set_up()
    assert 'requirements-dev.txt' not in machine.calls.read_text()
    done = machine.set_up('--dev')
    assert done.returncode == 0, done.stderr
    assert '[dev]' in done.stdout and machine.installs()[-1].endswith(
        f'requirements-dev.txt -r {ROOT}/locks/requirements-serve.txt'
    )
    assert machine.set_up('--dev').stdout == ''


def test_interrupted_setup_resumes_where_it_stopped(machine):
    assert machine.set_up(PIP_FAILS_ON='requirements-mmcv.txt').returncode == 2
    machine.calls.write_text('')
    done = machine.set_up()
    assert done.returncode == 0, done.stderr
    assert re.findall(r'\[./4\]', done.stdout) == ['[1/4]', '[3/4]', '[4/4]']
    assert len(machine.installs()) == 2


def test_two_concurrent_calls_do_the_work_once(machine):
    if not shutil.which('flock'):
        pytest.skip('no flock')
    processes = [machine.start() for _ in range(2)]
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    assert len(machine.installs()) == 4


def test_compiling_for_a_gpu_without_nvcc_is_rejected(machine):
    assert_one_line_error(machine.set_up(NEEDS='nvcc of CUDA 13.0', **COMPILE), 'needs nvcc of CUDA 13.0 .*unset it')
    assert machine.set_up().returncode == 0


def test_mmcv_is_compiled_on_request_and_stays_compiled(machine):
    machine.set_up()
    done = machine.set_up(**COMPILE)
    assert done.returncode == 0, done.stderr
    assert '--no-build-isolation --no-cache-dir --force-reinstall' in machine.installs()[-1]
    installs = machine.installs()
    assert machine.set_up().stdout == '' and machine.set_up(**COMPILE).stdout == ''
    assert machine.installs() == installs


def test_sourcing_the_script_activates_the_environment(machine):
    done = subprocess.run(
        [BASH, '-c', 'source "$1"; echo; echo "$root"; command -v python', 'bash', ROOT / 'tools' / 'setup_env.sh'],
        env=machine.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines()[-2:] == [str(ROOT), str(machine.venv / 'bin' / 'python')], done.stderr


def requirements_of(path):
    """{(name, version, marker or '')} of a requirements file, and the hashes of each name with its version."""
    entries, hashes = set(), {}
    for line in path.read_text().replace('\\\n', ' ').splitlines():
        line = re.sub(r'(^|\s)#.*', '', line).strip()
        if not line:
            continue
        requirement, *found = line.split(' --hash=')
        requirement = Requirement(requirement)
        marker = str(requirement.marker or '').replace('python_full_version', 'python_version')
        entries.add((canonicalize_name(requirement.name), str(requirement.specifier), marker))
        hashes.setdefault((canonicalize_name(requirement.name), str(requirement.specifier)), []).extend(found)
    return entries, hashes


@pytest.mark.parametrize('name', sorted(path.name for path in ROOT.glob('requirements*.txt')))
def test_locked_requirements_are_the_pinned_ones_each_with_hashes(name):
    wanted, _ = requirements_of(ROOT / name)
    locked, hashes = requirements_of(ROOT / 'locks' / name)
    assert locked == wanted, 'run tools/lock_requirements.sh'
    for found in hashes.values():
        assert found and all(re.fullmatch(r'sha256:[0-9a-f]{64}', one.strip()) for one in found)


def test_every_download_is_checked_against_its_hash(machine):
    machine.set_up('--dev')
    files = [line for line in machine.installs() if ' -r ' in line]
    assert len(files) == 4 and all('--require-hashes' in line for line in files)
    assert [line for line in machine.installs() if line not in files] == [machine.installs()[3]]  # the checkout
    builders = (machine.venv / '.mogacore' / 'build.txt').read_text()
    assert re.findall(r'(\w+)==', builders) == ['setuptools', 'wheel']
