"""Runs commands of mogacore in forks of this process, which has already imported the libraries.

A fork has its own process group, so that everything it leaves behind can be found.
"""

import ctypes
import multiprocessing.util
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from mogacore.errors import run

LIMIT_S = 300
PR_SET_PDEATHSIG = 1
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000


class Command:
    """A running command.

    Args:
        main: Function of the command, as ``mogacore.cli.train.main``.
        argv: Its arguments.
        log: Its output goes to LOG.out and LOG.err.
        before: Called in the new process before the command; may change limits, mounts and signals.
    """

    def __init__(self, main, argv, log, before=None):
        self.out, self.err = Path(f'{log}.out'), Path(f'{log}.err')
        self.code = self.cpu_s = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(main, argv, before)
        os.setpgid(self.pid, self.pid)

    def _run(self, main, argv, before):
        code = 70
        try:
            os.setpgid(0, 0)
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            for path, number in ((os.devnull, 0), (self.out, 1), (self.err, 2)):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
                os.dup2(descriptor, number)
                os.close(descriptor)
            if before is not None:
                before()
            try:
                run(main, argv)
            except SystemExit as leave:
                code = leave.code or 0
            except BaseException:
                code = 1
                traceback.print_exc()
            multiprocessing.util._exit_function()  # as at the end of an interpreter: joins child processes
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def is_running(self):
        if self.code is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                self.cpu_s = usage.ru_utime + usage.ru_stime
        return self.code is None

    def used_cpu_s(self):
        """Seconds of the processor that the running process itself has used."""
        fields = Path(f'/proc/{self.pid}/stat').read_text().rpartition(')')[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def wait(self, limit_s=LIMIT_S):
        """Wait for the end; returns the exit code, negative for a signal.

        Raises:
            TimeoutError: If it still runs after ``limit_s``; it is killed with all of its processes.
        """
        end = time.monotonic() + limit_s
        while self.is_running():
            if time.monotonic() > end:
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f'still running after {limit_s} s')
            time.sleep(0.01)
        return self.code

    def wait_for(self, condition, limit_s=LIMIT_S):
        """Wait until a condition holds while the command runs; returns whether it does."""
        end = time.monotonic() + limit_s
        while self.is_running() and time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.003)
        return False

    def kill(self):
        """Kill the process itself, not its children; returns whether it was still running."""
        if not self.is_running():
            return False
        os.kill(self.pid, signal.SIGKILL)
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code == -signal.SIGKILL

    def left(self, grace_s=5):
        """Processes of the group that still exist ``grace_s`` after the end."""
        end = time.monotonic() + grace_s
        while (pids := group(self.pid)) and time.monotonic() < end:
            time.sleep(0.02)
        return pids

    def errors(self):
        """Lines on stderr."""
        return self.err.read_text(errors='replace').splitlines()


def group(pgid):
    """Processes of a group, without zombies."""
    pids = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            state, _, found = stat.read_text().rpartition(')')[2].split()[:3]
        except OSError:
            continue  # has ended
        if int(found) == pgid and state not in 'ZX':
            pids.append(int(stat.parent.name))
    return pids


def unshare(flags):
    """Move this process to namespaces of its own.

    Raises:
        OSError: If that is not permitted.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
