"""Run ``xlmtrain prepare`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
