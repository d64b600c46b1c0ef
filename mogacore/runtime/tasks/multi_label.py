"""Multi-label classification: the classes that an image shows."""

from __future__ import annotations

from .classification import Classification


class MultiLabel(Classification):
    """The classes of whole images, any number of them: ``probabilities`` (classes,), each in 0..1 on its own."""

    has_threshold = True

    def describe(self, result, num_top: int = 5):
        """Labels and scores of the classes with at least ``score_thr``, best first, and the best classes."""
        probabilities = result['probabilities']
        num_found = int((probabilities >= self.score_thr).sum())
        described = super().describe(result, max(num_found, num_top))
        top = described['top']
        return {
            'pred_classes': [entry['class'] for entry in top[:num_found]],
            'pred_scores': [entry['score'] for entry in top[:num_found]],
            'top': top[:num_top],
        }

    def titles(self, records, all_records):
        """The predicted classes."""
        return [(', '.join(record['pred_classes']) or 'none', 'black') for record in records]
