"""Packaging of mogacore-runtime: the part of mogacore that runs exported models, without torch and OpenMMLab.

Build a wheel from a checkout: `pip wheel --no-deps ./runtime`. The distribution `mogacore` contains the same modules;
install one of both.
"""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    '__init__.py', 'after_import.py', 'deploy/__init__.py', 'errors.py', 'files.py', 'images.py', 'kinds.py',
    'machine.py', 'opencv.py', 'packs/__init__.py', 'packs/index.py', 'packs/lmdb_files.py', 'packs/shards.py',
    'process.py', 'py.typed', 'text.py', 'version.py',
]  # fmt: skip


def read_version() -> str:
    """Read the version without importing the package."""
    return re.search(r"__version__ = '(.+)'", (ROOT / 'mogacore' / 'version.py').read_text())[1]


class BuildPart(build_py):
    """Copies a part of the package from the checkout; there is no editable install."""

    def part_files(self) -> dict[Path, Path]:
        """Map target in the build folder to source in the checkout."""
        source = ROOT / 'mogacore'
        runtime = [path for path in sorted((source / 'runtime').rglob('*')) if path.is_file()]
        paths = [source / name for name in FILES] + [path for path in runtime if '__pycache__' not in path.parts]
        return {Path(self.build_lib, path.relative_to(ROOT)): path for path in paths}

    def run(self) -> None:
        """Build into an empty folder, since an older build may have left stale modules."""
        shutil.rmtree(Path(self.build_lib, 'mogacore'), ignore_errors=True)
        for target, source in self.part_files().items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files that the build writes."""
        return [str(path) for path in self.part_files()]


setup(
    name='mogacore-runtime',
    version=read_version(),
    description='Runs models exported by mogacore on images and videos, without torch',
    long_description=__doc__,
    license='Apache-2.0',
    packages=['mogacore'],
    package_dir={'mogacore': '../mogacore'},
    cmdclass={'build_py': BuildPart},
    entry_points={'console_scripts': ['mogacore-runtime = mogacore.runtime.command:main']},
    python_requires='>=3.10',
    # mogacore accepts any of OpenCV's distributions, but pip knows only their names: the one without windows is usual.
    install_requires=['numpy', 'opencv-python-headless', 'pillow>=10.1'],
)  # extras: setup.cfg
