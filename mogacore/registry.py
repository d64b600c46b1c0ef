"""Imports everything that registers a class, so that configs can build it by name. Nothing imports this module.

A config names it in ``custom_imports = dict(imports=['mogacore.registry'], allow_failed_imports=False)``, which works
with our tools and with those of each library.
"""

# Imported because they register classes in mmengine's registries.
from . import datasets, evaluation  # noqa: F401
from .checkpoint import register_safe_loader
from .engine import (  # noqa: F401
    amp,
    ema,
    hooks,
    length,
    numbers,
    optim,
    restore,
    resume,
    saving,
    schedules,
    sharding,
    stop,
    trackers,
    tta,
)
from .engine.bases import register_short_bases
from .inference import hooks as inference_hooks  # noqa: F401
from .libraries import register_backbone, register_codec, register_replacements, register_stand_ins
from .models import AblatedMogaNet, MogaNet, RootRelativeHeatmap

register_stand_ins()
register_short_bases()
register_backbone(MogaNet)
register_backbone(AblatedMogaNet)
register_codec(RootRelativeHeatmap)
register_replacements()
register_safe_loader()
