"""Write the English-German sample corpus, the same bytes every time: python tools/make_sample_corpus.py [directory]"""

from __future__ import annotations

import argparse
from pathlib import Path

from sample_corpus.generate import generate

DEFAULT = Path(__file__).resolve().parents[1] / "data" / "sample"


def main() -> None:
    """Write {train,valid,test}.{en,de}, a sentence a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "directory", nargs="?", type=Path, default=DEFAULT, help="where to write (default: data/sample)"
    )
    directory = parser.parse_args().directory
    splits = generate()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for split, pairs in splits.items():
            for side, language in enumerate(("en", "de")):
                text = "".join(pair[side] + "\n" for pair in pairs)
                (directory / f"{split}.{language}").write_bytes(text.encode("utf-8"))
            print(f"{split}: {len(pairs)} pairs")
    except OSError as error:
        parser.error(f"cannot write to {directory}: {error.strerror}; give a directory that can be written")


if __name__ == "__main__":
    main()
