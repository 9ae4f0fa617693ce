"""Run ``xlmtrain plan`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["plan", *sys.argv[1:]])
