"""Run ``xlmtrain ablations`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["ablations", *sys.argv[1:]])
