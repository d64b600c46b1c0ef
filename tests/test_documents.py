"""Documents name files that exist and show examples that work."""

import re

import pytest
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

import mogacore.registry  # noqa: F401, registers our classes
from mogacore.datasets.digits import write_digits
from mogacore.engine.config import locate_data
from mogacore.libraries import import_quietly

DOCUMENTS = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document):
    text = document.read_text()
    for name in re.findall(r'(?:configs|tools|docs)/[\w./-]+\.(?:py|sh|md)', text):
        assert (ROOT / name).is_file() or name in examples(), f'{document.name} names {name}'
    for name, braces, rest in re.findall(r'`([\w.-]+)\{([\w,]+)\}([\w.-]+\.py)`', text):
        for size in braces.split(','):
            assert list((ROOT / 'configs').glob(f'**/{name}{size}{rest}')), f'{document.name} names {name}{size}{rest}'
    for link in re.findall(r'\]\(([^)#:]+)(?:#[\w-]+)?\)', text):
        assert (document.parent / link).exists(), f'{document.name} links to {link}'


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_links_into_a_document_find_their_heading(document):
    for link, anchor in re.findall(r'\]\(([^)#:]*)#([\w-]+)\)', document.read_text()):
        target = (document.parent / link) if link else document
        headings = re.findall(r'^#+ (.*)$', target.read_text(), re.MULTILINE)
        anchors = [re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings]
        assert anchor in anchors, f'{document.name} links to {link}#{anchor}'


def examples():
    """Example configs of docs/data.md by the path in their first line."""
    blocks = re.findall(r'```python\n# (configs/\S+\.py)\n(.*?)```', (ROOT / 'docs' / 'data.md').read_text(), re.DOTALL)
    return dict(blocks)


LIBRARIES = {'detection': 'mmdet', 'segmentation': 'mmseg'}


@pytest.mark.parametrize('name', examples())
def test_example_for_custom_data_loads_and_reads_it(name, tmp_path):
    task = name.split('/')[1]
    library = LIBRARIES[task]
    pytest.importorskip(library)
    code = examples()[name].replace("_base_ = './", f"_base_ = '{ROOT / 'configs' / task}/")
    (tmp_path / 'example.py').write_text(code)
    cfg = Config.fromfile(tmp_path / 'example.py')
    import_quietly(library)
    init_default_scope(library)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    heads = [model.decode_head, model.auxiliary_head] if library == 'mmseg' else [
        model.roi_head.bbox_head, model.roi_head.mask_head]  # fmt: skip
    assert [head.num_classes for head in heads] == [2, 2]

    # Store the digit scenes under the names that the example uses.
    write_digits(tmp_path / 'digits', parts=('scenes',), num_train_scenes=3, num_val_scenes=2)
    scenes = tmp_path / 'digits' / 'scenes'
    for split in ('train', 'val'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.data_root = str(tmp_path / 'own')
        own = tmp_path / 'own' / split if library == 'mmseg' else tmp_path / 'own'
        own.mkdir(parents=True, exist_ok=True)
        if library == 'mmseg':
            (scenes / split).rename(own / 'images')
            (scenes / 'segmentation' / split).rename(own / 'maps')
            dataset.img_suffix = '.png'
            assert len(DATASETS.build(dataset)) == (3 if split == 'train' else 2)
        else:
            annotations = (scenes / 'annotations' / f'instances_{split}.json').read_text()
            annotations = re.sub(r'"category_id":\d+', '"category_id":1', annotations)
            annotations = annotations.replace('"name":"0"', '"name":"red"').replace('"name":"1"', '"name":"white"')
            (own / f'{split}.json').write_text(annotations)
            dataset.filter_cfg = None
            built = DATASETS.build(dataset)
            assert len(built) == (3 if split == 'train' else 2)
            assert built.get_data_info(0)['instances'][0]['bbox_label'] == 0
    if library == 'mmdet':
        locate_data(cfg, 'train')
        assert cfg.val_evaluator.ann_file == str(tmp_path / 'own' / 'val.json')
