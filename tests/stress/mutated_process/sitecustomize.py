"""Puts the mutated source in the place of a module, in this process and in those that it starts (see ../mutants.py).

Python imports this file at its start, since mutants.py adds this folder to PYTHONPATH. The environment variable
``MOGACORE_MUTANT`` names a JSON file with the module, its file and the mutated source. The file itself is not changed.
"""

import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys

VARIABLE = 'MOGACORE_MUTANT'
FOLDER = os.path.dirname(os.path.abspath(__file__))


class Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name, path, source):
        super().__init__(name, path)
        self.source = source  # or a syntax tree

    def get_code(self, fullname):
        return compile(self.source, self.path, 'exec', dont_inherit=True)


class Finder:
    def __init__(self, module, file, source):
        self.module, self.file, self.source = module, file, source

    def find_spec(self, name, path=None, target=None):
        if name != self.module:
            return None
        return importlib.util.spec_from_file_location(name, self.file, loader=Loader(name, self.file, self.source))


def environment(env=None):
    """``env``, by default that of this process, for a process with the same mutant."""
    env = dict(os.environ if env is None else env)
    paths = [path for path in env.get('PYTHONPATH', '').split(os.pathsep) if path and path != FOLDER]
    return {**env, VARIABLE: os.environ[VARIABLE], 'PYTHONPATH': os.pathsep.join([FOLDER, *paths])}


def install(record):
    """Install the mutant of a JSON file; processes started with another environment get it as well."""
    os.environ[VARIABLE] = str(record)
    os.environ.update(environment())
    with open(record) as file:
        sys.meta_path.insert(0, Finder(**json.load(file)))
    start = subprocess.Popen.__init__

    def start_with_mutant(self, *args, env=None, **kwargs):
        start(self, *args, env=environment(env), **kwargs)

    subprocess.Popen.__init__ = start_with_mutant


if os.environ.get(VARIABLE):
    install(os.environ[VARIABLE])
