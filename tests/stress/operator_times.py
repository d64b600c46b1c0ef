"""Time of each kind of operator in networks, per image and per multiply-add.

python tests/stress/operator_times.py moganet_small timm:convnext_tiny [--mode train] [--batch-sizes 1 4 8 16] [--keep]
python tests/stress/operator_times.py moganet_small timm:convnext_tiny --threads 1 2 --batch-sizes 1

By default, times are processor time on one thread, so that other programs on the machine change them little. With
--threads they are those of a clock, to see which operators gain from more threads; the machine must be idle.
"system" is the share of the kernel, mostly page faults of newly allocated memory. For AVX2 on a processor with AVX-512,
set ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2; the last one is for linear layers.
"""

import argparse
import json
import os
import resource
import time
from collections import Counter
from itertools import product
from statistics import median

os.environ['OMP_NUM_THREADS'] = '1'

import torch  # after the number of threads
from torch.utils._python_dispatch import TorchDispatchMode

from mogacore.analysis.complexity import count_macs
from mogacore.analysis.throughput import MODES, build
from mogacore.engine.devices import describe_machine
from mogacore.process import keep_freed_memory

KINDS = {
    'native_batch_norm': 'norm', 'native_layer_norm': 'norm', 'cudnn_batch_norm': 'norm', 'native_group_norm': 'norm',
    'native_batch_norm_backward': 'norm', 'native_layer_norm_backward': 'norm', 'var_mean': 'norm',
    'gelu': 'activation', 'gelu_': 'activation', 'gelu_backward': 'activation', 'silu': 'activation',
    'silu_': 'activation', 'silu_backward': 'activation', 'mm': 'pointwise', 'addmm': 'pointwise', 'bmm': 'pointwise',
    'clone': 'copy', 'copy_': 'copy', '_to_copy': 'copy', 'cat': 'copy', 'constant_pad_nd': 'copy',
    'mul': 'product or sum', 'mul_': 'product or sum', 'add': 'product or sum', 'add_': 'product or sum',
    'addcmul': 'product or sum', 'addcmul_': 'product or sum', 'sum': 'reduction', 'mean': 'reduction',
}  # fmt: skip


def kind_of(func, args):
    """Kind of an operator; convolutions, with an activation function or not, are told apart by their weight."""
    name = func.overloadpacket.__name__
    if name not in ('convolution', 'convolution_backward', '_convolution_pointwise'):
        return KINDS.get(name, 'other')
    weight = args[2] if name == 'convolution_backward' else args[1]
    shape = 'depthwise' if weight.shape[1] == 1 else 'pointwise' if weight.shape[2:].numel() == 1 else 'dense'
    return shape + (' backward' if name == 'convolution_backward' else '')


class OperatorTimes(TorchDispatchMode):
    """Adds up the time of each kind of operator, in seconds of ``clock``."""

    def __init__(self, clock, detail=False):
        super().__init__()
        self.seconds, self.calls, self.clock, self.detail = Counter(), Counter(), clock, detail

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        start = self.clock()
        out = func(*args, **kwargs or {})
        kind = kind_of(func, args)
        if self.detail:
            shapes = [tuple(a.shape) for a in args if isinstance(a, torch.Tensor)]
            kind += f' {func.overloadpacket.__name__} {shapes}'
        self.seconds[kind] += self.clock() - start
        self.calls[kind] += 1
        return out


def step_of(model, images, mode):
    """Function that runs one forward pass, or a forward and backward pass."""

    def infer():
        with torch.no_grad():  # in inference mode, composite operators would be measured as one
            model(images)

    def train():
        model(images).square().mean().backward()
        model.zero_grad(set_to_none=True)

    return train if mode == 'train' else infer


def profile(name, model, batch_size, mode, rounds, detail, clock):
    """Medians over the rounds, in ms per image."""
    images = torch.randn(batch_size, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    macs = count_macs(model.eval(), images[:1])
    run = step_of(model.train(mode == 'train'), images, mode)
    run()
    run()
    totals, systems, kinds = [], [], []
    for _ in range(rounds):
        system, start = resource.getrusage(resource.RUSAGE_THREAD).ru_stime, clock()
        run()
        totals.append(clock() - start)
        systems.append(resource.getrusage(resource.RUSAGE_THREAD).ru_stime - system)
        with OperatorTimes(clock, detail) as times:
            run()
        kinds.append(times.seconds)
    scale = 1e3 / batch_size
    row = {'network': name, 'mode': mode, 'batch_size': batch_size, 'ms': median(totals) * scale}
    row |= {'ms_per_gmac': row['ms'] / macs * 1e9, 'system': median(systems) * scale}
    row['kinds'] = {kind: median(seconds[kind] for seconds in kinds) * scale for kind in kinds[0]}
    row['python'] = row['ms'] - sum(row['kinds'].values())
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('networks', nargs='*', default=['moganet_small', 'timm:convnext_tiny'])
    parser.add_argument('--mode', choices=MODES, default='infer')
    parser.add_argument('--batch-sizes', nargs='+', type=int, default=[1, 4, 8, 16])
    parser.add_argument('--threads', nargs='+', type=int, help='numbers of threads, one after the other, by the clock')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--keep', action='store_true', help='keep freed memory, as mogacore train does')
    parser.add_argument('--detail', action='store_true', help='one line per operator and shapes')
    parser.add_argument('--out', metavar='FILE', help='JSON lines')
    args = parser.parse_args()
    if args.keep:
        assert keep_freed_memory()
    torch.manual_seed(0)
    models = {name: build(name) for name in args.networks}
    print(f'{describe_machine("cpu")}, {torch.backends.cpu.get_cpu_capability()}, ONEDNN_MAX_CPU_ISA='
          f'{os.environ.get("ONEDNN_MAX_CPU_ISA", "all")}, keep {args.keep}')  # fmt: skip
    clock = time.perf_counter if args.threads else time.thread_time
    for batch_size, (name, model), threads in product(args.batch_sizes, models.items(), args.threads or [1]):
        torch.set_num_threads(threads)
        row = {'threads': threads, **profile(name, model, batch_size, args.mode, args.rounds, args.detail, clock)}
        kinds = sorted(row['kinds'].items(), key=lambda item: -item[1])
        print(f'{name} {args.mode} batch {batch_size}, threads {threads}: {row["ms"]:.1f} ms per image, '
              f'{row["ms_per_gmac"]:.2f} ms per GMAC, system {row["system"]:.1f}, outside operators '
              f'{row["python"]:.1f}')  # fmt: skip
        separator = '\n    ' if args.detail else ', '
        print('    ' + separator.join(f'{kind} {ms:.2f}' for kind, ms in kinds), flush=True)
        if args.out:
            with open(args.out, 'a') as file:
                file.write(json.dumps(row) + '\n')


if __name__ == '__main__':
    main()
