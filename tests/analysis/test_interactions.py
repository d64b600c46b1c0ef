"""Interactions compared with brute force over all subsets, and interrupted runs that resume."""

import dataclasses
import json
import math
import runpy
import sys
from itertools import combinations

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_ARCH
from torch import nn

from mogacore.analysis import interactions as module
from mogacore.analysis.classifiers import ModelSpec, parse_model, parse_models
from mogacore.analysis.interactions import (
    PRESETS,
    MaskedScores,
    PartialResults,
    Settings,
    bootstrap_error,
    choose_images,
    count_pairs,
    draw_contexts,
    draw_pairs,
    interactions,
    measure,
    measure_masking,
    orders_of,
    sample_contexts,
    sample_pairs,
    score,
    strength,
)
from mogacore.errors import UserError
from mogacore.models import MogaNetClassifier

PLAYERS = 6


def random_game(seed, players=PLAYERS):
    """A game with a random value for every subset."""
    table = np.random.default_rng(seed).standard_normal(2**players)
    return lambda kept: table[kept @ (1 << np.arange(players))]


def every_context(players, pair, order):
    """All contexts of a pair, (number, players) bool."""
    others = [player for player in range(players) if player not in pair]
    chosen = list(combinations(others, order))
    contexts = np.zeros((len(chosen), players), bool)
    for row, members in zip(contexts, chosen, strict=True):
        row[list(members)] = True
    return contexts


def exact(value, pair, order, players=PLAYERS):
    """I^(m)(i, j), averaged over all contexts."""
    return interactions(value, np.array([pair]), every_context(players, pair, order)[None])[0]


def v(value, *members):
    kept = np.zeros((1, PLAYERS), bool)
    kept[0, list(members)] = True
    return value(kept)[0]


def attribution(value, i, order):
    """phi^(m)(i): mean contribution of i to all sets of m others."""
    others = [player for player in range(PLAYERS) if player != i]
    return np.mean([v(value, i, *members) - v(value, *members) for members in combinations(others, order)])


@pytest.mark.parametrize('order', range(PLAYERS - 1))
def test_interaction_is_the_mean_second_difference(order):
    """The definition, without the code under test."""
    value = random_game(0)
    others = [player for player in range(PLAYERS) if player not in (1, 4)]
    by_hand = np.mean(
        [v(value, 1, 4, *s) - v(value, 1, *s) - v(value, 4, *s) + v(value, *s) for s in combinations(others, order)]
    )
    assert exact(value, (1, 4), order) == pytest.approx(by_hand, abs=1e-9)


def test_efficiency():
    value, n = random_game(1), PLAYERS
    singles = sum(v(value, i) - v(value) for i in range(n))
    pairs = sum(
        (n - 1 - m) / (n * (n - 1)) * exact(value, (i, j), m)
        for i in range(n) for j in range(n) if i != j for m in range(n - 1)
    )  # fmt: skip
    assert v(value) + singles + pairs == pytest.approx(v(value, *range(n)), abs=1e-9)


def test_marginal_attribution():
    value = random_game(2)
    for i in range(PLAYERS):
        for order in range(PLAYERS - 1):
            mean = np.mean([exact(value, (i, j), order) for j in range(PLAYERS) if j != i])
            step = attribution(value, i, order + 1) - attribution(value, i, order)
            assert step == pytest.approx(mean, abs=1e-9)


def test_shapley_interaction_is_the_mean_over_the_orders():
    """The pair as one player among n - 1, compared to each player in a game without the other."""
    value, n, (i, j) = random_game(3), PLAYERS, (0, 5)
    others = [player for player in range(n) if player not in (i, j)]

    def shapley(joining):
        return sum(
            math.factorial(len(s)) * math.factorial(n - 2 - len(s)) / math.factorial(n - 1)
            * (v(value, *joining, *s) - v(value, *s))
            for size in range(n - 1) for s in combinations(others, size)
        )  # fmt: skip

    by_orders = np.mean([exact(value, (i, j), order) for order in range(n - 1)])
    assert by_orders == pytest.approx(shapley((i, j)) - shapley((i,)) - shapley((j,)), abs=1e-9)


def test_symmetry_and_linearity():
    first, second = random_game(4), random_game(5)
    for order in range(PLAYERS - 1):
        assert exact(first, (2, 3), order) == pytest.approx(exact(first, (3, 2), order), abs=1e-9)
        both = exact(lambda kept: 2 * first(kept) - 3 * second(kept), (2, 3), order)
        assert both == pytest.approx(2 * exact(first, (2, 3), order) - 3 * exact(second, (2, 3), order), abs=1e-9)


def test_closed_form_games():
    """An additive game has no interactions; the game of one pair has 1 for it at every order and 0 for all others."""
    weights = np.random.default_rng(6).standard_normal(PLAYERS)
    for order in range(PLAYERS - 1):
        assert exact(lambda kept: kept @ weights + 7, (0, 3), order) == pytest.approx(0, abs=1e-9)
        together = lambda kept: (kept[:, 0] & kept[:, 3]).astype(float)  # noqa: E731
        assert exact(together, (0, 3), order) == pytest.approx(1, abs=1e-9)
        assert exact(together, (0, 4), order) == pytest.approx(0, abs=1e-9)


def test_estimate_converges_as_one_over_the_root_of_the_contexts():
    players, order, pair = 8, 3, (1, 6)
    value, rng = random_game(7, players), np.random.default_rng(0)
    truth = exact(value, pair, order, players)
    # Standard deviation of one context's second difference, over all contexts.
    every = every_context(players, pair, order)
    singles = interactions(value, np.array([pair] * len(every)), every[:, None])
    errors = {}
    for count in (4, 16, 64, 256):
        contexts = np.stack([sample_contexts(players, pair, order, count, rng) for _ in range(600)])
        estimates = interactions(value, np.array([pair] * 600), contexts)
        errors[count] = np.sqrt(np.mean((estimates - truth) ** 2))
        assert errors[count] == pytest.approx(singles.std() / np.sqrt(count), rel=0.12)
    slope = np.polyfit(np.log(list(errors)), np.log(list(errors.values())), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.04)


def test_linear_classifier_has_no_interactions():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5)).double()
    image = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    settings = Settings(images=1, pairs=3, contexts=4, grid=4)
    value = MaskedScores(network, image, 2, 4, 'logit', batch_size=16)
    pairs = draw_pairs(settings, 0)
    for order in settings.orders:
        found = interactions(value, pairs, draw_contexts(settings, 0, order, pairs))
        np.testing.assert_allclose(found, 0, atol=1e-9)


def test_masked_scores_are_those_of_images_masked_by_hand():
    """8 pixels over 3 cells give cells of 3, 3 and 2 rows; hidden pixels are 0."""
    network = MogaNetClassifier(4, arch=TINY_ARCH, stem_strides=(1, 1)).eval()
    image = torch.randn(1, 3, 8, 8)
    kept = np.random.default_rng(0).random((11, 9)) < 0.5
    masked = image.repeat(11, 1, 1, 1)
    edges = (slice(0, 3), slice(3, 6), slice(6, 8))
    for masked_image, cells in zip(masked, kept, strict=True):
        for cell in np.flatnonzero(~cells):
            masked_image[:, edges[cell // 3], edges[cell % 3]] = 0
    found = MaskedScores(network, image, 1, 3, batch_size=4)(kept)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), score(network(masked), 1), rtol=1e-4, atol=1e-5)


def test_scores_by_probability_and_at_extreme_logits():
    logits = torch.randn(7, 5, dtype=torch.float64)
    p = logits.softmax(1)[:, 3]
    torch.testing.assert_close(score(logits, 3), torch.log(p / (1 - p)))
    torch.testing.assert_close(score(logits, 3, 'log-probability'), p.log())
    torch.testing.assert_close(score(logits, 3, 'logit'), logits[:, 3])
    extreme = score(torch.tensor([[3e4, 0.0, -3e4], [-3e4, 3e4, 0.0]]), 0)
    torch.testing.assert_close(extreme, torch.tensor([3e4, -6e4], dtype=torch.float64))


def test_orders_of_the_reference():
    assert orders_of(module.RATIOS, 196) == (0, 9, 19, 38, 58, 77, 97, 116, 135, 155, 174, 184, 194)
    assert orders_of(module.RATIOS, 256) == (0, 12, 25, 50, 76, 101, 127, 152, 177, 203, 228, 241, 254)
    assert orders_of(module.RATIOS, 4) == (0, 1, 2)


def test_pairs_are_near_distinct_and_drawn_once():
    for image in range(5):
        pairs = draw_pairs(Settings(images=1, pairs=40, contexts=1, grid=6), image)
        rows, columns = pairs // 6, pairs % 6
        assert np.all(abs(np.diff(rows)) <= 2) and np.all(abs(np.diff(columns)) <= 2)
        assert len({frozenset(pair) for pair in pairs.tolist()}) == 40
    assert count_pairs(2, 2) == 6
    assert len(sample_pairs(2, 6, 2, np.random.default_rng(0))) == 6  # all pairs


def test_number_of_near_pairs_by_enumeration():
    for grid, radius in ((3, 2), (5, 1), (5, 2), (4, 9)):
        cells = [(row, column) for row in range(grid) for column in range(grid)]
        near = sum(max(abs(a - c), abs(b - d)) <= radius for (a, b), (c, d) in combinations(cells, 2))
        assert count_pairs(grid, radius) == near


def test_contexts_have_the_size_of_the_order_and_exclude_the_pair():
    settings = Settings(images=1, pairs=5, contexts=6, grid=4)
    pairs = draw_pairs(settings, 3)
    for order in settings.orders:
        contexts = draw_contexts(settings, 3, order, pairs)
        assert contexts.shape == (5, 1 if order in (0, 14) else 6, 16)
        assert np.all(contexts.sum(-1) == order)
        for (i, j), drawn in zip(pairs, contexts, strict=True):
            assert not drawn[:, [i, j]].any()


def test_contexts_are_uniform():
    contexts = sample_contexts(6, (0, 1), 2, 6000, np.random.default_rng(0))
    sets, counts = np.unique(contexts, axis=0, return_counts=True)
    assert len(sets) == 6
    assert np.all(abs(counts - 1000) < 5 * np.sqrt(1000 * 5 / 6))


def test_strength_has_mean_one_and_its_error_shrinks_with_images():
    magnitudes = np.random.default_rng(0).random((400, 13)) + 0.1
    assert strength(magnitudes).mean() == pytest.approx(1)
    np.testing.assert_allclose(strength(magnitudes), magnitudes.mean(0) / magnitudes.mean(), rtol=1e-12)
    few, many = bootstrap_error(magnitudes[:100]), bootstrap_error(magnitudes)
    assert np.median(few / many) == pytest.approx(2, rel=0.25)
    np.testing.assert_allclose(bootstrap_error(magnitudes[:1]), 0, atol=1e-12)


def test_presets_have_the_number_of_passes_of_the_reference():
    passes = {name: settings.images * settings.passes() for name, settings in PRESETS.items()}
    assert passes['smoke'] < 2000
    # 13 orders with all contexts would be 52, 65, 13 and 6.5 million; the ends have one context each.
    for name, published in {'deng': 52e6, 'a2mim': 65e6, 'a2mim-list': 13e6, 'full': 6.5e6}.items():
        assert passes[name] == pytest.approx(published * 11 / 13, rel=0.01)


class Images:
    """Random images of three classes."""

    def __init__(self, size=8):
        self.labels = np.array([0, 1, 2, 0, 1, 2, 0, 0])
        self.images = torch.randn(len(self.labels), 1, 3, size, size, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])

    def name(self, index):
        return f'{index}.png'


class Stub:
    """Stand-in for :class:`mogacore.analysis.classifiers.Classifier` that can fail after some forward passes."""

    def __init__(self, label, passes=None, seed=0):
        torch.manual_seed(seed)
        self.spec = ModelSpec(label, label, None)
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
        self.images, self.left, self.calls = Images(), passes, 0

    def __call__(self, images):
        self.calls += 1
        if self.left is not None and self.calls > self.left:
            raise KeyboardInterrupt
        return self.network(images)

    def weights_digest(self):
        return self.spec.label


SETTINGS = Settings(images=3, pairs=2, contexts=4, grid=4, selection='any', batch_size=16)


def measured(folder, stubs, ranks=1, settings=SETTINGS):
    chosen = choose_images(stubs, settings)
    for rank in range(ranks):
        results = PartialResults(folder, {**dataclasses.asdict(settings), 'indices': chosen})
        for stub in stubs:
            results.add_model(stub)
        tasks = [(stub, number) for number in range(len(chosen)) for stub in stubs]
        measure(tasks[rank::ranks], chosen, settings, results, is_quiet=True)
    results.report(settings, [stub.spec.label for stub in stubs])
    return [(folder / f'interactions.{suffix}').read_bytes() for suffix in ('npz', 'json', 'png')]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    return measured(tmp_path_factory.mktemp('whole'), [Stub('a'), Stub('b', seed=1)])


def test_a_second_run_is_bitwise_equal(whole, tmp_path):
    assert measured(tmp_path, [Stub('a'), Stub('b', seed=1)]) == whole


@pytest.mark.parametrize('passes', [0, 20, 60])
def test_a_resumed_run_is_bitwise_equal(whole, tmp_path, passes):
    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, [Stub('a', passes), Stub('b', passes, seed=1)])
    assert not (tmp_path / 'interactions.json').exists()
    resumed = [Stub('a'), Stub('b', seed=1)]
    assert measured(tmp_path, resumed) == whole
    fresh = Stub('a')
    measured(tmp_path / 'fresh', [fresh])
    assert (resumed[0].calls < fresh.calls) == (passes > 0)  # completed orders are not repeated


def test_ranks_share_the_work_and_the_result_is_bitwise_equal(whole, tmp_path):
    assert measured(tmp_path, [Stub('a'), Stub('b', seed=1)], ranks=4) == whole


def test_a_grid_finer_than_the_pixels_is_reported(tmp_path):
    with pytest.raises(UserError, match=r'grid 9 is finer than the 8 x 8 pixels .*: give at most 8 cells'):
        measured(tmp_path, [Stub('a')], settings=dataclasses.replace(SETTINGS, grid=9))
    assert not list(tmp_path.rglob('*.npz'))


def test_interactions_that_are_not_finite_are_reported(tmp_path):
    stub = Stub('broken')
    stub.network[3].bias.data[:] = torch.nan
    with pytest.raises(UserError, match=r'interactions of order 0 of broken and image \d\.png are not finite'):
        measured(tmp_path, [stub])
    assert not list(tmp_path.rglob('*.npz'))


def test_a_model_without_interactions_is_reported_instead_of_nan(tmp_path):
    stub = Stub('constant')
    stub.network[3].weight.data[:] = 0
    with pytest.raises(UserError, match='all interactions of constant are 0, so their strength is undefined'):
        measured(tmp_path, [stub])


def test_models_get_the_same_draws(tmp_path):
    """Two labels of one network give the same curve, and adding a model does not change the others."""
    measured(tmp_path, [Stub('a')])
    measured(tmp_path, [Stub('a'), Stub('same')])
    models = json.loads((tmp_path / 'interactions.json').read_text())['models']
    assert models['a']['strength'] == models['same']['strength']


def test_report_contains_the_measurements(whole, tmp_path):
    measured(tmp_path, [Stub('a'), Stub('b', seed=1)])
    report = json.loads((tmp_path / 'interactions.json').read_text())
    with np.load(tmp_path / 'interactions.npz') as arrays:
        pairs = arrays['b/interactions']
        assert pairs.shape == (3, len(report['orders']), 2)
        np.testing.assert_allclose(strength(abs(pairs).mean(-1)), report['models']['b']['strength'])
        np.testing.assert_allclose(abs(pairs).mean((0, 2)), report['models']['b']['magnitude'])
    assert report['ratios'][0] == 0 and report['ratios'][-1] == 1


def test_the_folder_of_another_run_is_reported(tmp_path):
    measured(tmp_path, [Stub('a')])
    with pytest.raises(UserError, match=r'another score: choose another --out-dir'):
        measured(tmp_path, [Stub('a')], settings=dataclasses.replace(SETTINGS, score='logit'))
    other = Stub('a')
    other.weights_digest = lambda: 'trained further'
    with pytest.raises(UserError, match='another weights'):
        measured(tmp_path, [other])


def test_a_broken_partial_file_is_reported(tmp_path):
    measured(tmp_path, [Stub('a')])
    (tmp_path / 'partial' / 'a' / '00001.npz').write_bytes(b'PK half')
    with pytest.raises(UserError, match=r'00001\.npz is broken: remove it'):
        measured(tmp_path, [Stub('a')])


def test_images_are_chosen_evenly_over_the_classes():
    stub = Stub('a')
    labels = stub.images.labels
    every = choose_images([stub], dataclasses.replace(SETTINGS, images=8))
    assert sorted(every) == list(range(8))
    assert sorted(labels[every[:3]]) == [0, 1, 2] and set(every[:3]) == {0, 1, 2}  # the first of each
    drawn = choose_images([stub], dataclasses.replace(SETTINGS, images=20, selection='replacement'))
    assert set(drawn) == {0, 1, 2}
    with torch.no_grad():
        right = [i for i in range(8) if stub.network(stub.images[i][0]).argmax().item() == labels[i]]
    settings = dataclasses.replace(SETTINGS, selection='correct', images=len(right))
    assert right and sorted(choose_images([stub], settings)) == right
    with pytest.raises(
        UserError, match=rf'9 images are too many: the data has {len(right)} that all models classify correctly'
    ):
        choose_images([stub], dataclasses.replace(settings, images=9))


def test_masking_and_plain_passes_are_timed_on_equal_numbers_of_images():
    stub = Stub('a')
    speed = measure_masking(stub, SETTINGS, rounds=2, batches=2)
    assert min(speed['plain'], speed['masked'], speed['cpu_ratio']) > 0
    assert speed['quartiles'][0] <= speed['ratio'] <= speed['quartiles'][1]
    assert stub.calls == 2 * 2 * 3  # 2 rounds and the warm-up, 2 batches each, plain and masked


def test_model_names_are_parsed():
    assert parse_model('configs/a.py@b.pth') == ModelSpec('a', 'configs/a.py', 'b.pth')
    assert parse_model('XT=moganet_xtiny') == ModelSpec('XT', 'moganet_xtiny', None)
    assert parse_model('timm:resnet50@pretrained').checkpoint == 'pretrained'
    with pytest.raises(UserError, match='two models have the label'):
        parse_models(['a=x', 'a=y'])


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(pairs=7, grid=2), '7 pairs are too many: a grid of 2 has 6'),
        (dict(ratios=(0.5, 1.5)), 'ratios'),
        (dict(score='odds'), "score 'odds' is unknown"),
        (dict(images=0), 'images 0'),
    ],
)
def test_invalid_settings_are_reported(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SETTINGS, **change)


def test_tool_compares_models_on_data_of_a_config(tmp_path, capsys, monkeypatch):
    """The digits, a network of mogacore by name, and one of torchvision."""
    pytest.importorskip('mmpretrain')
    from mogacore.datasets.digits import write_digits

    write_digits(tmp_path / 'data' / 'digits', parts=('classification',))
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'gray.py').write_text(f"_base_ = '{ROOT}/configs/classification/moganet-xtiny_digits.py'")
    (tmp_path / 'color.py').write_text(
        f"_base_ = '{ROOT}/configs/classification/moganet-xtiny_digits.py'\n"
        "test_dataloader = dict(dataset=dict(pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')]))"
    )
    options = ['--data', 'color.py', '--selection', 'any', '--images', '1', '--pairs', '1', '--contexts', '1']
    models = ['torchvision:mobilenet_v3_small', 'XT=moganet_xtiny']
    tool = str(ROOT / 'tools' / 'interactions.py')

    def run_tool(*args):
        monkeypatch.setattr(sys, 'argv', [tool, *args])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(tool, run_name='__main__')
        return end.value.code, capsys.readouterr()

    code, printed = run_tool(*models, *options, '--grid', '4', '--out-dir', 'out')
    assert code in (0, None), printed.err
    report = json.loads((tmp_path / 'out' / 'interactions.json').read_text())
    assert list(report['models']) == ['torchvision:mobilenet_v3_small', 'XT'] and 'XT' in printed.out
    assert report['settings']['files'][0].endswith('.png')
    code, printed = run_tool('gray.py')
    assert code == 2 and 'needs trained weights' in printed.err
    code, printed = run_tool('moganet_xtiny')
    assert code == 2 and '--data CONFIG' in printed.err
    code, printed = run_tool('moganet_huge', *options)
    assert code == 2 and "model 'moganet_huge' is unknown" in printed.err
    code, printed = run_tool('torchvision:mobilenet_v3_small', *options, '--data', 'gray.py')
    assert code == 2 and 'does not accept inputs of 1 x 32 x 32' in printed.err
