"""Time of a step on CPU threads beside other busy processes, for several settings of libgomp.

python tests/stress/busy_machine.py [--others 0 2] [--network moganet_xtiny] [--size 64] [--batch-size 8] [--mode train]

Every setting has its own process, since libgomp reads its settings when it is loaded. The processes take turns: one
runs, the others sleep. "default" is torch without mogacore, "mogacore" is what ``mogacore train`` sets. The script
fails if mogacore takes longer than 1.03 times the best setting with 0 other processes (run it on an idle machine), or
than 1.5 times one thread with more.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import mogacore

SETTINGS = {
    'default': {},
    'spin 50000': {'GOMP_SPINCOUNT': '50000'},
    'spin 10000': {'GOMP_SPINCOUNT': '10000'},
    'spin 3000': {'GOMP_SPINCOUNT': '3000'},
    'spin 1000': {'GOMP_SPINCOUNT': '1000'},
    'passive': {'OMP_WAIT_POLICY': 'passive'},
    'one thread': {'OMP_NUM_THREADS': '1'},
    'mogacore': {},
}
LARGEST_IDLE, LARGEST_BUSY = 1.03, 1.5
VARIABLES = ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS')


def work(setting, network, size, batch_size, mode):
    """Run steps on request: read their number from stdin, write their seconds to stdout."""
    if setting == 'mogacore':
        mogacore.limit_spinning()
    import torch  # libgomp reads its settings now

    from mogacore.analysis.throughput import build
    from mogacore.engine.threads import CountProducts, choose_threads

    mogacore.keep_freed_memory()
    torch.manual_seed(0)
    model = build(network).train(mode == 'train')
    images = torch.randn(batch_size, 3, size, size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def step():
        with torch.set_grad_enabled(mode == 'train'):
            loss = model(images).square().mean()
        if mode == 'train':
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    if setting == 'mogacore' and mode == 'train':
        with CountProducts() as products:
            step()
        torch.set_num_threads(choose_threads(products.macs / products.calls, torch.get_num_threads()))
    print('ready', torch.get_num_threads(), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


def ask(process, num_steps):
    """Seconds of each of ``num_steps`` steps of a process."""
    process.stdin.write(f'{num_steps}\n')
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def start(setting, args):
    """Process of a setting."""
    environ = {key: value for key, value in os.environ.items() if key not in VARIABLES} | SETTINGS[setting]
    command = [sys.executable, __file__, '--work', setting, '--network', args.network, '--mode', args.mode]
    command += ['--size', str(args.size), '--batch-size', str(args.batch_size)]
    return subprocess.Popen(command, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--others', nargs='+', type=int, default=[0, 2], help='numbers of other processes')
    parser.add_argument('--network', default='moganet_xtiny')
    parser.add_argument('--size', type=int, default=64)
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--mode', choices=('infer', 'train'), default='train')
    parser.add_argument('--settings', nargs='+', choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--steps', type=int, default=3, help='steps per round')
    parser.add_argument('--out', metavar='FILE', help='append JSON lines to this file')
    parser.add_argument('--work', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.network, args.size, args.batch_size, args.mode)
        return
    with ExitStack() as stack:
        processes = {}
        for setting in args.settings:
            processes[setting] = stack.enter_context(start(setting, args))
            stack.callback(processes[setting].kill)
        threads = {name: process.stdout.readline().split()[1] for name, process in processes.items()}
        for process in processes.values():
            ask(process, 2)
        failures = []
        for number in args.others:
            seconds = {name: [] for name in processes}
            with ExitStack() as others:
                for _ in range(number):
                    burner = others.enter_context(subprocess.Popen([sys.executable, '-c', 'while True: pass']))
                    others.callback(burner.kill)
                for _ in range(args.rounds):
                    for name, process in processes.items():
                        seconds[name] += ask(process, args.steps)
            print(f'{args.network} {args.mode}, {args.batch_size} x {args.size} px, {number} other processes')
            for name, values in seconds.items():
                low, middle, high = statistics.quantiles(values, n=4)
                print(f'  {name:12} {threads[name]} threads: median {middle:.3f} s, quartiles {low:.3f} to {high:.3f}')
            if args.out:
                with Path(args.out).open('a') as file:
                    file.write(json.dumps(vars(args) | {'others': number, 'seconds': seconds}) + '\n')
            failures += check(number, {name: statistics.median(values) for name, values in seconds.items()})
    sys.exit('\n'.join(failures))


def check(number, medians):
    """Lines about goals that are missed."""
    ours, one, best = medians.get('mogacore'), medians.get('one thread'), min(medians.values())
    if ours and not number and ours > LARGEST_IDLE * best:
        return [f'idle: mogacore takes {ours / best:.2f} times the best setting']
    if ours and one and number and ours > LARGEST_BUSY * one:
        return [f'{number} other processes: mogacore takes {ours / one:.2f} times one thread']
    return []


if __name__ == '__main__':
    main()
