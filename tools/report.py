"""Run ``xlmtrain report`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
