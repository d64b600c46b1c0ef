"""A drawing whose prediction is known: a bright red rectangle, and models that find it."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import own_data_makers as own_data
import torch
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from onnx_files import write_detector
from PIL import Image

from mogacore import images
from mogacore.inference.predictor import infer
from mogacore.runtime import Predictor

SIZE = 64, 48  # width, height
BOX = [8, 16, 40, 40]  # corners of the red rectangle; multiples of 8, so that JPEG keeps them
RED, BACK = (230, 20, 40), (40, 60, 90)
TOLERANCE = 1.0  # px
ORIENTATION = 0x0112


@MODELS.register_module(force=True)
class RedBox(own_data.Oracle):
    """A detector of one box around all pixels with red above 127; images come as BGR."""

    def predict(self, image, sample):
        rows, columns = torch.nonzero(image[2] > 127, as_tuple=True)
        boxes = torch.zeros(0, 4)
        if len(rows):
            corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            boxes = torch.stack(corners)[None].float()
        labels = torch.zeros(len(boxes), dtype=torch.long)
        sample.pred_instances = InstanceData(bboxes=boxes, scores=torch.ones(len(boxes)), labels=labels)


def draw(size=SIZE, box=BOX):
    """(H, W, 3) uint8 RGB."""
    image = np.full((size[1], size[0], 3), BACK, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = RED
    return image


def encoded(image, kind='PNG', **settings):
    """The content of a file of a Pillow image or an RGB array."""
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def turned(orientation, kind='JPEG', **settings):
    """A file that is stored such that a viewer shows the drawing."""
    back = {2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM', 5: 'TRANSPOSE', 6: 'ROTATE_90',
            7: 'TRANSVERSE', 8: 'ROTATE_270'}  # fmt: skip
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(draw())
    if orientation in back:
        image = image.transpose(getattr(Image.Transpose, back[orientation]))
    return encoded(image, kind, exif=exif, **settings)


def png_header(width, height, depth=8, color=2, interlace=0):
    """A PNG file that ends after its header and an empty part of the pixels."""
    chunk = b'IHDR' + struct.pack('>IIBBBBB', width, height, depth, color, 0, 0, interlace)
    header = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + chunk + struct.pack('>I', zlib.crc32(chunk))
    return header + struct.pack('>I', 0) + b'IDAT' + struct.pack('>I', zlib.crc32(b'IDAT'))


def png(header, body):
    """A complete PNG file.

    Args:
        header: Of :func:`png_header`.
        body: The filtered rows, compressed.
    """
    file = header[:33]
    for kind, data in ((b'IDAT', body), (b'IEND', b'')):
        file += struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    return file


def black_png(width, height, channels=3):
    """A PNG file of black pixels: about a megabyte for hundreds of millions of them."""
    packer = zlib.compressobj(9, wbits=-15)
    row = packer.compress(bytes(1 + width * channels)) + packer.flush(zlib.Z_FULL_FLUSH)  # independent of the others
    checksum = struct.pack('>I', (height * (1 + width * channels) % 65521) << 16 | 1)  # Adler-32 of zeros
    body = b'\x78\xda' + row * height + b'\x03\0' + checksum
    return png(png_header(width, height, color={1: 0, 3: 2}[channels]), body)


def interlaced(image):
    """A PNG file whose pixels are stored in the seven passes of Adam7."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = [image[y, left::across] for left, top, across, down in passes for y in range(top, len(image), down)]
    body = zlib.compress(b''.join(b'\0' + row.tobytes() for row in rows))
    return png(png_header(image.shape[1], image.shape[0], interlace=1), body)


def jpeg_of_size(width, height):
    """A JPEG file whose header states another size than its pixels have."""
    content = bytearray(encoded(draw(), 'JPEG'))
    at = content.index(b'\xff\xc0')
    content[at + 5 : at + 9] = struct.pack('>HH', height, width)
    return bytes(content)


class Detectors:
    """The two detectors of the drawing, below a folder: with torch, and as an exported file."""

    def __init__(self, root: Path):
        root = root / 'detectors'
        root.mkdir()
        project = own_data.coco(root)
        project.config.model = dict(type='mmengine.RedBox', roi_head=dict(bbox_head=dict(num_classes=3)))
        self.config, self.weights, _ = project.write_config()
        self.exported = write_detector(root / 'detector.onnx')

    def infer(self, source, out='out', **settings):
        """Records of ``mogacore infer``."""
        return list(infer(self.config, self.weights, source, out, device='cpu', **settings))

    def predictor(self):
        return Predictor(self.exported, 'onnxruntime', threads=1)


def box_of(record):
    """The only box of a record."""
    (instance,) = record['instances']
    return instance['bbox']


def check_box(record, expected=BOX, tolerance=TOLERANCE):
    np.testing.assert_allclose(box_of(record), expected, atol=tolerance)


def check_report(out, number):
    """Whether the JSON file has the records of so many images, and each drawing is an image."""
    report = json.loads((Path(out) / 'predictions.json').read_text())
    assert len(report['predictions']) == number
    for record in report['predictions']:
        if 'drawn' in record:
            assert images.read(Path(out, record['drawn'])) is not None
    return report
