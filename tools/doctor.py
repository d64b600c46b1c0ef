"""Check the environment: see mogacore/cli/doctor.py."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the checkout, or mogacore/.mim where installed

if __name__ == '__main__':
    # Run by path: this must work without mogacore installed.
    package = ROOT.parent if ROOT.name == '.mim' else ROOT / 'mogacore'
    runpy.run_path(str(package / 'cli' / 'doctor.py'), run_name='__main__')
