"""What ``mogacore.keep_freed_memory()`` gains, at several batch sizes.

python tests/stress/allocator_gain.py [--networks moganet_xtiny moganet_small] [--modes infer] [--batch-sizes 1 4 8]

Two processes take turns, one with the setting and one without. Times are processor time, of all threads and of the
kernel, so that other programs on the machine change them little.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys

import torch

import mogacore
from mogacore.analysis.throughput import build
from mogacore.engine.devices import describe_machine


def work(network, mode, batch_size):
    """Run a step for each line of stdin, and write its processor time and the kernel's share, in seconds."""
    torch.manual_seed(0)
    model = build(network).train(mode == 'train')
    images = torch.randn(batch_size, 3, 224, 224)
    for _ in sys.stdin:
        before = resource.getrusage(resource.RUSAGE_SELF)
        with torch.set_grad_enabled(mode == 'train'):
            loss = model(images).square().mean()
        if mode == 'train':
            loss.backward()
            model.zero_grad()
        after = resource.getrusage(resource.RUSAGE_SELF)
        system = after.ru_stime - before.ru_stime
        print(json.dumps([after.ru_utime - before.ru_utime + system, system]), flush=True)


def ask(process):
    """Times of the next step of a process."""
    process.stdin.write('step\n')
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def compare(network, mode, batch_size, rounds):
    """Medians of both processes, in ms, and the median ratio of a round."""
    command = [sys.executable, __file__, '--work', network, mode, str(batch_size)]
    pipes = dict(text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    processes = [subprocess.Popen([*command, how], **pipes) for how in ('give back', 'keep')]
    for process in processes:
        ask(process), ask(process)
    times = [[ask(process) for process in processes] for _ in range(rounds)]
    for process in processes:
        process.stdin.close()
        process.wait()
    ratio = statistics.median(one[0] / other[0] for one, other in times)
    given, kept = zip(*times, strict=True)
    given, kept = ([1e3 * statistics.median(row[i] for row in rows) for i in (0, 1)] for rows in (given, kept))
    print(
        f'{network} {mode} batch {batch_size}: {given[0]:.0f} ms, of which kernel {given[1]:.0f}; with memory kept '
        f'{kept[0]:.0f} ms, of which kernel {kept[1]:.0f}; ratio {ratio:.2f}',
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--networks', nargs='+', default=['moganet_xtiny', 'moganet_small'])
    parser.add_argument('--modes', nargs='+', default=['infer', 'train'], choices=('infer', 'train'))
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=[1, 4, 8])
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--work', nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        network, mode, batch_size, how = args.work
        if how == 'keep':
            assert mogacore.keep_freed_memory()
        work(network, mode, int(batch_size))
        return
    print(describe_machine('cpu'))
    for network in args.networks:
        for mode in args.modes:
            for batch_size in args.batch_sizes:
                compare(network, mode, batch_size, args.rounds)


if __name__ == '__main__':
    main()
