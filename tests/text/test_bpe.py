"""Byte-pair encoding: codes on disk, applied as by fastBPE."""

from __future__ import annotations

import itertools
import lzma
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from xlmtrain.errors import DataError
from xlmtrain.text import bpe
from xlmtrain.text.bpe import Bpe, Code, reachable_subwords, read_codes, write_codes
from xlmtrain.text.bpe_trainer import learn_bpe
from xlmtrain.text.vocab import Vocab


@pytest.fixture
def without_fastbpe(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it to have no fastBPE from then on."""
    return lambda: monkeypatch.setattr(bpe, "fastBPE", None)


def test_codes_are_written_and_read_in_fastbpe_format(tmp_path: Path) -> None:
    codes = [Code("e", "n</w>", 12), Code("ü", "b", 3)]
    write_codes(codes, tmp_path / "codes")
    assert (tmp_path / "codes").read_bytes() == "e n</w> 12\nü b 3\n".encode()
    assert read_codes(tmp_path / "codes") == codes


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"a b 3\na b\n", ":2:"),
        (b"a b 3\nc d e 1\n", ":2:"),
        (b"a b 3\nc d x\n", ":2:"),
        (b"a  3\n", ":1:"),
        (b"a b 3\nc d 2\na b 1\n", ":3:"),
        (b"a b 3\n\nc d 2\n", ":2:"),
        (b"a \xfc 3\n", ":1:"),
        (b"", "no BPE codes"),
    ],
)
def test_bad_codes_are_an_error_with_file_and_line_before_fastbpe_sees_them(
    tmp_path: Path, content: bytes, place: str
) -> None:
    (tmp_path / "codes").write_bytes(content)
    with pytest.raises(DataError, match=f"codes.*{place}" if place.startswith("no") else f"codes{place}"):
        Bpe(tmp_path / "codes")
    with pytest.raises(DataError, match="nowhere"):
        Bpe(tmp_path / "nowhere")


@pytest.mark.parametrize("has_fastbpe", [True, False])
def test_segmentation_by_hand_computed_codes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], without_fastbpe: Callable[[], None], has_fastbpe: bool
) -> None:
    if not has_fastbpe:
        without_fastbpe()
    (tmp_path / "codes").write_text("e n</w> 9\nK a 3\nKa t 2\n", encoding="utf-8")
    codes = Bpe(tmp_path / "codes")
    assert codes.segment("Katen") == ["Kat@@", "en"]
    assert codes.segment("en") == ["en"]
    assert codes.segment("Käßen") == ["K@@", "ä@@", "ß@@", "en"]
    assert codes.segment_all(["en", "Kat"]) == [["en"], ["Ka@@", "t"]]
    assert capfd.readouterr().err == ""


def test_every_subword_that_can_be_is_listed(tmp_path: Path) -> None:
    (tmp_path / "codes").write_text("e n</w> 9\nK a 3\nKa t 2\n", encoding="utf-8")
    possible = reachable_subwords(read_codes(tmp_path / "codes"), "Katenß")
    assert possible > {"en", "Ka@@", "Kat@@", "ß", "ß@@"}
    assert not {"Kat", "Ka", "en@@"} & possible
    words = ["".join(letters) for n in (1, 2, 3, 4) for letters in itertools.product("Katenß", repeat=n)]
    used = {subword for subwords in Bpe(tmp_path / "codes").segment_all(words) for subword in subwords}
    assert used == possible


def test_any_codes_give_the_same_without_fastbpe(tmp_path: Path, without_fastbpe: Callable[[], None]) -> None:
    """Also codes that no text would teach, in any order, where occurrences overlap and merges undo each other."""
    rng = random.Random(1)
    symbols = ["".join(rng.choices("abü", k=rng.randint(1, 3))) for _ in range(40)]
    pairs = {(rng.choice(symbols), rng.choice(symbols) + rng.choice(["", "</w>"])) for _ in range(400)}
    write_codes([Code(*pair, 1) for pair in rng.sample(sorted(pairs), len(pairs))], tmp_path / "codes")
    words = ["".join(rng.choices("abüc", (4, 4, 4, 1), k=rng.randint(1, 25))) for _ in range(3000)]
    theirs = Bpe(tmp_path / "codes").segment_all(words)
    without_fastbpe()
    assert Bpe(tmp_path / "codes").segment_all(words) == theirs
    assert sum(len(word) for word in words) > 1.5 * sum(map(len, theirs))


TextChain = Callable[[str], list[str]]


@pytest.fixture
def text_chain(shared: Path, tmp_path: Path) -> TextChain:
    """The lines of a file of the reference, which is put into ``tmp_path`` as well."""

    def lines(name: str) -> list[str]:
        content = lzma.decompress((shared / "reference" / "text-chain" / f"{name}.xz").read_bytes())
        (tmp_path / name).write_bytes(content)
        return content.decode().split("\n")[:-1]

    return lines


@pytest.mark.slow
def test_without_fastbpe_all_reference_lines_are_the_same(
    text_chain: TextChain, tmp_path: Path, without_fastbpe: Callable[[], None]
) -> None:
    without_fastbpe()
    text_chain("codes")
    codes, count = Bpe(tmp_path / "codes"), 0
    for language in ("en", "de"):
        for line, expected in zip(
            text_chain(f"sample.{language}.tok"), text_chain(f"sample.{language}.bpe"), strict=True
        ):
            assert [part for word in codes.segment_all(line.split()) for part in word] == expected.split()
            count += 1
    assert count == 37184


@pytest.mark.slow
def test_fastbpe_itself_segments_counts_and_learns_the_same(text_chain: TextChain, tmp_path: Path) -> None:
    tokenized = {language: text_chain(f"sample.{language}.tok") for language in ("en", "de")}
    text_chain("codes"), text_chain("vocab")
    codes = Bpe(tmp_path / "codes")
    subwords: Counter[str] = Counter()
    for language, lines in tokenized.items():
        for line, expected in zip(lines, text_chain(f"sample.{language}.bpe"), strict=True):
            segmented = [subword for word in line.split() for subword in codes.segment(word)]
            assert segmented == expected.split()
            subwords.update(segmented)
    vocab, theirs = Vocab.from_counts(subwords), Vocab.read(tmp_path / "vocab")
    assert dict(zip(vocab.tokens, vocab.counts)) == dict(zip(theirs.tokens, theirs.counts))
    # fastBPE's order of ties depends on its C++ library, and from the first tie on pairs may differ; so counts are
    # the same up to there, and stay close.
    words = Counter(word for lines in tokenized.values() for line in lines for word in line.split())
    ours, reference = learn_bpe(words.items(), 8000), read_codes(tmp_path / "codes")
    assert [code.count for code in ours[:1000]] == [code.count for code in reference[:1000]]
    assert all(abs(one.count - other.count) <= 1 for one, other in zip(ours, reference, strict=True))
    assert len({(c.left, c.right) for c in ours} & {(c.left, c.right) for c in reference}) > 7700
