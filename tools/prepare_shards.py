"""Run ``xlmtrain prepare-shards`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["prepare-shards", *sys.argv[1:]])
