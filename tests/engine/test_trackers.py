"""Trackers get what the JSON log of the run has, once per step, also after a resume."""

import json
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from unittest import mock

import pytest
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from toy_runs import toy_run

from mogacore.cli.train import main
from mogacore.engine import trackers
from mogacore.engine.trackers import FOLDER, add_trackers
from mogacore.errors import UserError

EVERY_STEP = "default_hooks['logger'] = dict(type='LoggerHook', interval=1)\n"


def json_log(work_dir, name):
    """Value of a scalar by step; the last run counts."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    return {line['step']: line[name] for line in lines if name in line}


def test_tensorboard_has_the_losses_of_the_json_log_after_an_interrupted_run(tmp_path):
    """The first run logs 18 steps, but its last checkpoint is that of step 12."""
    accumulators = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    toy_run(tmp_path, 'run', config=EVERY_STEP, track=['tensorboard'], train_cfg__max_epochs=3)
    (tmp_path / 'run' / 'epoch_3.pth').unlink()
    toy_run(tmp_path, 'run', 'auto', config=EVERY_STEP, track=['tensorboard'], optim_wrapper__optimizer__lr=0.5)
    log = accumulators.EventAccumulator(str(tmp_path / 'run' / FOLDER / 'tensorboard'))
    log.Reload()
    for name in ('loss', 'lr'):
        found = [(event.step, event.value) for event in log.Scalars(name)]
        assert [step for step, _ in found] == list(range(1, 37))
        assert dict(found) == pytest.approx(json_log(tmp_path / 'run', name))
    assert [event.step for event in log.Scalars('time')] == list(range(1, 37))  # no times of validations
    assert {event.step for event in log.Scalars('toy/score')} == set(json_log(tmp_path / 'run', 'toy/score'))
    assert 'config/text_summary' in log.Tags()['tensors']


class Calls(ModuleType):
    """Stands in for a package: records every call of its functions."""

    def __init__(self, name):
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.calls = []
        self.config = self.run = SimpleNamespace(update=mock.Mock(), log_code=mock.Mock())

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)

        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return SimpleNamespace(info=SimpleNamespace(run_id='run-1'))

        return call

    def of(self, name):
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


@pytest.fixture
def package(request, monkeypatch):
    module = Calls(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


@pytest.mark.parametrize('package', ['wandb'], indirect=True)
def test_wandb_gets_every_loss_and_a_resumed_run_its_id(package, tmp_path):
    """Through mmengine's backend; checked with wandb 0.31 in November 2026."""
    config = EVERY_STEP + "visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend'), "
    config += "dict(type='WandbVisBackend', init_kwargs=dict(project='shapes'))])\n"
    toy_run(tmp_path, 'run', config=config, track=['wandb'], train_cfg__max_epochs=2)
    toy_run(tmp_path, 'run', 'auto', config=config, track=['wandb'], train_cfg__max_epochs=3)
    toy_run(tmp_path, 'other', config=config, track=['wandb'], train_cfg__max_epochs=2)
    inits = [kwargs for _, kwargs in package.of('init')]
    assert [(one['project'], one['name'], one['resume']) for one in inits] == [
        ('shapes', 'run', 'allow'), ('shapes', 'run', 'allow'), ('shapes', 'other', 'allow'),
    ]  # fmt: skip
    assert inits[0]['id'] == inits[1]['id'] != inits[2]['id']
    logged = [args[0] for args, _ in package.of('log')]
    losses = [(line['iter'], line['loss']) for line in logged if 'loss' in line]
    assert dict(losses[:18]) == json_log(tmp_path / 'run', 'loss') and len(losses) == 18 + 12
    assert len(package.of('finish')) == 3


@pytest.mark.parametrize('package', ['mlflow'], indirect=True)
def test_mlflow_gets_every_loss_and_a_resumed_run_continues(package, tmp_path, monkeypatch):
    """Through mmengine's backend; checked with mlflow-skinny 3.17 in November 2026."""
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    toy_run(tmp_path, 'run', config=EVERY_STEP, track=['mlflow'], train_cfg__max_epochs=2)
    toy_run(tmp_path, 'run', 'auto', config=EVERY_STEP, track=['mlflow'], train_cfg__max_epochs=3)
    folder = tmp_path / 'run' / FOLDER / 'mlflow'
    assert package.of('set_tracking_uri')[0][0] == (f'sqlite:///{folder}/mlflow.db',)
    assert [kwargs for _, kwargs in package.of('start_run')] == [
        dict(run_id=None, run_name='run'), dict(run_id='run-1', run_name=None),
    ]  # fmt: skip
    losses = {args[1]: args[0]['loss'] for args, _ in package.of('log_metrics') if 'loss' in args[0]}
    assert losses == json_log(tmp_path / 'run', 'loss')
    assert not package.of('log_params') and not package.of('log_artifact')
    assert len(package.of('end_run')) == 2


@pytest.mark.parametrize('package', ['wandb', 'mlflow'], indirect=True)
def test_only_rank_0_writes(package, tmp_path, monkeypatch):
    cfg = Config(dict(work_dir=str(tmp_path / 'run')))
    add_trackers(cfg, [package.__name__])
    monkeypatch.setattr('mmengine.dist.utils.get_rank', lambda group=None: 1)
    visualizer = VISUALIZERS.build(dict(cfg.visualizer, name=tmp_path.name, save_dir=str(tmp_path)))
    visualizer.add_config(cfg)
    visualizer.add_scalars(dict(loss=1.0, iter=1), step=1)
    visualizer.close()
    assert package.calls == [] and not (tmp_path / 'run').exists()


@pytest.mark.parametrize('name', ['tensorboard', 'wandb', 'mlflow'])
def test_a_missing_package_is_one_line_with_the_pip_command(name, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, 'find_spec', lambda package: None)
    config = tmp_path / 'config.py'
    config.write_text("model = dict(type='ToyLine')\n")
    with pytest.raises(UserError, match=f'--track {name} needs .* not installed: pip install {name}$'):
        main([str(config), '--work-dir', str(tmp_path / 'run'), '--track', name])
    assert not (tmp_path / 'run').exists()


def test_the_choices_of_the_command_are_those_of_the_package(capsys):
    with pytest.raises(SystemExit):
        main(['--help'])
    assert '{' + ','.join(trackers.TRACKERS) + '}' in capsys.readouterr().out
    with pytest.raises(UserError, match="tracker 'neptune' is unknown: choose from tensorboard, wandb, mlflow"):
        trackers.check_trackers(['neptune'])
