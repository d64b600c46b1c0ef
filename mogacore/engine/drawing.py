"""What each task says of a picture, and how it draws it: by the visualizer of its own library."""

from __future__ import annotations

import colorsys
import uuid
import warnings
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import VISUALIZERS
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mogacore.datasets.hands import BASES, BONES
from mogacore.errors import UserError

BONE_LENGTH_SUM = float(
    np.linalg.norm(BASES, axis=1).sum() + BONES.sum()
)  # mm, from the wrist on, of a hand of mean size
OVERVIEW_SIZE = 40  # pictures; more are too small to look at
LEGIBLE_SIDE = 400  # pixels; on a smaller picture the labels, whose size is fixed, would hide it


class Task:
    """How predictions of one library's models are asked for, told and drawn.

    Args:
        visualizer: Settings of the library's visualizer; None takes ``visualizer_type``.
        meta: Meta of the data set, as its class gives it: names and colours of the classes, or of the keypoints.
        score_thr: Score from which an instance, or in a drawing a keypoint, is shown.
    """

    visualizer_type = ''
    meta_keys: tuple[str, ...] = ('classes',)  # without which the meta of a checkpoint is of no use
    draws_pictures = True
    cell_inches = 3.2  # of a picture in the overview

    def __init__(self, visualizer: dict | None, meta: dict, score_thr: float):
        self.score_thr = score_thr
        self.meta = meta
        self.classes = list(meta.get('classes') or ()) or None
        # A visualizer of the same name would be this one; its backends would write beside us.
        settings = dict(visualizer or {'type': self.visualizer_type}, name=uuid.uuid4().hex, vis_backends=None)
        self.visualizer = VISUALIZERS.build(settings)
        self.visualizer.dataset_meta = {'classes': self.classes, 'palette': self._palette()}

    def _palette(self) -> list | None:
        """The colours of the classes; of a data set that has none, hues as different as can be."""
        palette = list(self.meta.get('palette') or ())
        if self.classes is None or len(palette) >= len(self.classes):
            return palette or None
        hues = [i * 0.618 % 1 for i in range(len(self.classes))]
        return [tuple(round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.7, 0.95)) for hue in hues]

    def class_name(self, label: int) -> str:
        """Name of a class; its number where the data set has no names."""
        if self.classes is None:
            return str(label)
        if label >= len(self.classes):
            raise UserError(
                f'the model predicts class {label}, but there are only {len(self.classes)} class names: '
                'set test_dataloader.dataset.metainfo.classes to those it was trained on'
            )
        return self.classes[label]

    def inputs(self, image: dict, boxes: np.ndarray | None) -> list[dict]:
        """What the pipeline is given for a loaded picture."""
        return [image]

    def join(self, samples: list[BaseDataElement]) -> BaseDataElement:
        """One prediction of a picture from those for its ``inputs``."""
        return samples[0].cpu()

    def describe(self, sample: BaseDataElement) -> dict:
        """The prediction as JSON can hold it."""
        raise NotImplementedError

    def write(self, sample: BaseDataElement, out_dir: Path, name: str) -> dict:
        """Files that belong to the record, and what it says of them."""
        return {}

    def report(self) -> dict:
        """What holds for all records."""
        return {}

    def draw(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        """The picture, (H, W, 3) uint8 RGB, with the prediction; a small one is enlarged a whole number of times."""
        factor = -(-LEGIBLE_SIDE // max(image.shape[:2]))
        if factor > 1:
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        return self.paint(image, sample, factor)

    def paint(self, image: np.ndarray, sample: BaseDataElement, factor: int) -> np.ndarray:
        """Draw a prediction into its picture that was enlarged by ``factor``."""
        raise NotImplementedError

    def show(self, image: np.ndarray, options: dict, **predictions) -> np.ndarray:
        """Let the library draw ``predictions``."""
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', '.*out of bounds', UserWarning)  # of a box along the edge
            self.visualizer.add_datasample('', image, BaseDataElement(**predictions), draw_gt=False, **options)
        return self.visualizer._image  # get_image would render it anew, a pixel off

    def titles(self, records: list[dict]) -> list[tuple[str, str]]:
        """Title and its colour for each record's picture in the overview."""
        return [(Path(record['image']).name, 'black') for record in records]


class Classification(Task):
    """Classes of whole pictures, with mmpretrain."""

    visualizer_type = 'UniversalVisualizer'
    draws_pictures = False  # the overview says all
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

        Where a picture lies in a folder that bears the name of a predicted class, that name is taken for the truth: a
        wrong prediction is red and says it.
        """
        class_names = {record['pred_class'] for record in records}
        titles = []
        for record in records:
            title, color = f'{record["pred_class"]}  {record["pred_score"]:.0%}', 'black'
            truth = Path(record['image']).parent.name
            if truth in class_names and truth != record['pred_class']:
                title, color = f'{title}\nnot {truth}', 'red'
            titles.append((title, color))
        return titles


class Detection(Task):
    """Boxes, and masks where the model has them, of objects, with mmdet."""

    visualizer_type = 'DetLocalVisualizer'

    def join(self, samples):
        """The instances from ``score_thr`` on, best first."""
        instances = samples[0].pred_instances.cpu()
        order = instances.scores.argsort(descending=True, stable=True)
        return BaseDataElement(pred_instances=instances[order[instances.scores[order] >= self.score_thr]])

    def describe(self, sample):
        instances = sample.pred_instances
        records = [
            {
                'class': self.class_name(label),
                'label': label,
                'score': round(score, 6),
                'bbox': [round(value, 2) for value in box],
            }
            for label, score, box in zip(
                instances.labels.tolist(), instances.scores.tolist(), instances.bboxes.tolist(), strict=True
            )
        ]
        if 'masks' in instances:
            for record, mask in zip(records, instances.masks, strict=True):
                record['segmentation'] = _encode_mask(mask.numpy())
        return {'instances': records}

    def paint(self, image, sample, factor):
        instances = sample.pred_instances
        if not len(instances):
            return image
        enlarged = InstanceData(bboxes=instances.bboxes * factor, labels=instances.labels, scores=instances.scores)
        if 'masks' in instances:
            enlarged.masks = instances.masks.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        return self.show(image, {'pred_score_thr': -1}, pred_instances=enlarged)


class Segmentation(Task):
    """The class of each pixel, with mmseg."""

    visualizer_type = 'SegLocalVisualizer'

    def __init__(self, visualizer, meta, score_thr):
        # mmseg draws no class without a name.
        super().__init__(visualizer, {'classes': map(str, range(256)), **meta}, score_thr)

    def join(self, samples):
        # Without the scores of all classes in all pixels.
        return BaseDataElement(pred_sem_seg=samples[0].pred_sem_seg.cpu())

    def describe(self, sample):
        """The share of the picture that each class covers, largest first."""
        labels, counts = sample.pred_sem_seg.data.unique(return_counts=True)
        order = counts.argsort(descending=True, stable=True)
        total = counts.sum().item()
        return {
            'classes': [
                {'class': self.class_name(label), 'label': label, 'share': count / total}
                for label, count in zip(labels[order].tolist(), counts[order].tolist(), strict=True)
            ]
        }

    def write(self, sample, out_dir, name):
        path = f'maps/{name}.png'
        labels = sample.pred_sem_seg.data[0].numpy()
        write_png(out_dir / path, labels.astype(np.uint8 if len(self.classes) <= 256 else np.uint16))
        return {'map': path}

    def paint(self, image, sample, factor):
        labels = sample.pred_sem_seg.data.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        return self.show(image, {}, pred_sem_seg=PixelData(data=labels))


class Pose(Task):
    """Keypoints of the objects in given boxes, with mmpose."""

    visualizer_type = 'PoseLocalVisualizer'
    meta_keys = ('keypoint_id2name', 'flip_indices', 'keypoint_colors', 'skeleton_links', 'skeleton_link_colors')

    def __init__(self, visualizer, meta, score_thr):
        super().__init__(visualizer, meta, score_thr)
        self.visualizer.set_dataset_meta(meta)
        self.thickness = self.visualizer.radius, self.visualizer.line_width

    def inputs(self, image, boxes):
        if boxes is None:
            height, width = image['img_shape']
            boxes = np.array([[0, 0, width, height, 1]], np.float32)
        return [dict(image, bbox=box[None, :4], bbox_score=box[4:], **self.meta) for box in boxes]

    def join(self, samples):
        return BaseDataElement(
            pred_instances=InstanceData.cat([sample.pred_instances for sample in samples] or [InstanceData()])
        )

    def describe(self, sample):
        instances = sample.pred_instances
        if not len(instances):
            return {'instances': []}
        return {
            'instances': [
                {
                    'bbox': [round(value, 2) for value in box.tolist()],
                    'score': round(scores.mean().item(), 6),
                    'keypoints': [
                        [round(x, 2), round(y, 2), round(score, 6)]
                        for (x, y), score in zip(keypoints.tolist(), scores.tolist(), strict=True)
                    ],
                }
                for box, keypoints, scores in zip(
                    instances.bboxes, instances.keypoints, instances.keypoint_scores, strict=True
                )
            ]
        }

    def report(self):
        return {'keypoint_names': [self.meta['keypoint_id2name'][i] for i in sorted(self.meta['keypoint_id2name'])]}

    def paint(self, image, sample, factor):
        instances = sample.pred_instances
        if not len(instances):
            return image
        scale = max(1, round(max(image.shape[:2]) / 300))
        self.visualizer.radius, self.visualizer.line_width = (scale * value for value in self.thickness)
        enlarged = InstanceData(
            bboxes=instances.bboxes * factor,
            keypoints=(instances.keypoints + 0.5) * factor - 0.5,  # 0 is the centre of the first pixel
            keypoints_visible=instances.keypoint_scores,
        )
        return self.show(image, {'draw_bbox': True, 'kpt_thr': self.score_thr}, pred_instances=enlarged)


class HandPose(Pose):
    """Joints of one hand or two in 3D, with mmpose; beside the picture the skeletons from the side and from above.

    A model that knows no camera cannot tell how large a hand is: the skeletons are those of a hand of mean size.

    Args:
        visualizer: As :class:`Task` takes it.
        meta: As :class:`Task` takes it.
        score_thr: Decides nothing: every joint of a hand is drawn.
        max_score: Score of a perfect joint.
    """

    cell_inches = 4.8

    def __init__(self, visualizer, meta, score_thr, max_score: float = 1.0):
        super().__init__(visualizer, meta, score_thr)
        self.max_score = max_score

    def join(self, samples):
        """Scores from 0 to 1, 0 for all of a hand that the model says is not there."""
        joined = super().join(samples)
        instances = joined.pred_instances
        if len(instances):
            instances.keypoint_scores = np.clip(instances.keypoint_scores / self.max_score, 0, 1)
            if 'hand_type' in instances:  # right, left
                num_joints = instances.keypoints.shape[1] // 2
                instances.keypoint_scores = instances.keypoint_scores * np.repeat(instances.hand_type, num_joints, 1)
        return joined

    def describe(self, sample):
        instances = sample.pred_instances
        if not len(instances):
            return {'instances': []}
        flat = BaseDataElement(pred_instances=self._flat(instances))
        records = super().describe(flat)['instances']
        for i, record in enumerate(records):
            record['depths_mm'] = [round(depth, 2) for depth in instances.keypoints[i, :, 2].tolist()]
            if 'hand_type' in instances:
                record['hands'] = [
                    side for side, found in zip(('right', 'left'), instances.hand_type[i], strict=True) if found
                ]
                record['left_wrist_behind_right_mm'] = round(float(instances.rel_root_depth[i]), 2)
        return {'instances': records}

    @staticmethod
    def _flat(instances):
        return InstanceData(
            bboxes=instances.bboxes, keypoints=instances.keypoints[..., :2], keypoint_scores=instances.keypoint_scores
        )

    def paint(self, image, sample, factor):
        instances = sample.pred_instances
        side = image.shape[0] // 2
        if not len(instances):
            return np.pad(image, [(0, 0), (0, side), (0, 0)], constant_values=255)
        self.score_thr = 1e-6  # those of hands that are not there have 0
        flat = self._flat(instances)
        picture = super().paint(image, BaseDataElement(pred_instances=flat), factor)
        skeletons = [self._skeleton(instances[i]) for i in range(len(instances))]
        views = [
            draw_skeletons([(joints[:, axes], links, colors) for joints, links, colors in skeletons], side, title)
            for axes, title in (([2, 1], 'from the side: depth right'), ([0, 2], 'from above: depth down'))
        ]
        beside = np.concatenate(views)
        missing = len(picture) - len(beside)  # an odd height has a row left
        return np.concatenate([picture, np.pad(beside, [(0, missing), (0, 0), (0, 0)], mode='edge')], axis=1)

    def _skeleton(self, instance):
        """Joints (K, 3) in mm, the links of the hands that are there, and their colours."""
        joints, there = instance.keypoints[0].astype(np.float64), instance.keypoint_scores[0] > 0
        if 'hand_type' in instance:
            joints[len(joints) // 2 :, 2] += float(instance.rel_root_depth[0]) if instance.hand_type.all() else 0
        pairs = zip(self.meta['skeleton_links'], self.meta['skeleton_link_colors'], strict=True)
        kept = [(link, color) for link, color in pairs if there[list(link)].all()]
        links, colors = [link for link, _ in kept], [color for _, color in kept]
        joints[:, :2] *= mm_per_pixel(joints, links)
        return joints, links, colors


def mm_per_pixel(joints: np.ndarray, links: list[tuple[int, int]]) -> float:
    """Scale at which the bones of hands have the mean length of an adult's.

    Args:
        joints: (K, 3): x, y in pixels, z in mm.
        links: The bones of the hands, 20 a hand, as pairs of joints.

    Returns:
        mm a pixel; 1 where there is no bone of any length.
    """
    if not links:
        return 1.0
    first, second = np.array(links).T
    steps = joints[first] - joints[second]
    across, deep = np.linalg.norm(steps[:, :2], axis=1), abs(steps[:, 2])
    if not across.any():
        return 1.0
    wanted = BONE_LENGTH_SUM * len(links) / 20
    low, high = 0.0, wanted / across.sum()
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if np.hypot(middle * across, deep).sum() < wanted else (low, middle)
    return high


def draw_skeletons(
    skeletons: list[tuple[np.ndarray, list[tuple[int, int]], list]], size: int, title: str
) -> np.ndarray:
    """Skeletons in the plane, to one scale, side by side where there are several, on white.

    Args:
        skeletons: For each, joints (K, 2) in mm, its links and their colours (RGB).
        size: Width and height of the picture in pixels.
        title: What stands above it.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    panel = np.full((size, size, 3), 255, np.uint8)
    head = max(14, size // 12)
    cv2.putText(
        panel, title, (4, head - 4), cv2.FONT_HERSHEY_SIMPLEX, size / 600, (90, 90, 90), 1, cv2.LINE_AA
    )  # fmt: skip
    drawn = [(joints[np.unique(links)], joints, links, colors) for joints, links, colors in skeletons if links]
    if not drawn:
        return panel
    reach = max((np.ptp(used, axis=0).max() for used, *_ in drawn), default=1.0)
    room = size / len(drawn)
    scale = 0.85 * min(room, size - head) / max(reach, 1e-6)
    for i, (used, joints, links, colors) in enumerate(drawn):
        centre = (used.min(0) + used.max(0)) / 2
        points = (joints - centre) * scale + [(i + 0.5) * room, (size + head) / 2]
        for (first, second), color in zip(links, colors, strict=True):
            ends = [tuple(round(float(value) * 16) for value in points[joint]) for joint in (first, second)]
            tint = tuple(int(value) for value in color)
            cv2.line(panel, *ends, tint, max(1, size // 90), cv2.LINE_AA, shift=4)
            cv2.circle(panel, ends[1], 16 * max(1, size // 70), tint, -1, cv2.LINE_AA, shift=4)
    return panel


# By the library that the configs of a task name as default_scope.
TASKS: dict[str, type[Task]] = {
    'mmpretrain': Classification,
    'mmdet': Detection,
    'mmseg': Segmentation,
    'mmpose': Pose,
}


def create_task(cfg: Config, meta: dict, score_thr: float) -> Task:
    """What tells and draws the predictions of a config's model; see :class:`Task`."""
    kind, settings = TASKS[cfg.get('default_scope', 'mmengine')], {}
    decoder = cfg.model.get('head', {}).get('decoder') or {}
    if decoder.get('type') in ('Hand3DHeatmap', 'RootRelativeHeatmap') or _is_iterative(cfg):
        kind = HandPose
        if decoder.get('type') == 'Hand3DHeatmap':  # the other one's scores are shares already
            settings['max_score'] = decoder.get('max_bound', 1.0)
    return kind(cfg.get('visualizer'), meta, score_thr, **settings)


def _is_iterative(cfg):
    return cfg.model.get('head', {}).get('type') == 'IterativeHandHead'


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a grey (H, W) or RGB (H, W, 3) image; folders are made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.ndim == 3:
        image = image[..., ::-1]  # OpenCV's order
    path.write_bytes(cv2.imencode('.png', image)[1].tobytes())


def draw_overview(path: Path, pictures: list[Path], titles: list[tuple[str, str]], cell_inches: float) -> None:
    """Draw pictures in a grid; of many, an even choice.

    Args:
        path: PNG file to write.
        pictures: Picture files.
        titles: Title and its colour for each.
        cell_inches: Width of a picture; an inch has 100 pixels.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    chosen = np.unique(np.linspace(0, len(pictures) - 1, OVERVIEW_SIZE).round().astype(int))
    num_cols = min(8, len(chosen))
    num_rows = -(-len(chosen) // num_cols)
    figure = Figure(figsize=(cell_inches * num_cols, (cell_inches + 0.3) * num_rows), layout='constrained')
    axes = figure.subplots(num_rows, num_cols, squeeze=False).ravel()
    for axis in axes:
        axis.axis('off')
    for axis, i in zip(axes, chosen, strict=False):
        with Image.open(pictures[i]) as image:
            axis.imshow(np.asarray(image.convert('RGB')))
        title, color = titles[i]
        axis.set_title(title, color=color, fontsize=11)
    figure.savefig(path, dpi=100)


def _encode_mask(mask: np.ndarray) -> dict:
    """A mask (H, W) bool as COCO's compressed run lengths."""
    from pycocotools import mask as coco_mask

    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {'size': list(mask.shape), 'counts': encoded['counts'].decode()}
