"""The report as one HTML file with all pictures in it."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mogacore.runtime.drawing.canvas import draw_text, text_width

from .findings import Findings, Panel

GAP, TITLE_SIZE = 6, 14  # pixels
QUALITY = 85

TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{{ report.config }}: errors</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1240px; padding: 0 1rem; color: #222 }
  h1 { font-size: 1.4rem } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums }
  th, td { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid #e3e3e3 }
  th:first-child, td:first-child, td.text { text-align: left }
  .scroll { max-height: 32rem; overflow: auto; display: inline-block }
  .pictures, .images { display: flex; flex-wrap: wrap; gap: 1.2rem } img { max-width: 100% }
  figure { margin: 0 } figcaption, p.note { color: #555; font-size: .85rem; max-width: 50rem; overflow-wrap: anywhere }
  .images figure { max-width: 820px } .warning { background: #fff2cc; padding: .4rem .8rem }
</style>
</head>
<body>
<h1>Errors of {{ report.config }}</h1>
<p class="note">{{ report.task }}, {{ number }} {{ unit }}s, predictions {{ report.predictions }}, checkpoint
{{ report.checkpoint }}</p>
{% for note in report.notes %}<p class="warning">{{ note }}</p>{% endfor %}
<h2>Scores</h2>
<table><tr><th>score</th><th>from the predictions</th><th>reported by the test</th></tr>
{% for name, value, reported in scores %}
<tr><td>{{ name }}</td><td>{{ value }}</td><td>{{ reported }}</td></tr>
{% endfor %}</table>
<div class="pictures">
{% for picture in findings.pictures.values() %}
<figure><h2>{{ picture.title }}</h2>
<img alt="{{ picture.title }}" src="data:image/png;base64,{{ picture.image | b64 }}">
<figcaption>{{ picture.note }}</figcaption></figure>
{% endfor %}</div>
{% for table in findings.tables.values() if table.rows %}
<h2>{{ table.title }}</h2><p class="note">{{ table.note }}</p>
<div class="scroll"><table><tr>{% for name in table.rows[0] %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for value in row.values() %}
<td{% if value is string %} class="text"{% endif %}>{{ value | number }}</td>{% endfor %}</tr>{% endfor %}
</table></div>
{% endfor %}
{% for title, entries in drawn.items() if entries %}
<h2>The {{ title }} {{ unit }}s</h2>
<div class="images">
{% for entry in entries %}
<figure><img alt="{{ entry.name }}" loading="lazy" src="data:image/jpeg;base64,{{ entry.image | b64 }}">
<figcaption>{{ entry.caption }}<br>{{ entry.name }}</figcaption></figure>
{% endfor %}</div>
{% endfor %}
</body>
</html>
"""


@dataclass(frozen=True)
class Drawn:
    """A sample with its truth and prediction side by side.

    Args:
        index: Its index in the test set.
        name: Its image.
        score: How good the prediction is.
        caption: One line.
        image: Content of a JPEG file.
    """

    index: int
    name: str
    score: float
    caption: str
    image: bytes


def join_panels(panels: list[Panel], width: int) -> bytes:
    """Images side by side, each below its title.

    Args:
        panels: Titles and images (H, W, 3) uint8 RGB of any sizes.
        width: Largest width of an image in pixels; larger ones are reduced.

    Returns:
        Content of a JPEG file.
    """
    resized = []
    for title, image in panels:
        scale = min(1.0, width / image.shape[1], 1.5 * width / image.shape[0])
        if scale < 1:
            size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        resized.append((title, image))
    top = round(1.6 * TITLE_SIZE)
    height = top + max(image.shape[0] for _, image in resized)
    columns = []
    for title, image in resized:
        column = np.full((height, max(image.shape[1], text_width(title, TITLE_SIZE)) + GAP, 3), 255, np.uint8)
        column[top : top + image.shape[0], : image.shape[1]] = image
        draw_text(column, title, 0, 0, TITLE_SIZE)
        columns.append(column)
    joined = np.concatenate(columns, axis=1)[:, :-GAP]
    return cv2.imencode('.jpg', joined[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def render(report: dict[str, Any], findings: Findings, drawn: dict[str, list[Drawn]], unit: str) -> str:
    """The page.

    Args:
        report: Content of ``report.json``.
        findings: Figures and tables.
        drawn: Samples by 'worst' and 'best'.
        unit: What a sample is.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters['b64'] = lambda content: base64.b64encode(content).decode()
    environment.filters['number'] = format_number
    reported = {name.rpartition('/')[2]: value for name, value in report['evaluator'].items()}
    names = dict.fromkeys([*findings.scores, *reported])
    scores = [(name, *(format_number(part.get(name), 6) for part in (findings.scores, reported))) for name in names]
    return environment.from_string(TEMPLATE).render(
        report=report, findings=findings, drawn=drawn, unit=unit, scores=scores, number=report[f'num_{unit}s']
    )


def format_number(value: Any, digits: int = 4) -> str:
    """A value of a table as text; nothing for a number that is not known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ''
    if isinstance(value, float):
        return f'{value:.{digits}g}'
    return f'{value:,}' if isinstance(value, int) else str(value)
