"""Strict loading: every missing, unexpected or misshapen key is reported."""

import pytest
import torch
from weight_files import NAMES, Node, golden_shapes, model_of, prefixed, value, weights

from mogacore import checkpoint as ckpt
from mogacore.checkpoint import CheckpointError, check_gate, load_into
from mogacore.errors import UserError
from mogacore.models import MogaNet


class TestLoadInto:
    def test_matching_weights_are_loaded_completely(self, tmp_path):
        torch.save({'state_dict': prefixed(weights(1), 'module.')}, tmp_path / 'w.pth')
        model = model_of()
        report = load_into(model, tmp_path / 'w.pth')
        assert value(model.state_dict()) == 1
        assert report == ckpt.LoadReport(NAMES, (), (), (), ())

    def test_a_container_or_state_dict_in_memory_is_accepted(self):
        for source in (weights(1), {'state_dict': weights(1)}):
            model = model_of()
            load_into(model, source)
            assert value(model.state_dict()) == 1

    def test_every_mismatch_is_reported_and_nothing_is_loaded(self):
        state_dict = weights(1)
        del state_dict['head.bias']
        state_dict['neck.weight'] = torch.zeros(4)
        state_dict['head.weight'] = torch.zeros(5, 3)
        model = model_of()
        with pytest.raises(CheckpointError) as caught:
            load_into(model, state_dict)
        text = str(caught.value)
        assert '1 missing: head.bias (2, 3)' in text
        assert '1 unexpected: neck.weight (4,)' in text
        assert '1 misshapen (file vs. model): head.weight (5, 3) vs. (2, 3)' in text
        assert '\n' not in text
        assert value(model.state_dict()) == 0

    def test_allowed_mismatches_are_reported(self):
        state_dict = weights(1)
        del state_dict['head.bias']
        state_dict['neck.weight'] = torch.zeros(4)
        state_dict['head.weight'] = torch.zeros(5, 3)
        model = model_of()
        report = load_into(model, state_dict, allow_missing=['head.*'], allow_unexpected='neck.*')
        assert report.missing == ('head.bias',) and report.unexpected == ('neck.weight',)
        assert report.misshapen == (('head.weight', (5, 3), (2, 3)),)
        assert 'head.weight' not in report.loaded and 'norm4.running_mean' in report.loaded
        assert value({'w': model.state_dict()['head.weight']}) == 0
        assert value({'w': model.state_dict()['norm4.running_mean']}) == 1

    @pytest.mark.parametrize('patterns', [dict(allow_missing=['neck.*']), dict(allow_unexpected=['head.*'])])
    def test_a_pattern_allows_only_its_own_kind_and_names(self, patterns):
        state_dict = weights(1)
        del state_dict['head.bias']
        with pytest.raises(CheckpointError, match=r'1 missing: head\.bias'):
            load_into(model_of(), state_dict, **patterns)

    def test_long_lists_are_shortened(self):
        names = [f'extra{i}' for i in range(100)]
        with pytest.raises(CheckpointError, match=r'100 unexpected: extra0 .* and 95 more') as caught:
            load_into(model_of(), weights(1) | weights(1, names))
        assert len(str(caught.value)) < 400

    def test_batch_counters_may_be_missing(self):
        model = model_of((*NAMES, 'norm4.num_batches_tracked'))
        report = load_into(model, weights(1))
        assert len(report.loaded) == len(NAMES)
        assert all(bool((model.state_dict()[name] == 1).all()) for name in NAMES)

    @pytest.mark.parametrize('prefix', ['', 'backbone.'])
    def test_a_bare_trunk_accepts_a_classification_file(self, prefix):
        trunk = [name for name in NAMES if not name.startswith('head')]
        file = weights(1, [prefix + name for name in trunk] + ['head.weight', 'head.bias'])
        model = model_of(trunk)
        report = load_into(model, file)
        assert value(model.state_dict()) == 1
        assert report.dropped == ('head.weight', 'head.bias')

    def test_a_detector_accepts_the_trunk_of_a_classification_file(self):
        trunk = [f'backbone.{name}' for name in NAMES if not name.startswith('head')]
        model = model_of([*trunk, 'neck.weight'])
        report = load_into(model, weights(1), allow_missing=['neck.*'], allow_unexpected=['head.*'])
        assert set(report.loaded) == set(trunk) and report.missing == ('neck.weight',)
        with pytest.raises(CheckpointError, match=r'unexpected: head\.weight'):
            load_into(model, weights(1), allow_missing=['neck.*'])

    def test_a_file_of_another_size_is_recognized(self):
        file = {name: torch.zeros(()).expand(shape) for name, shape in golden_shapes('small').items()}
        with pytest.raises(CheckpointError, match='looks like moganet_small, the model is moganet_tiny'):
            load_into(Node(golden_shapes('tiny')), file)
        file = {f'backbone.{name}': tensor for name, tensor in file.items()}
        with pytest.raises(CheckpointError, match=r'looks like moganet_small\. Use'):
            load_into(model_of(), file)


class TestFirstConvolution:
    @pytest.mark.parametrize('old, new', [(3, 1), (3, 2), (3, 7), (1, 3), (4, 1)])
    def test_other_input_channels_are_adapted(self, old, new):
        """Summed for one channel, otherwise repeated in turn and scaled by old / new."""
        model = Node({'stem.weight': (4, new, 3, 3), 'norm.weight': (4,)})
        weight = torch.randn(4, old, 3, 3)
        report = load_into(model, {'stem.weight': weight, 'norm.weight': torch.ones(4)}, first_conv='stem')
        found = model.state_dict()
        assert report.loaded == ('stem.weight', 'norm.weight') and not report.misshapen
        assert found['norm.weight'].eq(1).all()
        for i in range(new):
            expected = weight.sum(1) if new == 1 else weight[:, i % old] * old / new
            torch.testing.assert_close(found['stem.weight'][:, i], expected)

    @pytest.mark.parametrize('shape', [(4, 3, 5, 5), (4, 3, 3, 5), (5, 3, 3, 3), (4, 3, 9), (4, 0, 3, 3)])
    def test_other_differences_are_reported(self, shape):
        model = Node({'stem.weight': (4, 1, 3, 3)})
        with pytest.raises(CheckpointError, match=r'1 misshapen .*: stem\.weight'):
            load_into(model, {'stem.weight': torch.ones(shape)}, first_conv='stem')

    def test_integers_and_missing_weights_are_reported(self):
        model = Node({'stem.weight': (4, 1, 3, 3)})
        with pytest.raises(CheckpointError, match=r'1 misshapen .*: stem\.weight'):
            load_into(model, {'stem.weight': torch.ones(4, 3, 3, 3, dtype=torch.int64)}, first_conv='stem')
        with pytest.raises(CheckpointError, match=r'1 missing: stem\.weight'):
            load_into(model, {'norm.weight': torch.ones(4)}, first_conv='stem')
        with pytest.raises(CheckpointError, match=r'1 unexpected: stem\.weight'):
            load_into(Node({'norm.weight': (4,)}), {'stem.weight': torch.ones(4, 3, 3, 3)}, first_conv='stem')

    def test_channels_of_other_layers_are_reported(self):
        model = Node({'stem.weight': (4, 3, 3, 3), 'next.weight': (4, 1, 3, 3)})
        file = {'stem.weight': torch.ones(4, 3, 3, 3), 'next.weight': torch.ones(4, 3, 3, 3)}
        for first_conv in ('stem', None):
            with pytest.raises(CheckpointError, match=r'1 misshapen .*: next\.weight'):
                load_into(model, file, first_conv=first_conv)


@pytest.mark.parametrize('name, trained_with', [('moganet_xtiny_sz224_8xbs128_ep300.pth.tar', False)])
def test_published_file_of_the_other_gate_function_is_refused(tmp_path, name, trained_with):
    arch = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), ffn_ratios=(2, 2, 2, 2))
    source = MogaNet(arch, attn_force_fp32=trained_with)
    torch.save(source.state_dict(), tmp_path / name)
    load_into(MogaNet(arch, attn_force_fp32=trained_with), tmp_path / name)
    with pytest.raises(UserError, match=rf'{name} was trained with attn_force_fp32={trained_with}, another gate'):
        load_into(MogaNet(arch, attn_force_fp32=not trained_with), tmp_path / name)
    with pytest.raises(UserError, match=f'attn_force_fp32={trained_with}'):
        check_gate(MogaNet(arch, attn_force_fp32=not trained_with), 'mogacore://moganet_xtiny')
    (tmp_path / name).rename(tmp_path / 'own.pth')
    load_into(MogaNet(arch, attn_force_fp32=not trained_with), tmp_path / 'own.pth')


@pytest.mark.parametrize(
    'name, number', [('norm1.running_var', 'inf'), ('norm1.weight', 'nan'), ('norm1.bias', '-inf')]
)
def test_weights_that_are_not_finite_are_refused(tmp_path, name, number):
    model = MogaNet(dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), ffn_ratios=(2, 2, 2, 2)))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state_dict = model.state_dict()
    state_dict[name] = torch.full_like(state_dict[name], float(number))
    torch.save({'state_dict': state_dict}, tmp_path / 'diverged.pth')
    with pytest.raises(CheckpointError, match=rf'diverged\.pth cannot be used, since {name} is {number.lstrip("-")}: '):
        load_into(model, tmp_path / 'diverged.pth')
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_shared_weights_are_checked_under_each_of_their_names():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    state_dict = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state_dict['1.weight'][0] = float('inf')
    with pytest.raises(CheckpointError, match=r'1\.weight is inf'):
        load_into(model, state_dict)
