"""One split of the data of a config, as training or testing reads it."""

from __future__ import annotations

from mmengine.config import Config
from torch.utils.data import DataLoader

from mogacore.datasets.checks import Problems
from mogacore.errors import UserError

from .config import load_config, locate_data, prepare_loaders, use_library
from .data import data_problems, label_class_folders
from .explain import user_errors
from .loaders import build_loader

SPLITS = ('train', 'val', 'test')


class Split:
    """The data of one split of a config: located, with labels for class folders, and checked.

    Args:
        config: Path or short name of the config.
        name: One of ``SPLITS``.
        check: How many files to check, see :func:`mogacore.engine.data.check_data`.
        cfg_options: Settings that override the config.

    Attributes:
        cfg: The config, whose stage has no other split.
        stage: 'train', or 'test' for all others.
        problems: What the check found; training or testing would refuse it.

    Raises:
        UserError: If the config has no such split, or its data is missing.
    """

    def __init__(self, config: str, name: str, check: str = 'sample', cfg_options: dict | None = None):
        if name not in SPLITS:
            raise UserError(f'split {name!r} is unknown: choose from {", ".join(SPLITS)}')
        self.name, self.cfg = name, self.read(config, cfg_options)
        if not self.cfg.get(f'{name}_dataloader'):
            found = [other for other in SPLITS if self.cfg.get(f'{other}_dataloader')]
            raise UserError(
                f'config {config} has no {name}_dataloader: choose from {", ".join(found) or "another config"}'
            )
        self.activate()
        self.stage = _keep(self.cfg, name)
        locate_data(self.cfg, self.stage)
        with user_errors():
            labels_from = label_class_folders(self.cfg, self.stage, self.cfg.get('train_dataloader'))
            self.problems: Problems = data_problems(self.cfg, self.stage, check, labels_from)

    read = staticmethod(load_config)

    def activate(self) -> None:
        """Make the config's library the default scope of the registries."""
        use_library(self.cfg)

    @property
    def settings(self) -> dict:
        """Config of the data loader."""
        return self.cfg[f'{self.stage}_dataloader']

    def loader(self) -> DataLoader:
        """Build the data loader, without workers.

        Raises:
            UserError: If the data has problems, or cannot be read.
        """
        self.problems.refuse()
        self.settings['num_workers'] = 0
        prepare_loaders(self.cfg)
        with user_errors():
            loader = build_loader(self.settings, seed=0)
        return loader


def _keep(cfg: Config, name: str) -> str:
    """Remove the data of other splits from the stage of a split, and return the stage, 'train' or 'test'."""
    if name == 'train':
        cfg.val_dataloader = cfg.val_evaluator = None
        return 'train'
    if name == 'val':
        cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.get('val_evaluator')
    return 'test'
