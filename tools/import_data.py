"""Run ``xlmtrain import`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["import", *sys.argv[1:]])
