"""Run ``xlmtrain doctor`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["doctor", *sys.argv[1:]])
