"""Run ``xlmtrain checkpoint`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["checkpoint", *sys.argv[1:]])
