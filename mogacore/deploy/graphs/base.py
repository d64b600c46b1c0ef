"""The interface of what is exported: a network with its arithmetic preprocessing and its post-processing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mogacore.engine.dataset_meta import channel_order
from mogacore.errors import UserError

MAX_FLIPPED = 1e-3  # fraction of decisions, such as the class of a pixel, that rounding may change


@dataclass
class Difference:
    """Difference of an output of a file from eager PyTorch.

    Args:
        name: Name of the output and of the measure.
        value: The difference.
        limit: Largest value that is accepted.
    """

    name: str
    value: float
    limit: float

    def __str__(self):
        return f'{self.name} by {self.value:.2g}, more than {self.limit:.2g}'


def compare(name: str, found: Tensor, expected: Tensor, tolerance: float) -> Difference:
    """Difference of one output: the largest one of floats, the fraction of integers that are not equal.

    Args:
        name: Name of the output.
        found: Output of the file.
        expected: Output of eager PyTorch.
        tolerance: Limit for floats, relative to the largest absolute value.
    """
    if found.shape != expected.shape:
        return Difference(f'{name} (shape {tuple(found.shape)} instead of {tuple(expected.shape)})', float('inf'), 0.0)
    if not expected.numel():
        return Difference(name, 0.0, 0.0)
    if expected.is_floating_point():
        error = (found.float() - expected.float()).abs().max().item()
        return Difference(name, error, tolerance * expected.abs().max().item())
    return Difference(f'{name} (fraction of values)', (found != expected).float().mean().item(), MAX_FLIPPED)


class Normalize(nn.Module):
    """The arithmetic of a data preprocessor: channel order, mean and standard deviation, padding to a size divisor.

    Args:
        preprocessor: Data preprocessor of an OpenMMLab toolbox; None for none: RGB images become float32. One that
            knows no channel order, such as mmengine's base class, gives the network what the data set yields.
        loads_bgr: Whether the data set of the config yields BGR images, as files read by OpenCV are.
    """

    def __init__(self, preprocessor: nn.Module | None, loads_bgr: bool = True):
        super().__init__()
        converts = getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'to_rgb', False))
        self.wants_bgr = preprocessor is not None and loads_bgr != bool(converts)
        self.size_divisor = int(getattr(preprocessor, 'pad_size_divisor', 1))
        self.pad_value = float(getattr(preprocessor, 'pad_value', 0))
        self.size: tuple[int, int] | None = None
        test_cfg = getattr(preprocessor, 'test_cfg', None)
        if hasattr(preprocessor, 'seg_pad_val'):  # of mmseg, which pads a test image only on request
            self.size = tuple(test_cfg['size']) if test_cfg and test_cfg.get('size') else None
            self.size_divisor = int((test_cfg or {}).get('size_divisor') or 1)
        self.mean: Tensor | None
        self.std: Tensor | None
        is_normalized = getattr(preprocessor, '_enable_normalize', False)
        for name in ('mean', 'std'):
            self.register_buffer(name, getattr(preprocessor, name).clone().float() if is_normalized else None)

    def forward(self, images: Tensor) -> Tensor:
        """RGB or gray images (B, C, H, W), 0..255, to the input of the network."""
        x = images.float()
        if self.wants_bgr and x.shape[1] == 3:
            x = x.flip(1)
        if self.mean is not None and self.std is not None:
            x = (x - self.mean) / self.std
        height, width = x.shape[-2:]
        if self.size is not None:
            return F.pad(x, (0, max(self.size[1] - width, 0), 0, max(self.size[0] - height, 0)), value=self.pad_value)
        if self.size_divisor > 1:
            step = self.size_divisor
            below, right = ((side + step - 1) // step * step - side for side in (height, width))
            return F.pad(x, (0, right, 0, below), value=self.pad_value)
        return x


class Graph(nn.Module):
    """What is exported. Subclasses define :meth:`forward`.

    Args:
        model: Model built from the config, with its weights, in eval mode, fused or not. The graph may replace parts of
            it by equivalent ones.
        cfg: The config of the model.
        meta: Metainfo of the data set, such as the flip pairs of keypoints.

    Attributes:
        task: What the outputs are: 'classification', 'detection', ...
        output_names: A name per output, in order.
        input_names: A name per input, in order.
        dynamic: Which axes of the first input may vary in the file: 'batch', 'height', 'width'. Without 'batch', the
            batch size is 1.
        size_step: Height and width must be multiples of it.
        traced_side: An example with a smaller height or width would fix it, since a stage leaves a single pixel of it.
        normalize: The preprocessing.
    """

    model: Any  # its attributes are those of a task library
    task: str = ''
    input_names: tuple[str, ...] = ('images',)
    size_step = 1
    traced_side = 64  # two pixels at stride 32
    output_names: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ('batch', 'height', 'width')

    def __init__(self, model: nn.Module, cfg: Mapping[str, Any], meta: Mapping[str, Any] | None = None):
        super().__init__()
        self.model = model
        self.normalize = Normalize(getattr(model, 'data_preprocessor', None), channel_order(cfg) == 'bgr')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in the order of ``output_names``, for images (B, C, H, W) in RGB or gray, 0..255."""
        raise NotImplementedError

    def example(self, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, ...]:
        """Inputs for tracing and for checking a file.

        Args:
            shape: Shape of the first input, (B, C, H, W); for videos (B, T, C, H, W).
            dtype: torch.uint8 or torch.float32 for the first input.
            seed: Other seeds give other images.

        Returns:
            Smooth random images with values 0..255, or frames of videos with 0..1; and values for further inputs.
        """
        if len(shape) == 5:
            frames, *_ = self.example((shape[0] * shape[1], *shape[2:]), torch.float32, seed)
            return ((frames / 255).reshape(shape),)
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(*shape[:2], *(-(-size // 16) + 1 for size in shape[2:]), generator=generator)
        fine = torch.rand(shape, generator=generator)
        images = F.interpolate(coarse, tuple(shape[2:]), mode='bicubic').clamp(0, 1)
        return ((230 * images + 25 * fine).round().to(dtype),)

    def name_outputs(self, *inputs: Tensor) -> None:
        """Run the graph once, before it is traced; a graph without fixed names sets ``output_names``."""
        with torch.no_grad():
            assert len(self(*inputs)) == len(self.output_names)

    def dynamic_shapes(self, axes: dict[int, Any]) -> tuple:
        """Which axes of each input vary, for torch.export.

        Args:
            axes: Axis to ``torch.export.Dim``, for the first input.
        """
        return (axes,)

    def constants_to_check(self, examples: Sequence[tuple[Tensor, ...]]) -> list[dict[str, float]]:
        """Values of buffers with which a file is checked, one check per dict; those of the file come last.

        Args:
            examples: Inputs of the checks.
        """
        return [{}]

    def postprocess(self) -> dict:
        """What the metadata says of the outputs: thresholds and parameters that a reader of the file needs."""
        return {}

    def differences(
        self, found: tuple[Tensor, ...], expected: tuple[Tensor, ...], tolerance: float
    ) -> list[Difference]:
        """Compare the outputs of a file with those of eager PyTorch, for the same inputs.

        Args:
            found: Outputs of the file.
            expected: Outputs of the graph over the network that is not fused.
            tolerance: Largest difference of floats, relative to the largest absolute value of the output.
        """
        return [
            compare(name, ours, theirs, tolerance)
            for name, ours, theirs in zip(self.output_names, found, expected, strict=True)
        ]


def refuse_queries(model: nn.Module) -> None:
    """Refuse a model whose objects or masks come from queries, such as DINO and Mask2Former.

    Raises:
        UserError: If it is one.
    """
    head = getattr(model, 'decode_head', None)
    if hasattr(model, 'forward_transformer') or hasattr(head, 'pixel_decoder'):
        name = type(model if head is None else head).__name__
        raise UserError(f'{name}, which predicts from queries, cannot be exported: use a config with another head')
