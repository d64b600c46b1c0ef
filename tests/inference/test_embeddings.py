"""Features of images: against the backbone itself, and nearest neighbors against scikit-learn and brute force."""

import json

import cv2
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from small_models import write_small
from torch import nn

from mogacore.cli import features as command
from mogacore.datasets.digits import write_digits
from mogacore.errors import UserError
from mogacore.inference.embeddings import (
    Embeddings,
    compute_features,
    knn_accuracy,
    nearest,
    probe_accuracy,
    vote,
    write_embeddings,
)
from mogacore.inference.features import backbone_of, pool
from mogacore.inference.predictor import Predictor

pytest.importorskip('mmpretrain')

RNG = np.random.default_rng(0)


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """Config and weights of a small classifier of digits, with 6 training and 3 validation images of each of 3 classes.

    The training images have one class folder more, so that labels follow from them.
    """
    folder = tmp_path_factory.mktemp('features')
    write_digits(folder / 'digits', parts=('classification',))
    data = folder / 'data' / 'digits' / 'classification'
    for split, number, digits in (('train', 6, '0258'), ('val', 3, '258')):
        for digit in digits:
            (data / split / digit).mkdir(parents=True)
            files = sorted((folder / 'digits' / 'classification' / split / digit).iterdir())
            for file in files[:number]:
                (data / split / digit / file.name).write_bytes(file.read_bytes())
    more = '\n'.join(f'{stage}_dataloader = dict(num_workers=0)' for stage in ('train', 'val', 'test'))
    config, weights = write_small(folder, 'classification/moganet-xtiny_digits', more)
    return folder, config, weights


def expected_rows(project, files):
    network = Predictor(*project[1:], 'cpu')
    rows = []
    for file in files:
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).astype(np.float32)
        with torch.no_grad():
            maps = network.model.backbone(torch.from_numpy((image - 79.58) / 90.79)[None, None])
        rows.append(maps[-1].numpy().mean((2, 3))[0])
    return np.array(rows)


@pytest.mark.parametrize('split, number', [('train', 24), ('val', 9), ('test', 9)])
def test_features_of_a_split_have_the_labels_of_the_training_folders(split, number, project, tmp_path, monkeypatch):
    folder, config, weights = project
    monkeypatch.chdir(folder)
    report = compute_features(config, weights, split=split, out=str(tmp_path / 'f.npy'), device='cpu')
    assert report == {'images': {split: number}, 'written': [tmp_path / 'f.npy', tmp_path / 'f.json']}
    content = json.loads((tmp_path / 'f.json').read_text())
    folders = [name.split('/')[-2] for name in content['names']]
    assert content['labels'] == ['0258'.index(name) for name in folders] and len(set(folders)) >= 3
    np.testing.assert_allclose(np.load(tmp_path / 'f.npy'), expected_rows(project, content['names']), atol=1e-5)


def test_features_of_files_skip_what_cannot_be_read(project, tmp_path, capsys):
    folder, config, weights = project
    images = sorted((folder / 'data' / 'digits' / 'classification' / 'val' / '2').iterdir())
    (tmp_path / 'broken.png').write_text('x')
    command.main(
        [config, weights, *map(str, images), str(tmp_path / 'broken.png'), '--out', str(tmp_path / 'f.npy'),
         '--device', 'cpu']
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert 'broken.png cannot be read: replace it or use another; skipped' in shown and 'input: 3 images' in shown
    np.testing.assert_allclose(np.load(tmp_path / 'f.npy'), expected_rows(project, images), atol=1e-5)
    assert json.loads((tmp_path / 'f.json').read_text()) == {'names': [str(image) for image in images]}


def test_the_command_prints_the_accuracies_and_draws_neighbors(project, tmp_path, capsys, monkeypatch):
    folder, config, weights = project
    monkeypatch.chdir(folder)
    command.main(
        [config, weights, '--knn', '--k', '5', '--temperature', '0.1', '--linear-probe', '--device', 'cpu',
         '--show', str(tmp_path / 'shown.png')]
    )  # fmt: skip
    shown = capsys.readouterr().out.splitlines()[-4:]  # after the progress
    data = {}
    for split in ('train', 'val'):
        files = sorted((folder / 'data' / 'digits' / 'classification' / split).glob('*/*'))
        data[split] = expected_rows(project, files), np.array([int(file.parent.name) for file in files])
    (train, labels), (val, truth) = data['train'], data['val']
    found = sklearn_knn(train, labels, val, 5, 0.1)
    probe = LogisticRegression(max_iter=1000).fit((train - train.mean(0)) / train.std(0), labels)
    score = probe.score((val - train.mean(0)) / train.std(0), truth)
    assert shown == [
        'train: 24 images, val: 9 images',
        f'k-NN accuracy (k=5, temperature 0.1): {100 * np.mean(found == truth):.2f} %',
        f'linear probe accuracy: {100 * score:.2f} %',
        f'{tmp_path / "shown.png"} written',
    ]
    assert cv2.imread(str(tmp_path / 'shown.png')).shape[1] == 8 * (96 + 8) + 8


def sklearn_knn(train, labels, queries, k, temperature):
    weights = lambda distances: np.exp((1 - distances) / temperature)  # noqa: E731
    return KNeighborsClassifier(k, weights=weights, metric='cosine').fit(train, labels).predict(queries)


@pytest.mark.parametrize('k, temperature', [(1, 0.07), (5, 0.07), (20, 0.07), (20, 1.0), (60, 0.02)])
def test_votes_equal_those_of_scikit_learn(k, temperature):
    centers = RNG.normal(size=(4, 6))
    labels, truth = RNG.integers(0, 4, 60), RNG.integers(0, 4, 1500)  # more queries than are computed at a time
    train = (centers[labels] + RNG.normal(size=(60, 6))).astype(np.float32)
    queries = (centers[truth] + RNG.normal(size=(1500, 6))).astype(np.float32)
    similarities, numbers = nearest(train, queries, k)
    found = vote(similarities, labels[numbers], temperature, 4)
    np.testing.assert_array_equal(found, sklearn_knn(train, labels, queries, k, temperature))
    accuracy = knn_accuracy(
        Embeddings(train, [''] * 60, labels), Embeddings(queries, [''] * 1500, truth), k, temperature
    )
    assert accuracy == np.mean(found == truth) and 0.3 < accuracy < 0.999


def test_neighbors_equal_those_of_brute_force():
    train, queries = RNG.normal(size=(30, 5)), RNG.normal(size=(7, 5))
    similarities, numbers = nearest(train.astype(np.float32), queries.astype(np.float32), 4)
    cosines = np.array([[q @ t / np.linalg.norm(q) / np.linalg.norm(t) for t in train] for q in queries])
    np.testing.assert_array_equal(numbers, np.argsort(-cosines, axis=1)[:, :4])
    np.testing.assert_allclose(similarities, -np.sort(-cosines, axis=1)[:, :4], atol=1e-6)


def test_a_linear_probe_separates_what_a_line_separates_and_no_more():
    points = RNG.normal(size=(400, 2)).astype(np.float32)
    names = [''] * 200
    for labels, low, high in ((points @ [1, 2] > 0, 0.97, 1), (points.prod(1) > 0, 0.3, 0.7)):
        train, val = (Embeddings(points[i::2], names, labels[i::2].astype(int)) for i in (0, 1))
        assert low <= probe_accuracy(train, val) <= high


def test_maps_tokens_and_vectors_are_pooled_to_vectors():
    maps = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert pool((torch.zeros(1, 9, 6, 8), maps)).tolist() == [[5.5, 17.5]]
    assert pool(maps.flatten(2).transpose(1, 2)).tolist() == [[5.5, 17.5]]
    assert pool(maps[0, 0].half()).tolist() == maps[0, 0].tolist()
    with pytest.raises(UserError, match='Identity has no backbone'):
        backbone_of(nn.Identity())


def test_parquet_files_are_read_by_their_library(tmp_path):
    parquet = pytest.importorskip('pyarrow.parquet')
    found = Embeddings(RNG.normal(size=(3, 4)).astype(np.float32), ['a/é.png', 'b.png', 'c.png'], np.array([2, 0, 1]))
    assert write_embeddings(tmp_path / 'f.parquet', found) == [tmp_path / 'f.parquet']
    table = parquet.read_table(tmp_path / 'f.parquet').to_pydict()
    assert (table['name'], table['label']) == (found.names, [2, 0, 1])
    np.testing.assert_array_equal(np.array(table['features'], np.float32), found.features)


@pytest.mark.parametrize(
    'settings, message',
    [
        ({}, 'nothing to do: give images or --split'),
        (dict(split='val'), '--out and the images belong together'),
        (dict(out='f.npy', knn=True), '--out and the images belong together'),
        (dict(source=['x.png'], split='val', out='f.npy'), '--split val and inputs exclude each other'),
        (dict(split='val', out='f.csv'), r'--out f\.csv has an unknown suffix: use \.npy or \.parquet'),
        (dict(source=['none.png'], out='f.npy'), r'input none\.png does not exist'),
        (dict(knn=True, k=25), '--k 25 is out of range: use 1 to 24, the number of training images'),
        (dict(knn=True, temperature=0), '--temperature 0 is out of range'),
        (dict(knn=True, k=0), '--k 0 is out of range: use 1 or more'),
        (dict(knn=True, show='data'), 'data cannot be written, it is a folder: choose another file'),
        (dict(knn=True, cfg_options={'train_dataloader.dataset.dataset.data_root': 'none'}), 'data folder none is'),
    ],
)
def test_settings_that_do_not_fit_are_reported_in_one_line(settings, message, project, tmp_path, monkeypatch):
    folder, config, weights = project
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message) as raised:
        compute_features(config, weights, **{'device': 'cpu', **settings})
    assert '\n' not in str(raised.value) and not list(folder.glob('f.*'))


def test_nearest_neighbors_need_labels():
    found = Embeddings(np.ones((3, 2), np.float32), ['a', 'b', 'c'])
    for evaluate in (knn_accuracy, probe_accuracy):
        with pytest.raises(UserError, match='need a label for each image: use a config for classification'):
            evaluate(found, found)
