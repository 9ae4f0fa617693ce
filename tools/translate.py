"""Run ``xlmtrain translate`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["translate", *sys.argv[1:]])
