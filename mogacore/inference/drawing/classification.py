"""Image classification: the most probable classes."""

from __future__ import annotations

from pathlib import Path

from mogacore.files import readable

from .base import Task


class Classification(Task):
    """Classes of whole images, with mmpretrain."""

    visualizer_type = 'UniversalVisualizer'
    draws_images = False  # the overview is sufficient
    cell_inches = 1.6

    def describe(self, sample, num_top: int = 5):
        """Labels and scores of the most probable classes, best first."""
        top_scores, top_labels = sample.pred_score.topk(min(num_top, len(sample.pred_score)))
        names = [self.class_name(label) for label in top_labels.tolist()]
        return {
            'pred_label': top_labels[0].item(),
            'pred_class': names[0],
            'pred_score': round(top_scores[0].item(), 6),
            'top': [
                {'class': name, 'score': round(score, 6)}
                for name, score in zip(names, top_scores.tolist(), strict=True)
            ],
        }

    def paint(self, image, sample, factor):
        return self.visualizer.visualize_cls(image, sample, draw_gt=False)

    def titles(self, records):
        """The predicted class and its score.

        If the folder of an image has the name of a predicted class, that name is taken as the true class; a wrong
        prediction is red and mentions it.
        """
        class_names = {record['pred_class'] for record in records}
        titles = []
        for record in records:
            title, color = f'{record["pred_class"]}  {record["pred_score"]:.0%}', 'black'
            truth = Path(record['image']).parent.name
            if truth in class_names and truth != record['pred_class']:
                title, color = f'{title}\nnot {readable(truth)}', 'red'
            titles.append((title, color))
        return titles
