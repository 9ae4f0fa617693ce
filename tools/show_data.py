"""Run ``xlmtrain show-data`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["show-data", *sys.argv[1:]])
