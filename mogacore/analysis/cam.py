"""Class activation maps: which parts of an image a prediction depends on.

For each task one number is explained: the logit of a class, of a detected box, of the pixels of a class, or of
keypoints. The methods are those of the grad-cam package, which needs only that number.

Source of Grad-CAM: Selvaraju et al., arXiv 1610.02391; the other methods are named in :data:`METHODS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mogacore.analysis.classifiers import ModelSpec, build_classifier, build_preprocess
from mogacore.analysis.explained import (
    Explained,
    ExplainedAnchor,
    ExplainedBox,
    ExplainedClass,
    ExplainedKeypoints,
    ExplainedPixels,
)
from mogacore.analysis.maps import Trace, as_maps, check_layer, get_layer, last_map, trace
from mogacore.engine.config import load_config
from mogacore.engine.devices import choose_device
from mogacore.errors import UserError, accepting, refuse_unused
from mogacore.files import make_folder, write_figure, write_json, write_npz
from mogacore.inference.predictor import ImageLoader, Predictor, dataset_meta
from mogacore.runtime.drawing.canvas import LEGIBLE_SIDE

# Names on the command line and in the grad-cam package. FullGrad is excluded: it pairs biases with gradients in the
# order in which layers are defined, but a Moga block runs them in another order.
METHODS = {
    'gradcam': 'GradCAM',
    'gradcam++': 'GradCAMPlusPlus',
    'xgradcam': 'XGradCAM',
    'hirescam': 'HiResCAM',
    'layercam': 'LayerCAM',
    'eigencam': 'EigenCAM',
    'eigengradcam': 'EigenGradCAM',
    'scorecam': 'ScoreCAM',
    'ablationcam': 'AblationCAM',
}
GRADIENT_FREE = ('eigencam', 'scorecam', 'ablationcam')


def explain(spec: ModelSpec, image: str | Path, data: str | None = None, device: str | None = None) -> Explained:
    """Load a model and an image, ready to be explained.

    Args:
        spec: The model: a config of any task, or a classifier by name.
        image: Image file; a pose model takes the whole image as the box of the object.
        data: Config whose test pipeline a classifier by name uses.
        device: torch device; None is a GPU if available.

    Raises:
        UserError: If the model, its weights or the image are missing or invalid.
    """
    preprocess: BaseDataPreprocessor
    loader: ImageLoader
    if spec.is_config:
        if spec.checkpoint is None:
            raise UserError(f'model {spec.name} needs trained weights: write {spec.name}@CHECKPOINT')
        predictor = loader = Predictor(spec.name, spec.checkpoint, device)
        network, preprocess, meta = predictor.model, predictor.model.data_preprocessor, predictor.samples.meta
        (item,) = predictor.samples.inputs(predictor.load(Path(image)), None)
        batch = preprocess(pseudo_collate([predictor.prepare(item)]), False)
        scope = load_config(spec.name).default_scope
    else:
        if data is None:
            raise UserError(f'{spec.name} has no image pipeline: name a config that has one with --data CONFIG')
        cfg = load_config(data)
        preprocess = build_preprocess(cfg).to(choose_device(device))
        loader = ImageLoader(cfg)
        batch = preprocess(pseudo_collate([loader.prepare(loader.load(Path(image)))]), False)
        inputs = batch['inputs']
        network = build_classifier(spec, preprocess.num_classes or 1000, inputs.shape[1]).to(inputs.device).eval()
        with accepting(spec.name, inputs.shape[1:]), torch.no_grad():
            network(inputs)
        scope, meta = 'mmpretrain', dataset_meta(cfg, {})
    inputs = batch['inputs']
    common = (network, inputs, denormalize(inputs[0], preprocess, loader.channel_order))
    if scope == 'mmpose':
        names = [meta['keypoint_id2name'][number] for number in sorted(meta['keypoint_id2name'])]
        return ExplainedKeypoints(*common, names)
    if scope == 'mmdet':
        kind = ExplainedBox if hasattr(network, 'roi_head') else ExplainedAnchor
        return kind(*common, meta['classes'], samples=batch['data_samples'])
    if scope == 'mmseg':
        return ExplainedPixels(*common, meta.get('classes'))
    logits = (lambda images: network(images, mode='tensor')) if spec.is_config else network
    return ExplainedClass(*common, meta.get('classes'), logits=logits)


def denormalize(image: Tensor, preprocess: BaseDataPreprocessor, channel_order: str = 'bgr') -> np.ndarray:
    """Convert a normalized image (C, H, W) to (H, W, 3) uint8 RGB.

    Args:
        image: Input of the network.
        preprocess: What normalized it.
        channel_order: Of the images before: 'bgr', 'rgb' or 'gray'.
    """
    if hasattr(preprocess, 'mean'):
        image = image * preprocess.std + preprocess.mean
    pixels = image.clamp(0, 255).round().byte().permute(1, 2, 0).cpu().numpy()
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    is_converted = getattr(preprocess, 'to_rgb', False) or getattr(preprocess, '_channel_conversion', False)
    return np.ascontiguousarray(pixels if bool(is_converted) == (channel_order == 'bgr') else pixels[..., ::-1])


def activation_map(
    explained: Explained,
    method: str = 'gradcam',
    layers: Sequence[str] | None = None,
    traced: Trace | None = None,
) -> np.ndarray:
    """Compute the activation map of a target.

    Args:
        explained: Network and image, with the target chosen.
        method: One of ``METHODS``.
        layers: Names of layers; maps of several layers are averaged. None is
            :func:`mogacore.analysis.maps.last_map`.
        traced: Output of :func:`trace_explained`; None runs it.

    Returns:
        (H, W), values in [0, 1], at the size of the network's input.

    Raises:
        UserError: If the method or a layer is unknown, a layer has no map that the target depends on, or the grad-cam
            package is not installed.
    """
    if method not in METHODS:
        raise UserError(f'method {method!r} is unknown: choose from {", ".join(METHODS)}')
    try:
        import pytorch_grad_cam
    except ImportError:
        raise UserError('activation maps need the grad-cam package: run pip install --no-deps grad-cam ttach') from None
    traced = traced or trace_explained(explained)
    names = list(layers or [last_map(explained.network, traced)])
    modules = [get_layer(explained.network, name) for name in names]
    channels_last = [check_layer(name, traced) for name in names]
    if method not in GRADIENT_FREE:
        _check_gradients(explained, names)
    settings = {}
    if method == 'ablationcam':
        if len(set(channels_last)) > 1:
            raise UserError(f'ablationcam cannot average the layers {", ".join(names)} of two layouts: choose one')
        if channels_last[0]:  # otherwise it removes tokens instead of channels
            settings['ablation_layer'] = pytorch_grad_cam.ablation_layer.AblationLayerVit()
    cam = getattr(pytorch_grad_cam, METHODS[method])(
        # A copy, since the next layer may modify its input in place.
        explained, modules, reshape_transform=lambda out: as_maps(out, traced).clone(), **settings
    )  # fmt: skip
    try:
        with torch.enable_grad():
            (found,) = cam(explained.inputs.detach().clone(), targets=[lambda scores: scores[0]])
    except (AttributeError, TypeError) as error:
        if method != 'ablationcam':
            raise
        # The package puts a layer of one argument and no attributes in the place of the chosen one.
        raise UserError(f'ablationcam cannot replace {", ".join(names)} ({error}): choose another layer') from error
    finally:
        cam.activations_and_grads.release()
        explained.zero_grad()
    return found


def trace_explained(explained: Explained) -> Trace:
    """Shapes of what the layers of the network return for the image."""
    return trace(explained.network, lambda: explained(explained.inputs), explained.inputs)


def _check_gradients(explained: Explained, names: list[str]) -> None:
    """Raise UserError if the target does not depend on the output of a layer."""
    kept: dict[str, Tensor] = {}
    handles = [
        get_layer(explained.network, name).register_forward_hook(
            lambda _, args, out, name=name: kept.update({name: out})
        )
        for name in names
    ]
    try:
        with torch.enable_grad():
            score = explained(explained.inputs.detach().clone()).sum()
    finally:
        for handle in handles:
            handle.remove()
    for name in names:
        out = kept[name]
        if not out.requires_grad or torch.autograd.grad(score, out, retain_graph=True, allow_unused=True)[0] is None:
            raise UserError(
                f'{explained.what} {explained.target_name()} does not depend on layer {name} by a gradient: choose '
                'another with --target-layers (docs/analysis.md)'
            )


@dataclass
class Panel:
    """One panel of the figure: the activation map of a model over its image."""

    title: str
    image: np.ndarray
    activation: np.ndarray
    box: np.ndarray | None


def run(
    specs: list[ModelSpec],
    image: str | Path,
    out_dir: str | Path,
    methods: Sequence[str] = ('gradcam',),
    layers: Sequence[str] | None = None,
    target: str | None = None,
    data: str | None = None,
    device: str | None = None,
) -> dict:
    """Compute the activation maps of several models and methods; write ``cam.png``, ``cam.json`` and ``cam.npz``.

    Args:
        specs: The models.
        image: Image file.
        out_dir: Output folder, created if missing.
        methods: Some of ``METHODS``.
        layers: See :func:`activation_map`; each model uses those it has.
        target: Name or number of a class or keypoint; None is the prediction of each model.
        data: See :func:`explain`.
        device: torch device; None is a GPU if available.

    Returns:
        The content of ``cam.json``.

    Raises:
        UserError: If an argument is unknown, or a file is missing or invalid.
    """
    from rich.progress import track

    if not Path(image).is_file():
        raise UserError(f'image {image} does not exist: give the path of an image file')
    for method in methods:
        if method not in METHODS:
            raise UserError(f'method {method!r} is unknown: choose from {", ".join(METHODS)}')
    if all(spec.is_config for spec in specs):
        refuse_unused({'--data': data}, 'on models with a config of their own')
    rows: list[list[Panel]] = [[] for _ in methods]
    report: dict = {'picture': str(image), 'methods': list(methods), 'models': {}}
    arrays = {}
    unknown = set(layers or ())
    for spec in track(specs, description='explaining'):
        explained = explain(spec, image, data, device)
        explained.choose(target)
        known = {name for name, _ in explained.network.named_modules()}
        names = [name for name in layers or () if name in known]
        if layers and not names:
            raise UserError(f'{spec.label} has none of the layers {", ".join(layers)}: add a layer of {spec.label}')
        unknown.difference_update(names)
        traced = trace_explained(explained)
        names = names or [last_map(explained.network, traced)]
        with torch.no_grad():
            score = explained(explained.inputs).item()
        box = explained.box()
        report['models'][spec.label] = {
            'name': spec.name, 'target': explained.target_name(), 'score': score, 'layers': names,
            **({} if box is None else {'box': box.tolist()}),
        }  # fmt: skip
        for method, row in zip(methods, rows, strict=True):
            found = activation_map(explained, method, names, traced)
            arrays[f'{spec.label}/{method}'] = found
            row.append(Panel(f'{spec.label}: {explained.target_name()}\n{method}', explained.image, found, box))
    if unknown:
        raise UserError(f'no model has the layer {", ".join(sorted(unknown))}: correct or omit it')
    out_dir = make_folder(out_dir)
    write_npz(out_dir / 'cam.npz', arrays)
    write_json(out_dir / 'cam.json', report)
    draw(rows, out_dir / 'cam.png')
    return report


def draw(rows: list[list[Panel]], path: str | Path) -> None:
    """Draw the image and the maps over it: one row per method, one column per model."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    num_cols = 1 + len(rows[0])
    figure = Figure(figsize=(2.4 * num_cols, 2.8 * len(rows)), layout='constrained')
    grid = figure.subplots(len(rows), num_cols, squeeze=False)
    for axes, row in zip(grid, rows, strict=True):
        axes[0].imshow(enlarged(row[0].image))
        axes[0].set_title('image', fontsize=9)
        for axis, panel in zip(axes[1:], row, strict=True):
            axis.imshow(overlay(panel.image, panel.activation))
            axis.set_title(panel.title, fontsize=9, parse_math=False)
            if panel.box is not None:
                factor = _factor(panel.image)
                x1, y1, x2, y2 = panel.box * factor
                axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color='white', linewidth=1.5))
    for axis in grid.ravel():
        axis.axis('off')
    write_figure(path, figure, dpi=100)


def _factor(image: np.ndarray) -> int:
    return max(1, -(-LEGIBLE_SIDE // max(image.shape[:2])))


def enlarged(image: np.ndarray) -> np.ndarray:
    """Enlarge a small image or map by an integer factor."""
    factor = _factor(image)
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR) if factor > 1 else image


def overlay(image: np.ndarray, activation: np.ndarray) -> np.ndarray:
    """Blend a map (H, W) in [0, 1], blue to red, with its image (H, W, 3) uint8 in equal parts."""
    from pytorch_grad_cam.utils.image import show_cam_on_image

    activation = enlarged(activation.astype(np.float32)).clip(0, 1)
    return show_cam_on_image(enlarged(image).astype(np.float32) / 255, activation, use_rgb=True)
