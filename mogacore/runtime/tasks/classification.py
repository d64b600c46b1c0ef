"""Image classification: the most probable classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mogacore.files import readable
from mogacore.runtime.drawing.canvas import draw_text, shortened, text_height, text_width

from .base import Task


class Classification(Task):
    """Classes of whole images: ``probabilities`` (classes,)."""

    draws_images = False  # the overview is sufficient
    has_threshold = False
    cell_width = 160

    def describe(self, result, num_top: int = 5):
        """Labels and scores of the most probable classes, best first."""
        probabilities = result['probabilities']
        labels = np.argsort(-probabilities, kind='stable')[:num_top].tolist()
        scores = [round(score, 6) for score in probabilities[labels].tolist()]
        names = [self.class_name(label) for label in labels]
        return {
            'pred_label': labels[0],
            'pred_class': names[0],
            'pred_score': scores[0],
            'top': [{'class': name, 'score': score} for name, score in zip(names, scores, strict=True)],
        }

    def paint(self, image, result, factor):
        """List the best classes on a dark field, each with a bar as long as its probability."""
        size = text_height(image)
        top = self.describe(result)['top'][: max(1, (image.shape[0] // 2) // round(1.5 * size))]
        width = min(image.shape[1], max(text_width(entry['class'], size) for entry in top) + 6 * size)
        line = round(1.5 * size)
        field = image[: line * len(top) + size // 2, :width]
        field[:] = field // 4
        for row, entry in enumerate(top):
            y = size // 4 + row * line
            length = round(entry['score'] * (width - size))
            field[y + line - size // 4 : y + line - size // 8 + 1, size // 2 : size // 2 + length] = (120, 190, 255)
            name = shortened(entry['class'], size, width - 5 * size)
            draw_text(field, name, size // 2, y, size, (255, 255, 255))
            score = f'{entry["score"]:.1%}'
            draw_text(field, score, width - text_width(score, size) - size // 2, y, size, (255, 255, 255))
        return image

    def titles(self, records, all_records):
        """The predicted class and its score.

        If the folder of an image has the name of a predicted class, that name is taken as the true class; a wrong
        prediction is red and mentions it.
        """
        class_names = {record['pred_class'] for record in all_records}
        titles = []
        for record in records:
            title, color = f'{record["pred_class"]}  {record["pred_score"]:.0%}', 'black'
            truth = Path(record['image']).parent.name
            if truth in class_names and truth != record['pred_class']:
                title, color = f'{title}\nnot {readable(truth)}', 'red'
            titles.append((title, color))
        return titles
