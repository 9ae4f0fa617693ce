"""Run ``xlmtrain export`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
