"""What may be wrong with data that training accepts, one line each."""

from __future__ import annotations

from collections.abc import Iterator

from mogacore.text import shorten

IMBALANCE = 20  # ratio of the most frequent to the rarest class that is worth a note
MANY_SMALL = 0.5  # share of small boxes that is worth a note
ELONGATED = 10  # ratio of the sides of a box


def notes_of(name: str, report: dict, duplicates: dict, is_training: bool) -> list[str]:
    """The notes of a split.

    Args:
        name: Name of the split in ``duplicates``.
        report: Its statistics.
        duplicates: See :func:`mogacore.analysis.stats.duplicates.find_duplicates`.
        is_training: Whether it is the training set.
    """
    return [
        *_classes(report, is_training),
        *_boxes(report),
        *_keypoints(report),
        *_files(report),
        *_copies(name, duplicates),
    ]


def _plural(number: int, noun: str) -> str:
    return f'{number:,} {noun}' + ('' if number == 1 else 'es' if noun[-1] in 'sx' else 's')


def _classes(report: dict, is_training: bool) -> Iterator[str]:
    rows = report.get('classes') or []
    unit = next((key for key in ('objects', 'images') if rows and key in rows[0]), None)
    if unit is None:
        return
    missing = [row['name'] for row in rows if not row[unit]]
    if missing:
        effect = 'they cannot be learned' if is_training else 'they are not scored'
        yield f'{_plural(len(missing), "class")} of {len(rows)} without {unit}: {shorten(missing)}; {effect}'
    found = sorted((row for row in rows if row[unit]), key=lambda row: row[unit])
    if found and found[-1][unit] >= IMBALANCE * found[0][unit]:
        rare, most = found[0], found[-1]
        yield (
            f'class {most["name"]} has {most[unit]:,} {unit}, {rare["name"]} only {rare[unit]:,}: see weights and '
            'sampling by class in docs/own_data.md'
        )


def _boxes(report: dict) -> Iterator[str]:
    boxes, empty = report.get('boxes'), report.get('objects_per_image', {}).get('0', 0)
    if empty:
        yield f'{_plural(empty, "image")} without objects'
    if report.get('left_out'):
        yield f'{_plural(report["left_out"], "record")} left out by filter_cfg or indices of the data set'
    if not boxes:
        return
    if boxes.get('below_1px'):
        yield f'{_plural(boxes["below_1px"], "box")} narrower or lower than 1 px, which training ignores'
    if boxes.get('outside'):
        yield f'{_plural(boxes["outside"], "box")} completely outside the image, which training ignores'
    total = boxes['small'] + boxes['medium'] + boxes['large']
    if total and boxes['small'] > MANY_SMALL * total:
        share = boxes['small'] / total
        yield f'{share:.0%} of the boxes are small (below 32 x 32 px): consider larger inputs, or crops of the images'
    if total and boxes['large'] + boxes['medium'] and boxes['side']['max'] > 50 * max(boxes['side']['5%'], 1):
        yield (
            f'boxes of very different size: 5% have a side below {boxes["side"]["5%"]:.1f} px, the largest has '
            f'{boxes["side"]["max"]:.0f} px'
        )
    aspect = boxes['aspect']
    if aspect and (aspect['max'] > ELONGATED or aspect['min'] < 1 / ELONGATED):
        yield f'elongated boxes, with width / height from {aspect["min"]:.3g} to {aspect["max"]:.3g}'


def _keypoints(report: dict) -> Iterator[str]:
    if missing := [row['name'] for row in report.get('keypoints', ()) if not row['labeled']]:
        yield f'{_plural(len(missing), "keypoint")} never labeled: {shorten(missing)}'


def _files(report: dict) -> Iterator[str]:
    if unreadable := report.get('image_sizes', {}).get('unreadable'):
        yield f'{_plural(unreadable, "image")} that cannot be read'


def _copies(name: str, duplicates: dict) -> Iterator[str]:
    within = duplicates['within'].get(name, {})
    if within.get('copies'):
        yield f'{_plural(within["copies"], "image")} with the content of another one: {" = ".join(within["groups"][0])}'
    for row in duplicates['across']:
        if name in row['splits']:
            other = next(split for split in row['splits'] if split != name)
            first, second = row['examples'][0]
            yield f'{_plural(row["images"], "image")} also in {other}: {first} = {second}'
