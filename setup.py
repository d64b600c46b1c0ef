"""Packaging of mogacore: `pip install .` serves users who have a torch and OpenMMLab stack of their own.

For the whole environment known to work, pinned, see requirements.txt and tools/setup_env.sh.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """The version, without importing the package: that needs torch."""
    return re.search(r"__version__ = '(.+)'", (ROOT / 'mogacore' / 'version.py').read_text())[1]


# No OpenMMLab distribution is named here, mmengine included, though mogacore needs it: each exists under two names
# (mmengine and onedl-mmengine, mmdet and onedl-mmdetection, ...) with the same files. pip knows no "either of the two",
# so naming one would install it over the other where a user has that. Nor can this file look at what is there: pip runs
# it in an environment of its own. Who has neither adds the extra `mmengine`; an extra of a task names what the task
# needs around its library, which is installed with --no-deps since some of the libraries' own lists are wrong.
EXTRAS = {
    'analysis': ['grad-cam'],
    'mmengine': ['onedl-mmengine'],
    'cls': ['einops', 'importlib-metadata', 'mat4py', 'modelindex'],
    'det': ['pycocotools', 'scipy', 'shapely', 'terminaltables', 'tqdm'],
    'seg': ['ftfy', 'prettytable', 'regex', 'scipy'],
    'pose': ['json-tricks', 'munkres', 'numpy<2', 'scipy', 'xtcocotools'],
    'video': ['hickle', 'netCDF4', 'pillow', 'scikit-image', 'scipy'],
    'data': ['scikit-learn'],
    'deploy': ['onnx', 'onnxruntime', 'onnxscript', 'openvino'],
    'dev': ['import-linter', 'pre-commit', 'pytest', 'pytest-xdist', 'ruff'],
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
    package_data={'mogacore.published': ['*.csv'], 'mogacore.zoo': ['*.json']},
    python_requires='>=3.10',
    install_requires=['torch>=2.4'],
    extras_require=EXTRAS,
)
