"""Tell what of the environment works, and what to do about the rest: see mogacore/doctor.py."""

import runpy
from pathlib import Path

if __name__ == '__main__':
    # By its path: where torch is missing or broken, mogacore itself cannot be imported.
    runpy.run_path(str(Path(__file__).resolve().parents[1] / 'mogacore' / 'doctor.py'), run_name='__main__')
