"""Small image folders in the layouts of ImageNet and COCO, and shards as webdataset writes them."""

import io
import json
import tarfile
from itertools import chain

import numpy as np
from PIL import Image


def write_image(path, generator, size=(24, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(generator.integers(0, 255, (*size, 3), np.uint8)).save(path)


def write_class_folders(root, train='bca', val='ac'):
    """train/ with the classes of ``train`` and val/ with those of ``val``, some images in deeper folders."""
    generator = np.random.default_rng(0)
    for split, classes in (('train', train), ('val', val)):
        for name in classes:
            for number in range(5):
                deeper = 'deep/' if number == 4 else ''
                write_image(root / split / name / f'{deeper}{name}{number}.{"jpg" if number else "png"}', generator)
    return root


def write_coco(root):
    """Two folders of images, and annotations."""
    generator = np.random.default_rng(1)
    for split in ('train2017', 'val2017'):
        for number in range(4):
            write_image(root / split / f'{number:012}.jpg', generator)
    (root / 'annotations').mkdir()
    (root / 'annotations' / 'instances_train2017.json').write_text(json.dumps(dict(images=[])))
    return root


def write_tar(path, members):
    """A tar archive with the members (name, content), written by Python's tarfile as webdataset's writer does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w') as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_webdataset(folder, labels, label_file=lambda label: ('cls', str(label).encode()), per_shard=4):
    """Shards NAME-000000.tar, ... of one JPEG file and one label file per label; returns the images by member name."""
    generator = np.random.default_rng(2)
    images, members = {}, []
    for number, label in enumerate(labels):
        content = io.BytesIO()
        Image.fromarray(generator.integers(0, 255, (24, 32, 3), np.uint8)).save(content, 'JPEG')
        images[f'{number:06}.jpg'] = content.getvalue()
        suffix, text = label_file(label)
        members.append([(f'{number:06}.jpg', content.getvalue()), (f'{number:06}.{suffix}', text)])
    for shard, start in enumerate(range(0, len(members), per_shard)):
        write_tar(
            folder / f'set-{shard:06}.tar',
            chain.from_iterable(members[start : start + per_shard]),
        )
    return images
