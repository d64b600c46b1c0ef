"""Averages of weights, by hand, and the statistics of batch norms, by brute force over the data."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATA_SAMPLERS, DATASETS, MODELS
from torch.utils.data import BatchSampler, Dataset

from mogacore.engine.averaging import average, estimate
from mogacore.errors import UserError


def save(path, weights, model=None, **more):
    meta = {} if model is None else dict(cfg=f'lr = 1\nmodel = {model}\n')
    torch.save(dict(meta=meta, state_dict=weights, **more), path)
    return path


def tensors(*values, count=0, dtype=torch.float32):
    return {'layer.weight': torch.tensor(values, dtype=dtype), 'bn.num_batches_tracked': torch.tensor(count)}


def test_the_average_is_the_mean_and_integers_are_those_of_the_last(tmp_path):
    values = [(1.0, -2.0, 0.1), (4.0, 0.0, 0.2), (7.0, 5.0, 0.4)]
    paths = [save(tmp_path / f'{n}.pth', tensors(*row, count=10 + n), "dict(type='A')") for n, row in enumerate(values)]
    found = average(paths)
    torch.testing.assert_close(found['layer.weight'], torch.tensor([4.0, 1.0, 0.7 / 3]))
    assert found['bn.num_batches_tracked'] == 12
    assert found['layer.weight'].dtype == torch.float32


def test_sums_in_half_precision_do_not_overflow(tmp_path):
    paths = [save(tmp_path / f'{n}.pth', tensors(60000.0, 1.0, dtype=torch.float16)) for n in range(3)]
    assert average(paths)['layer.weight'].tolist() == [60000.0, 1.0]


def test_files_with_two_sets_give_the_chosen_one(tmp_path):
    paths = [
        save(tmp_path / f'{n}.pth', tensors(2.0 + n), ema_state_dict={'module.layer.weight': torch.tensor([10.0 + n])})
        for n in range(2)
    ]
    assert average(paths)['layer.weight'].item() == 2.5
    assert average(paths, ema=False)['layer.weight'].item() == 10.5


@pytest.mark.parametrize(
    'other, model, message',
    [
        ({'layer.weight': torch.ones(1)}, None, 'differ in bn.num_batches_tracked'),
        (tensors(1.0) | {'head.bias': torch.ones(1)}, None, 'differ in head.bias'),
        (tensors(1.0, 2.0), None, r'layer.weight is torch.float32 \(2,\) in .*b.pth, but .* \(1,\) in .*a.pth'),
        (tensors(1, dtype=torch.int64), None, 'layer.weight is torch.int64'),
        (tensors(1.0), "dict(type='A', depth=3)", 'b.pth has another model config than .*a.pth'),
    ],
)
def test_other_models_are_refused(other, model, message, tmp_path):
    paths = [save(tmp_path / 'a.pth', tensors(1.0), "dict(type='A')"), save(tmp_path / 'b.pth', other, model)]
    with pytest.raises(UserError, match=message):
        average(paths)


def test_the_text_of_a_config_is_never_executed(tmp_path):
    evil = f"open({str(tmp_path / 'made')!r}, 'w')"
    average([save(tmp_path / f'{n}.pth', tensors(1.0), evil) for n in range(2)])
    assert not (tmp_path / 'made').exists()


def test_one_file_is_no_average(tmp_path):
    with pytest.raises(UserError, match='needs at least two checkpoints, but there is 1'):
        average([save(tmp_path / 'a.pth', tensors(1.0))])


DATA = np.random.default_rng(0).normal(3.0, 2.0, (24, 2)).astype(np.float32)


@DATASETS.register_module()
class TwoNumbers(Dataset):
    def __len__(self):
        return len(DATA)

    def __getitem__(self, index):
        return dict(inputs=torch.from_numpy(DATA[index]))


@MODELS.register_module()
class TwoNorms(BaseModel):
    """``frozen`` is in eval mode during the training, as a norm with ``norm_eval``."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.bn = torch.nn.BatchNorm1d(2)
        self.frozen = torch.nn.BatchNorm1d(2)

    def train(self, mode=True):
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.frozen(self.bn(self.layer(torch.stack(inputs)))).sum())


@DATA_SAMPLERS.register_module()
class NamedBatches(BatchSampler):
    """A batch sampler of a config, as the one that groups images by aspect ratio."""


@pytest.mark.parametrize('batch_size, more', [
    (24, {}), (8, {}), (8, dict(batch_sampler=dict(type='NamedBatches', drop_last=False))),
])  # fmt: skip
def test_statistics_are_those_of_the_data_under_the_averaged_weights(batch_size, more, tmp_path):
    (tmp_path / 'config.py').touch()
    cfg = Config(
        dict(
            model=dict(type='TwoNorms'),
            train_dataloader=dict(
                batch_size=batch_size, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(type='TwoNumbers'), **more,
            ),
        ),
        filename=tmp_path / 'config.py',
    )  # fmt: skip
    weights = TwoNorms().state_dict()
    weights |= {'bn.running_mean': torch.full((2,), 99.0), 'frozen.running_mean': torch.full((2,), 5.0)}
    found = estimate(cfg, weights, device='cpu')
    outputs = DATA.astype(float) @ weights['layer.weight'].numpy().T + weights['layer.bias'].numpy()
    batches = outputs.reshape(-1, batch_size, 2)
    np.testing.assert_allclose(found['bn.running_mean'], outputs.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found['bn.running_var'], batches.var(1, ddof=1).mean(0), rtol=1e-5)
    assert found['frozen.running_mean'].tolist() == [5.0, 5.0]
    assert torch.equal(found['layer.weight'], weights['layer.weight'])
