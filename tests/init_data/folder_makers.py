"""Small data sets as label tools write them, with traps, and what was drawn: the oracle of the tests of init-data.

All show rectangles of two classes. Names have spaces and letters beyond ASCII, folders are nested, images are color,
gray, with alpha, and rotated by their EXIF orientation; one has no object.
"""

import base64
import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ('blå', 'red thing')
COLORS = {'blå': (40, 60, 220), 'red thing': (230, 40, 40)}
TURNED = 6  # EXIF orientation: rotate by 90 degrees clockwise to show it
POINTS = ('nose', 'left_ear', 'right_ear')


@dataclass
class Drawn:
    """An image as it is shown: its size, and class and box (x, y, width, height) of each object."""

    name: str
    size: tuple[int, int]
    objects: list[tuple[str, tuple[float, float, float, float]]] = field(default_factory=list)
    mode: str = 'RGB'
    orientation: int = 1

    def draw(self):
        """RGB array (H, W, 3)."""
        image = np.full((*self.size[::-1], 3), 110, np.uint8)
        for name, (x, y, width, height) in self.objects:
            image[round(y) : round(y + height), round(x) : round(x + width)] = COLORS[name]
        return image

    def save(self, folder):
        path = Path(folder, self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(self.draw()).convert(self.mode)
        if self.orientation != 1:
            exif = Image.Exif()
            exif[0x0112] = self.orientation
            image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
        else:
            image.save(path)


def scenes(is_integer=False):
    """Ten images; with ``is_integer``, boxes are whole pixels."""
    a, b = CLASSES
    drawn = [
        Drawn('one.jpg', (64, 48), [(a, (2, 4, 20, 30)), (b, (30, 10, 28, 24))]),
        Drawn('ünï côdé/photo 2 (copy).png', (64, 48), [(b, (2.5, 4.25, 20.5, 24.0)), (a, (31.125, 12, 24, 30.5))]),
        Drawn('gray.png', (40, 60), [(a, (5, 5, 20, 20))], 'L'),
        Drawn('alpha.png', (64, 64), [(b, (0, 0, 32, 32)), (b, (32, 32, 32, 32))], 'RGBA'),
        Drawn('turned.jpg', (48, 64), [(a, (4, 6, 30, 16)), (b, (10, 30, 24, 30))], orientation=TURNED),
        Drawn('empty.jpg', (64, 48)),
        Drawn('deep/er/1.png', (64, 48), [(a, (10, 10, 30, 30))]),
        Drawn('deep/er/2.png', (64, 48), [(b, (12, 8, 40, 30))]),
        Drawn('deep/1.png', (64, 48), [(a, (20, 14, 22, 26)), (b, (1, 1, 16, 18))]),
        Drawn('deep/2.png', (64, 48), [(b, (34, 4, 22, 40))]),
    ]
    if is_integer:
        for image in drawn:
            image.objects = [(name, tuple(map(round, box))) for name, box in image.objects]
    return drawn


def outline(box):
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def points(box):
    """Three keypoints of an object: x, y, visibility of each."""
    x, y, width, height = box
    return [x + width / 2, y + height / 2, 2, x, y, 2, x + width, y, 1]


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')


def coco(folder, drawn=None, name='annotations.json', image_folder='images', with_points=False):
    """Ids from 0 with gaps, extra keys, and a category that no object has."""
    drawn = scenes() if drawn is None else drawn
    content = dict(info=dict(note='ä'), licenses=[], images=[], annotations=[])
    keys = dict(keypoints=list(POINTS), skeleton=[[1, 2]]) if with_points else {}
    content['categories'] = [dict(id=0, name='nothing', supercategory='none', **keys)]
    content['categories'] += [dict(id=number, name=name, **keys) for number, name in ((7, CLASSES[1]), (3, CLASSES[0]))]
    for number, image in enumerate(drawn):
        image.save(folder / image_folder)
        width, height = image.size
        entry = dict(id=3 * number, file_name=image.name, width=width, height=height, date_captured='', flickr_url='')
        content['images'].append(entry)
        for name_of_class, box in image.objects:
            annotation = dict(id=2 * len(content['annotations']), image_id=3 * number, bbox=list(box))
            annotation |= dict(category_id=7 if name_of_class == CLASSES[1] else 3, attributes=dict(occluded=False))
            annotation |= dict(area=box[2] * box[3], iscrowd=0, segmentation=[outline(box)])
            if with_points:
                annotation |= dict(keypoints=points(box), num_keypoints=3)
            content['annotations'].append(annotation)
    write_json(folder / name, content)
    return drawn


def coco_keypoints(folder, drawn=None):
    return coco(folder, drawn, with_points=True)


def yolo(folder, drawn=None, kind='boxes'):
    """Folders images and labels, and data.yaml; the image without objects has no label file."""
    drawn = scenes() if drawn is None else drawn
    for image in drawn:
        image.save(folder / 'images')
        width, height = image.size
        lines = []
        for name, (x, y, w, h) in image.objects:
            box = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
            values = box
            if kind == 'polygons':
                values = [v / (height if i % 2 else width) for i, v in enumerate(outline((x, y, w, h)))]
            if kind == 'keypoints':
                values = [*box, *(v / (width, height, 1)[i % 3] for i, v in enumerate(points((x, y, w, h))))]
            lines.append(' '.join(map(repr, [CLASSES.index(name), *values])))
        if lines:
            path = Path(folder, 'labels', image.name).with_suffix('.txt')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('\n'.join(lines) + '\n')
    text = f'path: ../somewhere\ntrain: images\nval: images\nnc: 2\nnames:\n  0: {CLASSES[0]}\n  1: {CLASSES[1]}\n'
    if kind == 'keypoints':
        text += f'kpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\nkpt_names:\n  0: [{", ".join(POINTS)}]\n'
    (folder / 'data.yaml').write_text(text, encoding='utf-8')
    return drawn


def yolo_polygons(folder, drawn=None):
    return yolo(folder, drawn, 'polygons')


def yolo_keypoints(folder, drawn=None):
    return yolo(folder, drawn, 'keypoints')


XML = """<annotation>
<folder>JPEGImages</folder><filename>{name}</filename><source><database>ours</database></source>
<size><width>{width}</width><height>{height}</height><depth>3</depth></size><segmented>0</segmented>
{objects}</annotation>
"""
OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>0</difficult>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>
"""


def voc(folder, drawn=None, first=1):
    """Pixels from 1 as in the format of VOC, or with ``first=0`` coordinates from 0."""
    drawn = scenes(is_integer=first == 1) if drawn is None else drawn
    for image in drawn:
        image.save(folder / 'JPEGImages')
        objects = ''.join(
            OBJECT.format(x + first, y + first, x + w, y + h, name=name) for name, (x, y, w, h) in image.objects
        )
        path = Path(folder, 'Annotations', image.name).with_suffix('.xml')
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = image.size
        text = XML.format(name=Path(image.name).name, width=width, height=height, objects=objects)
        path.write_text(text, encoding='utf-8')
    return drawn


def labelme(folder, drawn=None):
    """Rectangles, polygons, and a mask, each beside its image; the image without objects has no file."""
    drawn = scenes() if drawn is None else drawn
    for image in drawn:
        image.save(folder)
        if not image.objects:
            continue
        shapes = []
        for number, (name, box) in enumerate(image.objects):
            x, y, width, height = box
            shape = dict(label=name, group_id=None, flags={}, description='')
            if number == 0:
                shape |= dict(shape_type='rectangle', points=[[x + width, y + height], [x, y]])  # from the lower right
            elif all(value == int(value) for value in box) and image.mode == 'RGBA':
                shape |= dict(shape_type='mask', points=[[x, y], [x + width - 1, y + height - 1]])
                file = io.BytesIO()
                Image.fromarray(np.full((height, width), 255, np.uint8)).save(file, 'PNG')
                shape['mask'] = base64.b64encode(file.getvalue()).decode()
            else:
                corners = outline(box)
                shape |= dict(shape_type='polygon', points=[corners[i : i + 2] for i in range(0, 8, 2)])
            shapes.append(shape)
        path = Path(folder, image.name).with_suffix('.json')
        content = dict(version='5.4.1', flags={}, shapes=shapes, imagePath=path.with_suffix('').name, imageData='aGk=')
        content['imagePath'] = Path(image.name).name
        write_json(path, content | dict(imageHeight=image.size[1], imageWidth=image.size[0]))
    return drawn


def labelme_keypoints(folder, drawn=None):
    """Rectangles and their points, of the same group; an image with one object has no groups."""
    drawn = scenes() if drawn is None else drawn
    for image in drawn:
        image.save(folder)
        shapes, is_grouped = [], len(image.objects) > 1
        for number, (name, (x, y, width, height)) in enumerate(image.objects):
            group = number if is_grouped else None
            corners = [[x, y], [x + width, y + height]]
            values = points((x, y, width, height))
            # The points come first: their order does not matter.
            for index, label in enumerate(POINTS):
                shape = dict(
                    label=label, shape_type='point', points=[values[3 * index : 3 * index + 2]], group_id=group
                )
                shapes.append(dict(shape, flags=dict(occluded=values[3 * index + 2] == 1), description=''))
            shapes.append(dict(label=name, shape_type='rectangle', points=corners, group_id=group, flags={}))
        if shapes:
            path = Path(folder, image.name).with_suffix('.json')
            content = dict(version='5.4.1', flags={}, shapes=shapes, imagePath=Path(image.name).name, imageData=None)
            write_json(path, content | dict(imageHeight=image.size[1], imageWidth=image.size[0]))
    return drawn


def class_folders(folder, splits=('',), number=6):
    """Images of each class, in nested folders; returns the class of each path."""
    labels = {}
    for split in splits:
        for name in CLASSES:
            for index in range(number):
                below = 'sub folder/' if index == 1 else ''
                suffix = '.jpg' if index == 2 else '.png'
                path = '/'.join(filter(None, (split, name, f'{below}ß {index}{suffix}')))
                box = (index + 1.0, 3.0, 40.0, 30.0)
                mode = {3: 'L', 4: 'RGBA'}.get(index, 'RGB')
                orientation = TURNED if index == 2 else 1
                Drawn(path, (64, 48), [(name, box)], mode, orientation).save(folder)
                labels[path] = name
    return labels


def class_map(image, indices=None):
    """Class index of each pixel as the image is shown: 0 is the background."""
    indices = indices or {name: number for number, name in enumerate(CLASSES, 1)}
    values = np.zeros(image.size[::-1], np.uint8)
    for name, (x, y, width, height) in image.objects:
        values[round(y) : round(y + height), round(x) : round(x + width)] = indices[name]
    return values


def masks(folder, kind='index', ending=''):
    """Images and maps: of ``index`` values, with a ``palette``, as ``colors`` with a table, or ``binary`` 0 and 255."""
    drawn = scenes(is_integer=True)
    colors = [(0, 0, 0), *(COLORS[name] for name in CLASSES)]
    for image in drawn:
        image.save(folder / 'images')
        values = class_map(image)
        if kind == 'colors':
            saved = Image.fromarray(np.array(colors, np.uint8)[values])
        elif kind == 'binary':
            saved = Image.fromarray(((values > 0) * 255).astype(np.uint8))
        else:
            saved = Image.fromarray(values)
            if kind == 'palette':
                saved.putpalette([value for color in colors for value in color])
        path = Path(folder, 'masks', image.name)
        path = path.with_name(f'{path.stem}{ending}.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        saved.save(path)
    names = ('background', *CLASSES)
    if kind == 'colors':
        rows = ['name,r,g,b', *(f'{name},{r},{g},{b}' for name, (r, g, b) in zip(names, colors, strict=True))]
        (folder / 'class_dict.csv').write_text('\n'.join(rows), encoding='utf-8')
    elif kind != 'binary':
        (folder / 'classes.txt').write_text('\n'.join(names), encoding='utf-8')
    return drawn
