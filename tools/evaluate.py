"""Run ``xlmtrain evaluate`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
