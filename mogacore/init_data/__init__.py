"""Own data in one command: recognize a folder, check and convert its labels, and write a config.

Every format is read by a module of its own into the same form, :class:`mogacore.init_data.found.Found`. The formats are
read here, with the json and xml modules of Python and PyYAML: the libraries that convert between them (supervision,
datumaro, globox) bring large dependencies of their own, or skip faulty lines silently.
"""

from .found import TASKS
from .run import READERS, Options, init_data

__all__ = ['READERS', 'TASKS', 'Options', 'init_data']
