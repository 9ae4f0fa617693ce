"""Run ``xlmtrain fill-mask`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["fill-mask", *sys.argv[1:]])
