"""Tables, plans and tests of published weights, on made-up work dirs and weight files."""

import argparse
import csv
import dataclasses
import io
import json
import re
import runpy
import shlex
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY_ARCH
from mmengine.config import Config

pytest.importorskip('mmpretrain')

from mogacore.cli.train import add_arguments
from mogacore.engine.config import build_model, load_config
from mogacore.engine.runner import dry_run
from mogacore.errors import UserError
from mogacore.models import create_model
from mogacore.published import load_results
from mogacore.zoo import evaluate, plan, reproduce, selection
from mogacore.zoo.metafiles import metafiles, model_zoo_page

CONFIGS = ROOT / 'configs'
RESULTS = {result.id: result for result in load_results()}
XT = 'moganet-xtiny_timm-recipe_8xb128_in1k-224'


def tool(*args):
    """Call ``main`` of tools/reproduce.py."""
    return runpy.run_path(str(ROOT / 'tools' / 'reproduce.py'))['main'](list(map(str, args)))


def write_scalars(folder, *lines):
    path = folder / '20260101_000000' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(json.dumps(line) for line in lines) + '\n{"half a li')


class TestSizes:
    def test_computed_sizes_are_the_published_ones_and_each_network_is_computed_once(self, tmp_path, monkeypatch):
        computed = []
        true_complexity = reproduce.complexity
        monkeypatch.setattr(reproduce, 'complexity', lambda cfg: computed.append(cfg.filename) or true_complexity(cfg))
        rows = reproduce.reproduce(selection.select(['cls-001', 'cls-010', 'cls-038', 'cls-003', 'pose-001', 'vid-012',
                                                     'vid-024', 'mix-*']), CONFIGS, tmp_path)  # fmt: skip
        found = {row.result.id: row for row in rows}
        assert len(computed) == 4 and len(rows) == 18
        assert found['cls-003'].params == 5_197_332 and found['cls-003'].agrees
        assert found['vid-012'].agrees and found['pose-001'].agrees
        assert found['cls-001'].agrees is False and '2,956,066' in reproduce.remark(found['cls-001'])
        assert found['cls-001'].params == found['cls-010'].params == 2_956_066
        assert found['mix-027'].params is None and 'not part of this package' in reproduce.remark(found['mix-027'])
        text = reproduce.summary(rows)
        assert '7 with a config' in text and 'WITHOUT' not in text

    @pytest.mark.parametrize(
        'ours, printed, expected',
        [(5.197e6, '5.20', True), (5.27e6, '5.20', False), (14.47e6, '14.4', True), (14.52e6, '14.4', False),
         (None, '1', None), (1.0, '', None)],
    )  # fmt: skip
    def test_a_printed_figure_is_compared_within_its_rounding(self, ours, printed, expected):
        assert reproduce.within(ours, printed, 1e6, 0.003) is expected

    def test_rows_are_chosen_by_task_and_id(self):
        assert len(selection.select()) == 116 and len(selection.select(baselines=True)) == 242
        assert {result.task for result in selection.select(['pose'])} == {'pose'}
        assert [result.id for result in selection.select(['cls-00[12]'])] == ['cls-001', 'cls-002']
        with pytest.raises(UserError, match="task or row 'poses' is unknown"):
            selection.select(['poses'])


class TestMeasured:
    def test_the_best_epoch_of_a_log(self, tmp_path):
        first = {'accuracy/top1': 70.5, 'accuracy/top5': 90.0, 'step': 1}
        second = {'accuracy/top1': 71.5, 'accuracy/top5': 89.0, 'step': 2}
        write_scalars(tmp_path / XT, {'loss': 1.0, 'step': 1}, first, second, {'accuracy/top1': 71.0, 'step': 3})
        measured = reproduce.find_measured(RESULTS['cls-001'], CONFIGS, tmp_path)
        assert measured.metrics == {'top1': 71.5, 'top5': 89.0}
        assert reproduce.difference(RESULTS['cls-001'], 'top1', measured) == pytest.approx(-5.0)

    def test_the_lowest_error_is_the_best_and_groups_have_separate_metrics(self, tmp_path):
        first, second = {'video/mse': 90.0, 'video/r_mse': 300.0}, {'video/mse': 95.0, 'video/r_mse': 290.0}
        write_scalars(tmp_path / 'simvp_moganet_50e_weather-mv', first, second)
        assert reproduce.find_measured(RESULTS['ostl-011'], CONFIGS, tmp_path).metrics == {'mse': 90.0}
        assert reproduce.find_measured(RESULTS['ostl-012'], CONFIGS, tmp_path).metrics == {'mse': 290.0}
        assert reproduce.is_worse('mse', 1.0) and not reproduce.is_worse('top1', 1.0)

    def test_a_test_precedes_a_log_and_published_weights_precede_both(self, tmp_path):
        write_scalars(tmp_path / XT, {'accuracy/top1': 70.0, 'step': 1})
        test = tmp_path / XT / 'metrics.json'
        test.write_text(json.dumps({'config': f'x/{XT}.py', 'metrics': {'accuracy/top1': 71.0}}))
        (tmp_path / XT / 'other.json').write_text(json.dumps({'config': 'x/y.py', 'metrics': {'accuracy/top1': 1.0}}))
        assert reproduce.find_measured(RESULTS['cls-001'], CONFIGS, tmp_path).metrics == {'top1': 71.0}
        out = reproduce.published_test(RESULTS['cls-001'], tmp_path)
        out.parent.mkdir()
        out.write_text(json.dumps({'metrics': {'accuracy/top1': 76.4}}))
        assert reproduce.find_measured(RESULTS['cls-001'], CONFIGS, tmp_path).metrics == {'top1': 76.4}

    def test_the_other_gate_has_a_separate_work_dir(self, tmp_path):
        name = 'moganet-small_8xb128_in1k-224_single-gate'
        write_scalars(tmp_path / name, {'accuracy/top1': 75.0, 'step': 1})
        assert reproduce.find_measured(RESULTS['cls-040'], CONFIGS, tmp_path) is None
        other = dataclasses.replace(RESULTS['cls-040'], gate='single')
        assert reproduce.find_measured(other, CONFIGS, tmp_path).metrics == {'top1': 75.0}

    def test_only_one_published_row_has_another_gate_than_its_config(self):
        rows = [result for result in RESULTS.values() if result.config and result.gate]
        configs = {name: load_config(CONFIGS / name) for name in {row.config for row in rows}}
        others = {row.id for row in rows if reproduce.cfg_options(row, configs[row.config])}
        assert others == {'cls-044'}

    def test_fractions_become_percentages(self, tmp_path):
        write_scalars(tmp_path / 'retinanet_moganet-xtiny_fpn_1x_coco', {'coco/bbox_mAP': 0.395, 'step': 1})
        assert reproduce.find_measured(RESULTS['det-001'], CONFIGS, tmp_path).metrics == {'box_mAP': 39.5}


class TestTool:
    def test_table_and_files(self, tmp_path, capsys):
        write_scalars(tmp_path / 'work_dirs' / XT, {'accuracy/top1': 76.6, 'accuracy/top5': 93.0, 'step': 1})
        files = {kind: tmp_path / name for kind, name in
                 dict(csv='a.csv', json='a.json', markdown='a.md', plot='a.png').items()}  # fmt: skip
        tool('cls-001', 'cls-003', 'mix-027', '--work-dirs', tmp_path / 'work_dirs',
             *(word for kind, path in files.items() for word in (f'--{kind}', path)))  # fmt: skip
        said = capsys.readouterr().out
        assert '+0.1' in said and '-0.4' in said and '3 rows, 2 with a config' in said
        rows = list(csv.DictReader(io.StringIO(files['csv'].read_text())))
        assert [row['id'] for row in rows] == ['cls-001', 'cls-003', 'mix-027']
        assert rows[0]['metrics'] == 'top1=76.6 top5=93.0' and rows[0]['published_metrics'] == 'top1=76.5 top5=93.4'
        found = json.loads(files['json'].read_text())
        assert found[1]['params'] == 5_197_332 and found[1]['sizes_agree'] is True and found[2]['params'] is None
        assert '| cls-001 |' in files['markdown'].read_text()
        assert files['plot'].read_bytes()[:4] == b'\x89PNG'

    def test_plan_of_every_row_lists_its_requirements(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        runs = plan.missing_runs(selection.select(), ROOT, tmp_path / 'work_dirs', 'gpu')
        assert sorted(row for run in runs for row in run.rows) == sorted(r.id for r in selection.select() if r.config)
        assert len({run.name for run in runs}) == len(runs)
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        for run in runs:
            words = shlex.split(run.command)
            assert words[0] == f'GPUS={run.gpus}' and words[3:5] == ['gpu', run.name]
            args = parser.parse_args([words[5], '--work-dir', words[6], *words[7:], '--dry-run'])
            cfg = load_config(args.config, args.cfg_options)
            gate = RESULTS[run.rows[0]].attn_force_fp32
            assert gate is None or bool(cfg.model.backbone.get('attn_force_fp32')) == gate
        found = {row: run for run in runs for row in run.rows}
        assert found['cls-001'].gpus == found['det-001'].gpus == found['pose-001'].gpus == 8
        assert found['vid-012'].gpus == 1
        # 310 epochs of ImageNet at the 15.3 images per second of a CPU, which says nothing about 8 GPUs.
        assert found['cls-001'].hours == pytest.approx(1_281_167 * 310 / 15.3 / 3600, rel=0.03)
        assert dict(found['cls-001'].needs())['machine'] == '8 GPUs'
        assert re.match(
            r'[\d,]+ hours on one AMD EPYC of 2 threads.*--benchmark', dict(found['cls-001'].needs())['time']
        )
        needs = dict(found['det-001'].needs())
        assert 'data folder data/coco is missing' in needs['data']
        assert 'mogacore://moganet_xtiny' in needs['starts at'] and 'sha256' in needs['starts at']
        assert 'retinanet_moganet_xtiny_fpn_1x_coco.pth' in needs['published']

    def test_planned_command_is_accepted_by_a_dry_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (run,) = plan.missing_runs([RESULTS['cls-010']], ROOT, tmp_path / 'work_dirs', 'gpu')
        environment = {'PATH': '/usr/bin:/bin', 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)}
        done = subprocess.run(
            f'{run.command} --dry-run', shell=True, cwd=tmp_path, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert '2,956,066 parameters, 300 epochs' in done.stdout
        assert 'would queue 1 run(s) of 8 processes' in done.stdout
        assert 'data folder data/imagenet is missing' in done.stdout and not list(tmp_path.iterdir())

    def test_a_dry_run_rejects_what_a_training_would(self):
        config = str(CONFIGS / 'classification' / f'{XT}.py')
        with pytest.raises(UserError, match='seed -1'):
            dry_run(config, seed=-1)
        with pytest.raises(UserError, match='--cfg-options'):
            dry_run(config, cfg_options={'param_scheduler.9.end': 3})

    def test_measured_rows_need_no_training_and_hours_follow_the_benchmark(self, tmp_path):
        write_scalars(tmp_path / XT, {'accuracy/top1': 76.6, 'step': 1})
        assert plan.missing_runs([RESULTS['cls-001']], ROOT, tmp_path, 'gpu') == []
        file = tmp_path / 'bench.json'
        step = {'name': 'moganet_tiny', 'images_per_s': 1000.0, 'macs': 1.1e9}
        file.write_text(json.dumps({'mode': 'train', 'machine': 'a GPU', 'measurements': [step]}))
        (run,) = plan.missing_runs([RESULTS['cls-003']], ROOT, tmp_path, 'gpu', 4, file, {'train_cfg.max_epochs': 3})
        assert run.hours == pytest.approx(1_281_167 * 310 / 1000 / 4 / 3600, rel=0.01)
        assert run.basis == 'on 4 GPUs, from step times on a GPU'
        assert (
            run.command.startswith('GPUS=4 ') and '--auto-scale-lr --cfg-options train_cfg.max_epochs=3' in run.command
        )
        file.write_text(json.dumps({'mode': 'infer', 'machine': 'a GPU', 'measurements': [step]}))
        with pytest.raises(UserError, match='has no training step times'):
            plan.Speed.load(file)

    def test_rows_are_found_by_model_and_data(self):
        def ids(*names):
            return [result.id for result in selection.select(names)]

        for words in ('UperNet MogaNet-S', 'moganet-s upernet', 'MogaNet-S, UperNet (ADE20K)'):
            rows = [RESULTS[name] for name in ids(words)]
            assert rows and {(row.method, row.model) for row in rows} == {('UperNet', 'MogaNet-S')}
        every = [result for result in RESULTS.values() if result.is_moganet]
        assert ids('mask r-cnn moganet-t') == [
            r.id for r in every if 'Mask R-CNN' in r.method and r.model.strip('*') == 'MogaNet-T'
        ]
        assert {RESULTS[name].dataset for name in ids('ImageNet MogaNet-XL')} == {'ImageNet-1K val'}
        assert ids('pose', 'UperNet') == [r.id for r in every if r.task == 'pose' or r.method == 'UperNet']
        for unknown in ('UperNet MogaNet-Q', 'MogaNet-', '', ' '):
            with pytest.raises(UserError, match=r'is unknown: choose from .* words of a row in quotation marks'):
                ids(unknown)

    @pytest.mark.parametrize('action', [[], ['--plan'], ['--write']])
    def test_a_folder_of_trainings_that_does_not_exist_is_refused(self, tmp_path, action):
        with pytest.raises(UserError, match=r'--work-dirs .*nosuch is not a folder: give that of the trainings'):
            tool('cls-001', '--work-dirs', tmp_path / 'nosuch', *action)

    def test_submit_needs_a_partition(self, capsys):
        with pytest.raises(SystemExit):
            tool('cls-001', '--submit')
        assert '--submit needs --partition' in capsys.readouterr().err


def container(kind, raw, averaged):
    """Weights in the containers of the published files."""
    prefixed = {
        which: {('head.fc.' + n[5:] if n.startswith('head.') else 'backbone.' + n): v for n, v in weights.items()}
        for which, weights in (('raw', raw), ('ema', averaged))
    }
    if kind == 'release':
        return {'author': 'MogaNet', 'arch': 'x', 'state_dict': raw, 'state_dict_ema': averaged}
    if kind == 'release, average alone':
        return {'author': 'MogaNet', 'state_dict': averaged}
    if kind == 'openmixup':
        buffers = {'ema_' + name.replace('.', '_'): value for name, value in prefixed['raw'].items()}
        return {'meta': {'mmcv_version': '1.5.0'}, 'state_dict': {**prefixed['ema'], **buffers}}
    assert kind == 'mmengine'
    return {'meta': {'mmengine_version': '0.7.0'}, 'state_dict': prefixed['raw']}


def filled(state_dict, number):
    return {name: torch.full_like(value, number) if value.is_floating_point() else value
            for name, value in state_dict.items()}  # fmt: skip


class TestEvaluate:
    # Row, container, expected set of weights, expected gate.
    CASES = (
        ('cls-001', 'release', 'raw', False),
        ('cls-006', 'release', 'ema', False),
        ('cls-006', 'release, average alone', 'ema', False),
        ('cls-010', 'openmixup', 'raw', True),
        ('cls-016', 'openmixup', 'ema', True),
        ('cls-020', 'openmixup', 'raw', True),
        ('cls-038', 'mmengine', 'raw', True),
    )

    @pytest.fixture
    def tested(self, monkeypatch):
        """Replaces the test; records its arguments and the model with the loaded weights."""
        calls = []

        def test(config, checkpoint, work_dir, cfg_options):
            cfg = load_config(config, {key: value for key, value in cfg_options.items()})
            cfg.model.backbone.arch = Config(dict(a=TINY_ARCH)).a
            cfg.model.head.in_channels, cfg.model.head.num_classes = 32, 10
            model = build_model(cfg)
            from mogacore.checkpoint import load_into

            load_into(model, checkpoint, ema=cfg.get('load_ema'))
            calls.append((config, model, cfg_options))
            return {'accuracy/top1': 50.0}

        monkeypatch.setattr(evaluate, 'test', test)
        return calls

    @pytest.mark.parametrize('name, kind, expected, gate', CASES)
    def test_config_gate_and_weights_are_those_of_the_figure(self, tmp_path, tested, name, kind, expected, gate):
        model = build_tiny()
        raw, averaged = filled(model.state_dict(), 1.0), filled(model.state_dict(), 2.0)
        torch.save(container(kind, raw, averaged), tmp_path / RESULTS[name].weights_file)
        said = []
        code = evaluate.evaluate_folder(tmp_path, [RESULTS[name]], CONFIGS, tmp_path / 'w', {}, said.append)
        assert code == 0, said
        ((config, loaded, _),) = tested
        assert config == str(CONFIGS / RESULTS[name].config)
        assert loaded.head.fc.weight.unique().tolist() == [{'raw': 1.0, 'ema': 2.0}[expected]]
        assert loaded.backbone.blocks1[0].attn.attn_force_fp32 is gate
        report = json.loads((tmp_path / 'w' / 'published' / f'{name}.json').read_text())
        assert report['metrics'] == {'accuracy/top1': 50.0} and report['result'] == name
        assert any('published' in line for line in said)
        # A second call skips it.
        evaluate.evaluate_folder(tmp_path, [RESULTS[name]], CONFIGS, tmp_path / 'w', {}, said.append)
        assert len(tested) == 1 and 'already tested' in said[-1]

    @pytest.mark.parametrize('name', ['det-001', 'seg-006', 'pose-001', 'vid-012'])
    def test_files_of_other_tasks_are_tested_with_their_unchanged_config(self, tmp_path, name):
        weights = {'backbone.norm1.weight': torch.ones(1), 'neck.weight': torch.ones(1)}
        torch.save({'meta': {'mmcv_version': '1.7.0'}, 'state_dict': weights}, tmp_path / RESULTS[name].weights_file)
        (trial,) = evaluate.trials(tmp_path, [RESULTS[name]], CONFIGS)
        assert trial.config == CONFIGS / RESULTS[name].config and trial.ema is None and trial.options == {}

    def test_a_file_that_cannot_be_tested_is_reported_and_the_others_are_tested(self, tmp_path, tested):
        (tmp_path / RESULTS['cls-001'].weights_file).write_bytes(b'<html>')
        model = build_tiny()
        torch.save(model.state_dict(), tmp_path / RESULTS['cls-003'].weights_file)
        torch.save(model.state_dict(), tmp_path / 'mine.pth')
        said = []
        results = [RESULTS['cls-001'], RESULTS['cls-003']]
        assert evaluate.evaluate_folder(tmp_path, results, CONFIGS, tmp_path / 'w', {}, said.append) == 1
        assert len(tested) == 1
        text = '\n'.join(said)
        assert 'not tested' in text and 'not a checkpoint' in text and 'mine.pth: not a published file' in text

    def test_a_folder_without_published_files_is_rejected(self, tmp_path):
        with pytest.raises(UserError, match='no published weight file'):
            evaluate.evaluate_folder(tmp_path, load_results(), CONFIGS, tmp_path, {}, print)

    def test_a_real_test_finds_its_data_and_writes_the_metrics_for_the_table(self, tmp_path, monkeypatch, capsys):
        """XT with random weights on two images, with the tool."""
        image = pytest.importorskip('PIL.Image')
        for index in range(1000):
            folder = tmp_path / 'data' / 'imagenet' / 'val' / f'n{index:08d}'
            folder.mkdir(parents=True)
            if index > 1:
                continue
            image.new('RGB', (48, 40), 'red').save(folder / 'a.JPEG')
        torch.save(
            {'state_dict': create_model('moganet_xtiny').state_dict()}, tmp_path / RESULTS['cls-001'].weights_file
        )
        monkeypatch.chdir(tmp_path)
        options = ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False',
                   'test_dataloader.batch_size=2']  # fmt: skip
        assert tool('cls-001', '--evaluate', tmp_path, '--cfg-options', *options) == 0
        measured = reproduce.find_measured(RESULTS['cls-001'], CONFIGS, tmp_path / 'work_dirs')
        assert set(measured.metrics) == {'top1', 'top5'} and measured.source.name == 'cls-001.json'


def build_tiny():
    from mogacore.models import MogaNetClassifier

    return MogaNetClassifier(10, arch=TINY_ARCH)


class TestMetafiles:
    def test_files_agree_with_the_results(self):
        for name, text in metafiles().items():
            assert (ROOT / name).read_text() == text, f'{name} is out of date: run tools/reproduce.py --write'

    def test_page_of_all_results_is_up_to_date(self):
        """Ids and published figures only; the tests of the configs check the computed sizes."""
        lines = [line.split(' | ') for line in (ROOT / 'docs' / 'model_zoo.md').read_text().splitlines()]
        found = {cells[0].removeprefix('| '): cells for cells in lines if len(cells) > 5}
        blank = [reproduce.Row(result) for result in load_results()]
        for line in model_zoo_page(blank).splitlines():
            cells = line.split(' | ')
            if len(cells) > 5 and cells[0] != '| row':
                assert found[cells[0].removeprefix('| ')][5] == cells[5]
        assert len(found) == 242 + 1

    def test_mmpretrain_builds_our_models_by_name(self, monkeypatch, tmp_path):
        from mmpretrain import ImageClassificationInferencer, get_model
        from mmpretrain.apis.model import ModelHub
        from modelindex.load_model_index import load

        import mogacore.registry  # noqa: F401, registers our classes
        from mogacore.libraries import import_quietly

        import_quietly('mmpretrain')
        monkeypatch.setattr(ModelHub, '_models_dict', {})
        monkeypatch.setattr(ModelHub, '_ModelHub__mmpretrain_registered', True)
        monkeypatch.chdir(ROOT)
        ModelHub.register_model_index(ROOT / 'model-index.yml', config_prefix=ROOT)
        index = load(str(ROOT / 'model-index.yml'))
        index.build_models_with_collections()
        configs = {result.config for result in load_results() if result.config and result.metrics}
        assert len(index.models) == len(configs) and {model.in_collection for model in index.models} == {'MogaNet'}
        by_name = {model.name: model for model in index.models}
        assert by_name[XT].weights == RESULTS['cls-001'].weights
        assert by_name[XT].results[0].metrics == {'Top 1 Accuracy': 76.5, 'Top 5 Accuracy': 93.4}
        assert by_name['moganet-tiny_3aug_8xb128_in1k-256'].weights == RESULTS['cls-005'].weights
        assert by_name['moganet-large_no-ema_8xb64-accu2_in1k-224'].weights == RESULTS['cls-042'].weights
        model = get_model(XT)
        assert type(model).__name__ == 'ImageClassifier' and type(model.backbone).__name__ == 'MogaNet'
        assert sum(p.numel() for p in model.parameters()) == 2_956_066
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
        assert get_model('moganet-xtiny_3aug_8xb128_in1k-256').backbone.blocks1[0].attn.attn_force_fp32
        torch.save({'state_dict': model.state_dict()}, tmp_path / 'weights.pth')
        inferencer = ImageClassificationInferencer(XT, pretrained=str(tmp_path / 'weights.pth'), device='cpu')
        image = torch.randint(0, 255, (240, 320, 3), generator=torch.Generator().manual_seed(0)).numpy().astype('uint8')
        (found,) = inferencer(image)
        with torch.no_grad():
            scores = model.eval().val_step(next(iter(inferencer.preprocess([image], 1))))[0].pred_score
        assert torch.allclose(torch.from_numpy(found['pred_scores']), scores, atol=1e-6)
        assert found['pred_label'] == scores.argmax()

    def test_weights_of_a_model_have_its_gate(self):
        import yaml

        for name in metafiles():
            for model in yaml.safe_load((ROOT / name).read_text()).get('Models', []):
                cfg = load_config(ROOT / model['Config'])
                result = next(r for r in load_results() if f'configs/{r.config}' == model['Config'] and r.metrics)
                if 'Weights' in model and result.attn_force_fp32 is not None:
                    assert bool(cfg.model.backbone.get('attn_force_fp32')) == result.attn_force_fp32
