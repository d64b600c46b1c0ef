"""The report of a config's data as text for the screen."""

from __future__ import annotations

from mogacore.files import readable
from mogacore.text import shorten

MAX_CLASSES = 40  # the most frequent ones, since the JSON lists all


def format_report(result: dict) -> str:
    """Text of the result of :func:`mogacore.analysis.stats.statistics`."""
    blocks = [_format_split(name, report) for name, report in result['splits'].items()]
    duplicates = result['duplicates']
    if not duplicates['complete']:
        blocks.append(f'Only {duplicates["compared"]:,} images were compared: --check full compares all.')
    return '\n\n'.join(blocks)


def _format_split(name: str, report: dict) -> str:
    lines = [f'{name}: {readable("; ".join(report["data"]))}']
    lines += [f'  {label:<20}{text}' for label, text in _facts(report) if text]
    if rows := report.get('classes'):
        lines += ['', *_table(rows)]
    for kind in ('problems', 'notes'):
        if report[kind]:
            lines += ['', f'  {kind}:', *(f'  - {readable(line)}' for line in report[kind])]
    return '\n'.join(lines)


def _facts(report: dict) -> list[tuple[str, str]]:
    sizes, boxes = report.get('image_sizes', {}), report.get('boxes', {})
    facts = [(key, f'{report[key]:,}') for key in ('images', 'objects', 'sequences') if key in report]
    if 'inputs' in report:
        frames = [f'{row["width"]} x {row["height"]} x {row["channels"]}' for row in report['frame_sizes']]
        facts += [('frames', f'{report["inputs"]} input, {report["targets"]} target, {", ".join(frames)}')]
        facts += [(f'{key} of values', _spread(report[key])) for key in ('mean', 'std')]
    for key in ('objects_per_image', 'classes_per_image', 'labels_per_image'):
        counts = report.get(key, {})
        facts.append((key.replace('_', ' '), _shares(counts)))
    if 'hands' in report:
        facts.append(('hands', ', '.join(f'{count:,} {side}' for side, count in report['hands'].items())))
    if 'keypoints' in report:
        facts.append(('labeled', _labeled(report['keypoints'], report['objects'])))
    if 'maps_read' in report:
        facts.append(('maps read', f'{report["maps_read"]:,}, ignored pixels {report["ignored_share"]:.1%}'))
    if sizes.get('read'):
        common = [f'{row["width"]} x {row["height"]} ({row["images"]:,})' for row in sizes['common']]
        facts.append(
            (
                'image sizes',
                ', '.join(common) + (f', of {sizes["read"]:,} images' if sizes['read'] < report['images'] else ''),
            )
        )
        if len(common) > 1:
            facts += [(f'image {key}', _spread(sizes[key])) for key in ('width', 'height', 'aspect')]
    if boxes:
        counts = ', '.join(f'{boxes[key]:,} {key}' for key in ('small', 'medium', 'large'))
        facts.append(('boxes', f'{counts} (limits 32 x 32 and 96 x 96 px)'))
        facts += [(f'box {key}', _spread(boxes[key])) for key in ('width', 'height', 'side', 'aspect')]
        facts.append(('crowd regions', f'{boxes["crowd"]:,}' if boxes.get('crowd') else ''))
    return facts


def _spread(values: dict[str, float]) -> str:
    names = ('min', '5%', 'median', '95%', 'max')
    return ', '.join(f'{name} {values[name]:.4g}' for name in names) if values else ''


def _shares(counts: dict[str, int]) -> str:
    """Numbers of images by number of objects, the largest numbers in one."""
    shown = list(counts.items())
    text = [f'{number}: {count:,}' for number, count in shown[:8]]
    if len(shown) > 8:
        text.append(f'{shown[8][0]} or more: {sum(count for _, count in shown[8:]):,}')
    return ', '.join(text)


def _labeled(rows: list[dict], total: int) -> str:
    """Keypoints by the number of objects in which they are labeled."""
    groups: dict[int, list[str]] = {}
    for row in rows:
        groups.setdefault(row['labeled'], []).append(row['name'])
    texts = [f'{number:,} ({number / max(total, 1):.0%}): {shorten(groups[number])}' for number in sorted(groups)]
    if len(groups) > 1:
        return '; '.join(texts)
    return f'each of {len(rows)} keypoints in {rows[0]["labeled"]:,} objects'


def _table(rows: list[dict]) -> list[str]:
    units = [key for key in rows[0] if key != 'name']
    total = sum(row[units[0]] for row in rows) or 1
    shown = sorted(rows, key=lambda row: -row[units[0]])[:MAX_CLASSES]
    cells = [['class', *units, 'share']]
    cells += [[row['name'], *(f'{row[unit]:,}' for unit in units), f'{row[units[0]] / total:.1%}'] for row in shown]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        '  '
        + '  '.join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in cells
    ]
    return lines + ([f'  and {len(rows) - len(shown)} more classes, in the JSON'] if len(shown) < len(rows) else [])
