"""``python -m xlmtrain`` is the command ``xlmtrain``."""

from xlmtrain.cli import main

if __name__ == "__main__":
    main()
