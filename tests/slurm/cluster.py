"""A real Slurm cluster on one machine, for tests.

Each node is a slurmd in its own mount and UTS namespaces, so that node names are host names that resolve inside jobs,
as on a real cluster. The nodes communicate over the loopback. Needs root and the Debian packages slurm-wlm and munge.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from conftest import free_ports

PROGRAMS = ('slurmctld', 'slurmd', 'munged', 'srun', 'sbatch', 'scontrol', 'unshare')
# JobRequeue, cred_expire and SlurmdTimeout reduce minutes on a real cluster to seconds.
SETTINGS = """
ClusterName=test
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
# A job's port depends on its number, which must differ from those of other test clusters on this machine.
FirstJobId={first_job}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
KillWait=20
SlurmdTimeout=15
MessageTimeout=30
ReturnToService=2
JobRequeue=1
MinJobAge=3600
"""


def why_not() -> str | None:
    """Why no cluster can be started here; None if one can."""
    missing = [name for name in PROGRAMS if which(name) is None]
    if missing:
        return f'{", ".join(missing)} not found: install slurm-wlm and munge'
    if os.geteuid() != 0:
        return 'Slurm daemons need root'
    if subprocess.run(['unshare', '--mount', '--uts', 'true'], capture_output=True).returncode:
        return 'creating namespaces is not permitted here'
    return None


def which(name):
    return shutil.which(name, path=f'{os.environ["PATH"]}:/usr/sbin:/sbin')


class Cluster:
    """Controller, munge daemon and nodes ``node1``, ``node2``, ... with their files in one folder.

    Args:
        folder: Empty folder; paths of Unix sockets in it must not exceed 108 characters.
        num_nodes: Number of nodes, each with 16 nominal CPUs.
    """

    def __init__(self, folder: Path, num_nodes: int = 2):
        self.folder = folder
        self.nodes = [f'node{number + 1}' for number in range(num_nodes)]
        self.conf = folder / 'slurm.conf'
        self.hosts = folder / 'hosts'
        self.env = {**os.environ, 'SLURM_CONF': str(self.conf)}

    def start(self):
        (self.folder / 'state').mkdir()
        (self.folder / 'munge.key').write_bytes(os.urandom(128))
        (self.folder / 'munge.key').chmod(0o400)
        # The controller gets the first port, the nodes get the others.
        ports = free_ports(1 + len(self.nodes))
        host, first_job = socket.gethostname().partition('.')[0], 1 + 50 * (ports[0] % 180)
        lines = [SETTINGS.format(folder=self.folder, host=host, ports=ports, first_job=first_job)]
        for node, port in zip(self.nodes, ports[1:], strict=True):
            (self.folder / f'spool-{node}').mkdir()
            lines.append(f'NodeName={node} NodeAddr=127.0.0.1 Port={port} CPUs=16 RealMemory=100000')
        lines.append('PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n')
        self.conf.write_text('\n'.join(lines))
        names = [f'127.0.2.{number + 1} {node}' for number, node in enumerate(self.nodes)]
        self.hosts.write_text('\n'.join([Path('/etc/hosts').read_text(), *names, '']))
        self.call(
            which('munged'), '--force', f'--key-file={self.folder}/munge.key', f'--socket={self.folder}/munge.socket',
            f'--pid-file={self.folder}/munged.pid', f'--log-file={self.folder}/munged.log',
            f'--seed-file={self.folder}/munge.seed',
        )  # fmt: skip
        self.call(which('slurmctld'), '-c')
        for node in self.nodes:
            self.start_node(node)
        self.wait_for(lambda: self.call('sinfo', '-hN', '-tidle', '-o%N').split() == self.nodes, 30, 'idle nodes')

    def start_node(self, node):
        script = 'mount --bind "$1" /etc/hosts && hostname "$2" && exec "$3" -N "$2"'
        self.call(
            'unshare', '--mount', '--uts', '--propagation', 'private',
            'bash', '-c', script, '-', self.hosts, node, which('slurmd'),
        )  # fmt: skip

    def lose_node(self, node):
        """Kill a node's slurmd and all processes of its jobs at once, like a power failure."""
        pid = int((self.folder / f'slurmd-{node}.pid').read_text())
        namespace = os.readlink(f'/proc/{pid}/ns/uts')
        for process in self._processes(lambda proc: os.readlink(proc / 'ns' / 'uts') == namespace):
            os.kill(process, signal.SIGKILL)

    def stop(self):
        """Stop everything that was started, including jobs."""
        subprocess.run(['scancel', '-Q', '-p', 'test'], env=self.env, timeout=20, check=False)
        daemons = [int(path.read_text()) for path in self.folder.glob('*.pid') if path.read_text().strip()]
        for pid in daemons:
            if f'{self.folder}' in self._command(pid) or f'SLURM_CONF={self.conf}' in self._environment(pid):
                os.kill(pid, signal.SIGKILL)
        # Any process with our hosts file among its mounts belongs to a node: job steps and their children.
        for process in self._processes(lambda proc: f'{self.hosts} /etc/hosts' in (proc / 'mountinfo').read_text()):
            os.kill(process, signal.SIGKILL)

    def call(self, *command):
        """Run a command on this cluster and return its output.

        Raises:
            RuntimeError: If it fails; the message contains the output.
        """
        # A file instead of pipes, which daemons would keep open.
        with open(self.folder / 'output', 'w+') as file:
            done = subprocess.run(
                [str(part) for part in command], env=self.env, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, timeout=60,
            )  # fmt: skip
            file.seek(0)
            output = file.read()
        if done.returncode:
            raise RuntimeError(f'{command[0]} exited with code {done.returncode}: {output}')
        return output

    def job(self, number):
        """Fields of ``scontrol show job`` by name."""
        fields = self.call('scontrol', '-o', 'show', 'job', number).split()
        return dict(field.split('=', 1) for field in fields if '=' in field)

    def wait_for(self, condition, timeout_s, what):
        """Poll until a condition is true; return its value.

        Raises:
            TimeoutError: If it is not true within ``timeout_s``.
        """
        end = time.monotonic() + timeout_s
        while not (value := condition()):
            if time.monotonic() > end:
                raise TimeoutError(f'no {what} within {timeout_s} s')
            time.sleep(0.2)
        return value

    def wait_for_state(self, number, states, timeout_s):
        self.wait_for(lambda: self.job(number)['JobState'] in states, timeout_s, f'job {number} in {states}')

    @staticmethod
    def _processes(condition):
        found = []
        for proc in Path('/proc').glob('[0-9]*'):
            try:
                if condition(proc):
                    found.append(int(proc.name))
            except OSError:
                continue  # the process has exited
        return found

    @staticmethod
    def _command(pid):
        path = Path('/proc') / str(pid) / 'cmdline'
        return path.read_bytes().replace(b'\0', b' ').decode() if path.exists() else ''

    @staticmethod
    def _environment(pid):
        path = Path('/proc') / str(pid) / 'environ'
        return path.read_bytes().replace(b'\0', b' ').decode() if path.exists() else ''
