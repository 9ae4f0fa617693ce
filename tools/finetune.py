"""Run ``xlmtrain finetune`` in a checkout."""

import sys

from xlmtrain.cli import main

if __name__ == "__main__":
    main(["finetune", *sys.argv[1:]])
