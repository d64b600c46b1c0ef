"""Packaging of mogacore: `pip install .` is for users with an existing torch and OpenMMLab stack.

The full pinned environment known to work is in requirements.txt; tools/setup_env.sh installs it.
"""

import re
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


def read_version() -> str:
    """Read the version without importing the package."""
    return re.search(r"__version__ = '(.+)'", (ROOT / 'mogacore' / 'version.py').read_text())[1]


def runtime_extra(name: str) -> list[str]:
    """Requirements of an extra that mogacore-runtime has as well."""
    parser = ConfigParser()
    parser.read(ROOT / 'runtime' / 'setup.cfg')
    return parser['options.extras_require'][name].split()


class BuildWithConfigs(build_py):
    """Copies configs, tools and model-index.yml into the package's folder ``.mim``, like OpenMMLab's packages.

    They are copied to the build folder only. An editable install does not need them: mogacore finds its checkout.
    """

    # Scripts that set up or test a checkout are useless in a wheel.
    CHECKOUT_ONLY = ('quickstart.sh', 'run_tests.sh', 'setup_env.sh')

    def mim_files(self) -> dict[Path, Path]:
        """Map target in the build folder to source in the checkout; empty for an editable install."""
        if self.editable_mode:
            return {}
        sources = [ROOT / 'model-index.yml']
        for folder, suffixes in (('configs', ('.py', '.yml')), ('tools', ('.py', '.sh'))):
            sources += [path for path in sorted((ROOT / folder).rglob('*')) if path.suffix in suffixes]
        mim = Path(self.build_lib, 'mogacore', '.mim')
        return {mim / path.relative_to(ROOT): path for path in sources if path.name not in self.CHECKOUT_ONLY}

    def run(self) -> None:
        """Build into an empty folder, since an older build may have left stale modules."""
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib, 'mogacore'), ignore_errors=True)
        super().run()
        for target, source in self.mim_files().items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """All files that the build writes."""
        return [*super().get_outputs(include_bytecode), *map(str, self.mim_files())]


# No OpenMMLab distribution is a requirement, not even mmengine, which mogacore needs: each exists under two names
# (mmengine and onedl-mmengine, mmdet and onedl-mmdetection, ...) with the same files. pip cannot require either of two
# distributions, so requiring one would overwrite the other. This file cannot check which one is installed, since pip
# runs it in an isolated environment. The extra `mmengine` installs it for users who have neither. The extra of a task
# lists what it needs besides its library, which is installed with --no-deps because some libraries' lists are wrong.
EXTRAS = {
    'analysis': ['grad-cam', 'jinja2', 'scikit-learn'],
    'mmengine': ['onedl-mmengine'],
    'cls': ['einops', 'importlib-metadata', 'mat4py', 'modelindex'],
    'det': ['pycocotools', 'scipy', 'shapely', 'terminaltables', 'tqdm'],
    'seg': ['ftfy', 'prettytable', 'regex', 'scipy'],
    'pose': ['faster-coco-eval', 'json-tricks', 'munkres', 'scipy'],
    'video': ['hickle', 'lpips', 'netCDF4', 'pillow', 'scikit-image', 'scipy'],
    'data': ['scikit-learn'],
    'lmdb': ['lmdb'],
    'completion': ['shtab'],
    'deploy': ['onnx', 'onnxruntime', 'onnxscript', 'openvino'],
    'int8': ['nncf'],  # for OpenVINO; ONNX Runtime has its own quantizer
    'serve': runtime_extra('serve'),
    'demo': runtime_extra('demo'),
    'dev': ['import-linter', 'pre-commit', 'pytest', 'pytest-xdist', 'ruff', 'selenium', 'tritonclient'],
}
EXTRAS['all'] = sorted({name for key, names in EXTRAS.items() if key != 'mmengine' for name in names})

setup(
    name='mogacore',
    version=read_version(),
    description='MogaNet, one fast and exact backbone for every vision task of the OpenMMLab 2.x stack',
    long_description=__doc__,
    license='Apache-2.0',
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=['mogacore', 'mogacore.*']),
    package_data={'': ['*.csv', '*.json'], 'mogacore': ['py.typed']},
    cmdclass={'build_py': BuildWithConfigs},
    entry_points={
        'console_scripts': ['mogacore = mogacore.cli.main:main', 'mogacore-runtime = mogacore.runtime.command:main']
    },
    python_requires='>=3.10',
    install_requires=['torch>=2.4'],
    extras_require=EXTRAS,
)
