"""Explains exceptions of data loaders in one line."""

import re

from .common import unreadable

MISSING = r"(?i)No such file or directory: '(.+\.(?:jpe?g|png|bmp|tiff?|webp))'"
NAMED = (  # messages of ours, of mmpose and of mmcv
    r"not an ordinary file: '([^']+)'",
    r'occurs when loading `([^`]+)`',
    r'failed to load image: (.+)',
)
RESIZED = r"error: .*in function 'resize'"
INVALID_MASK = r'Invalid RLE mask representation|RLE counts exceed|RLE string is malformed'
SINGLE_VALUE = r'Expected more than 1 value per channel when training'
INVALID_MASK_REMEDY = (
    'is not a valid run-length encoding of its size: recreate it, for example with pycocotools.mask.encode'
)
UNNAMED = (
    r"error: .*in function 'imdecode|cannot identify image file|image file is truncated|Truncated File Read"
    r'|data stream (contents )?when reading image file|broken PNG file'
)


def explain(error: BaseException) -> str | None:
    """Explain in one line an exception of a data loader or its workers about a corrupt or missing image, map or mask.

    Returns:
        The line, or None if the exception has another cause.
    """
    text = str(error)  # in an exception from a worker, the whole traceback: the last match is the actual message
    missing = re.findall(MISSING, text)
    if missing:
        return f'image {missing[-1]} not found: add it, or remove it from the data set'
    for pattern in NAMED:
        if named := re.findall(pattern, text):
            return unreadable(named[-1])
    if re.search(SINGLE_VALUE, text):
        return (
            'batch norm cannot train on a batch of one image whose feature map is a single pixel: use a larger '
            'batch_size, drop_last=True in the data loader, or images of 64 px or more'
        )
    if re.search(INVALID_MASK, text):
        return f'a mask of an annotation file {INVALID_MASK_REMEDY}'
    if re.search(UNNAMED, text):
        remedy = 'the loader does not report which one, but "find FOLDER -size 0" lists empty files'
        return f'an image or map of the data set is empty, truncated or not an image: {remedy}'
    if re.search(RESIZED, text):
        problem = 'an image of the data set is so elongated that the pipeline resizes one of its sides to 0 px'
        return f'{problem}: remove images such as 3000 x 1 px'
    return None
