"""Run ``xlmtrain download`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["download", *sys.argv[1:]])
