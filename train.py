"""Run ``xlmtrain train`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
