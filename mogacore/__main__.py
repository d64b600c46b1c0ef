"""python -m mogacore: the command ``mogacore``."""

from mogacore.cli.main import main

if __name__ == '__main__':
    main()
