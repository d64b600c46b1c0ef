import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mogacore.engine.hooks import ReduceLossHook


def reduce_in_process(rank, store, results):
    dist.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    outputs = {'loss': torch.tensor(1.0 + 2 * rank), 'acc': torch.tensor([10.0 * rank]), 'note': 'text'}
    ReduceLossHook().after_train_iter(None, 0, None, outputs)
    results[rank] = {name: value.item() for name, value in outputs.items() if name != 'note'}
    dist.destroy_process_group()


def test_losses_are_averaged_over_processes(tmp_path):
    with mp.get_context('spawn').Manager() as manager:
        results = manager.dict()
        mp.spawn(reduce_in_process, (tmp_path / 'store', results), nprocs=2)
        assert dict(results) == {0: {'loss': 2.0, 'acc': 5.0}, 1: {'loss': 2.0, 'acc': 5.0}}


def test_one_process_keeps_its_loss():
    outputs = {'loss': torch.tensor(3.0)}
    ReduceLossHook().after_train_iter(None, 0, None, outputs)
    assert outputs == {'loss': torch.tensor(3.0)}
