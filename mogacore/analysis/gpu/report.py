"""The report of a check as JSON and Markdown."""

from __future__ import annotations

from pathlib import Path

from mogacore.files import write_json, write_text

from .results import FAILED, OK, SKIPPED

JSON_NAME, MARKDOWN_NAME = 'gpu-check.json', 'gpu-check.md'
SPEED_COLUMNS = ('network', 'mode', 'precision', 'layout', 'compiled', 'batch', 'ms', 'images/s', 'peak GiB', 'note')


def write(folder: Path, report: dict) -> None:
    """Write both files."""
    write_json(folder / JSON_NAME, report, sync=report['complete'])
    write_text(folder / MARKDOWN_NAME, markdown(report), sync=report['complete'])


def markdown(report: dict) -> str:
    """The report as a Markdown page."""
    settings, counts = report['settings'], report['counts']
    lines = ['# Check of mogacore on ' + report['machine']['device'], '']
    lines += [
        f'{report["started"]}, {report["seconds"]:.0f} seconds: {counts[OK]} ok, {counts[FAILED]} failed, '
        f'{counts[SKIPPED]} skipped.'
    ]
    if not report['complete']:
        lines += ['', 'The check did not reach its end.']
    if settings['quick']:
        lines += ['', 'Quick check: tiny networks, whose figures of speed mean nothing.']
    lines += ['', '## Machine', '', '| | |', '|---|---|']
    lines += [f'| {name} | {value} |' for name, value in report['machine'].items()]
    lines += ['', '## Checks', '', '| check | result | figure | at most | note |', '|---|---|---|---|---|']
    for check in report['checks']:
        if check['part'] == 'speed' and check['status'] == OK:
            continue
        cells = [check['name'], check['status'], _number(check['figure']), _number(check['bar']), check['note']]
        lines.append(f'| {" | ".join(cell.replace("|", "/") for cell in cells)} |')
    lines += ['', '## Speed and memory', '']
    if report['speed']:
        lines += [f'| {" | ".join(SPEED_COLUMNS)} |', '|---' * len(SPEED_COLUMNS) + '|']
        lines += [_speed_line(row) for row in report['speed']]
    else:
        lines.append('Not measured.')
    return '\n'.join(lines) + '\n'


def _number(value: float | None) -> str:
    return '' if value is None else f'{value:.2g}'


def _speed_line(row: dict) -> str:
    peak = '' if row['peak_bytes'] is None else f'{row["peak_bytes"] / 2**30:.2f}'
    cells = (
        f'`{row["network"]}`', row['mode'], row['precision'], 'channels_last' if row['channels_last'] else 'contiguous',
        'yes' if row['compiled'] else 'no', f'{row["batch_size"]} of {row["image_size"]} px', f'{row["ms"]:.1f}',
        f'{row["images_per_s"]:.1f}', peak, row['note'],
    )  # fmt: skip
    return f'| {" | ".join(cells)} |'
