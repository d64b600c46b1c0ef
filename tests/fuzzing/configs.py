"""Target of the config checker: configs that change a valid one."""

from __future__ import annotations

from fuzzing.files import folder
from fuzzing.harness import SCALARS, TEXTS, VALUES, Target, near
from hypothesis import strategies as st
from mmengine.config import Config

from mogacore.analysis.configs.entries import list_entries
from mogacore.engine.check_config import OWN_SETTINGS, check_keys
from mogacore.engine.config import load_config
from mogacore.locations import find_config

BASE = 'classification/moganet-xtiny_digits'
KEYS = (
    'type', '_scope_', '_delete_', 'backbone', 'head', 'num_classes', 'arch', 'batch_size', 'dataset', 'optimizer',
    'lr', 'paramwise_cfg', 'custom_keys', 'priority', 'modle', 'optim_wraper', 'max_epoch', 'by_epoch', 'transforms',
    'a',
)  # fmt: skip
TYPES = ('MogaNet', 'ImageClassifier', 'MogaNett', 'mmdet.MaskRCNN', 'torch.optim.AdamW', 'Adam', 'LinearLR', 'no.such')
SETTINGS = (
    'default_scope', 'custom_imports', 'custom_hooks', 'param_scheduler', 'visualizer', 'launcher', 'load_from',
    'resume', 'work_dir', '_base_', 'a', 'modle', 'batch_size', *OWN_SETTINGS,
)  # fmt: skip
LINES = (
    'a = modle', 'model.backbone = 1', 'model = dict(', "model = '{{_base_.model}}'", 'del model',
    'import no_such_module', 'a = {{_base_.no.such}}', 'a = 1 / 0', "_base_ = ['no.py']", 'a = {{$NO_SUCH}}',
    'for i in range(3): pass', '\0', 'def f(x): return x', 'if True: b = 2', 'model["backbone"]["type"] = 5',
    'a: int = 3', 'a, b = 1', '\tx = 1', 'raise ValueError', 'a = [][0]', 'from mmengine.config import read_base',
    "a = 'x'.no", 'assert False', 'a = None + 1',
)  # fmt: skip


def check_config(case: tuple[dict, dict, list[str]]) -> str:
    """Read and check a config: its settings, options of the command line, and further lines of its file."""
    settings, options, lines = case
    path = folder() / 'config.py'
    text = ''.join(f'{name} = {value!r}\n' for name, value in settings.items())
    path.write_text(f'_base_ = {str(find_config(BASE))!r}\n{text}' + ''.join(f'{line}\n' for line in lines))
    cfg = load_config(path, options)
    check_keys(cfg)
    list_entries(cfg, options, [])
    return 'accepted'


def _dotted(content: object, path: str = '') -> list[str]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [
        found
        for key, value in items
        for found in (f'{path}{key}', *_dotted(value, f'{path}{key}.'))
    ]  # fmt: skip


@st.composite
def _settings(draw, content: dict) -> dict:
    """Up to three top-level settings: one of the base with edits, or any value."""
    settings = {}
    for _ in range(draw(st.integers(0, 2))):
        if draw(st.booleans()):
            name = draw(st.sampled_from(sorted(content)))
            (settings[name],) = draw(near([[content[name]]], KEYS, VALUES_OF_CONFIGS, 2))[:1] or [None]
        else:
            settings[draw(st.sampled_from(SETTINGS))] = draw(VALUES_OF_CONFIGS)
    return settings


OTHERS = st.one_of(
    st.sampled_from(TYPES), st.tuples(SCALARS), st.dictionaries(st.one_of(st.sampled_from(KEYS), SCALARS), SCALARS),
    st.builds(set),
)  # fmt: skip
VALUES_OF_CONFIGS = st.one_of(VALUES, OTHERS, st.builds(lambda kind: {'type': kind}, st.one_of(SCALARS, OTHERS)))


def config_target() -> Target:
    """Configs with other settings, options and lines."""
    content = Config.fromfile(find_config(BASE)).to_dict()
    paths = _dotted(content)
    keys = st.one_of(
        st.sampled_from(paths),
        st.builds('{}.{}'.format, st.sampled_from(paths), st.sampled_from((*KEYS, '0', '99', '', '.'))),
        st.sampled_from(TEXTS),
        st.sampled_from(SETTINGS),
    )
    options = st.dictionaries(keys, VALUES_OF_CONFIGS, max_size=2)
    lines = st.lists(st.sampled_from(LINES), max_size=1)
    return Target(st.tuples(_settings(content), options, lines), check_config, [({}, {}, [])])
