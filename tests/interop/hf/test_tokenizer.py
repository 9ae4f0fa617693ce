"""The stock tokenizer gives this package's ids, on text as it comes and on text meant to be difficult."""

from __future__ import annotations

import json
import lzma
import random
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.repository import REPOSITORY
from xlmtrain.config.prepare import TextConfig
from xlmtrain.errors import ConfigError
from xlmtrain.interop.hf import tokenizer as tokenizer_module
from xlmtrain.interop.hf.tokenizer import out_of_vocab_merges, tokenizer_config, tokenizer_json
from xlmtrain.text.bpe import Code, read_codes
from xlmtrain.text.bpe_trainer import learn_bpe
from xlmtrain.text.pipeline import BpePipeline
from xlmtrain.text.tokenizer import Tokenizer
from xlmtrain.text.vocab import EOS, MASK, PAD, SPECIALS, UNK, Vocab

tokenizers = pytest.importorskip("tokenizers", reason="the tokenizers package is not installed")

CASED, BARE = TextConfig(), TextConfig(lowercase=True, remove_accents=True)
COMPOSED = TextConfig(normalize_unicode=True)
HARD = """
"Ja", sagte er. „Ja.“ Dann ging er. ‚Nein‘, «oui», »doch« ‹so› ``x'' `x´ "." "," ",." x," x",
."."x ." ."x ." <b> ."<b> .". "." ."x."y x..".."y "... "",,".. 'x'. "x.'" don't.' x.'
... .... a..b. .. . a...b x ... y a.b. a.b c x.y.z U.S.A. U.S.A. Army e.g. this z.B. heute d. h. nicht 5.x. 5.5. ½.½.
Am 3. Mai am 3. am Dr. Müller Mr. Smith etc. Und etc. und No. 5 No. five Art. 7 Nr. 3 Er kam am 5.
1,2,3 1,000,000 a,b,c 1,,2 1,,,2 x,,2 ,,, ,5 5, ,a a, 1 ,2 5 % (5 %) ( a ) (a)b(c) x) . x : y x ; z
rock'n'roll a'b'c'd 1'000'000 1'2'3 'tis dogs' it's I'd've 90's l'homme O'Brien's '5' 5'5'5 'a'1'b' é'é'é '' ''' ' '
http://www.example.com/a?b=c&d=e#f user@example.com <a href="x">y</a> &amp; #tag @user C++ a/b a|b [x] {y} a_b $5 5€
漢字。漢字 漢，字、 １２３％ 【x】 （x） 한국어 ﬁ ß ẞ İ ΑΣ ΑΣ'Α ΣΑΣ. é e\u0301 \u0301 ½,½ Ⅷ's Ⅷ,5 ٣,٤ ٣ % 😀 👨\u200d👩
a\tb a\rb a\u00adb \ufeffa a\u2028b a\u3000b a\u1680b a\x1cb a\x85b 5\u00a0% 1\u00a02\u00a03 «\u00a0x\u00a0» nº\u00a05
٣\u00a0٤ x\u00a0! a,\u00a0b \ue000 a\ue001b \ue010x \ue011 a</s>b x<pad>, <unk>. -<pad> < / s > <special1> <s <MASK>
<mask> <mask><mask> (<mask>) "<mask>" <mask>. <mask>.. <mask>, 5<mask> <mask> % 3. <mask> etc. <mask> No. <mask> 5
'<mask> <mask>'s x.<mask> z.B.<mask> ... <mask>... ."<mask> -<mask>- <<mask>> „<mask>“ <mask>\u00a0% ΑΣ<mask> a,<mask>,b
< mask > mask> maskhere maskhere<mask> Ende. <mask> ging 3.<mask> <mask>\u0301
"""


def hard_lines(count: int) -> list[str]:
    """The snippets above one by one, line by line, and ``count`` mixtures of them."""
    snippets, draw = HARD.split(" "), random.Random(4)
    mixtures = [draw.choice([" ", ""]).join(draw.choices(snippets, k=draw.randint(2, 9))) for _ in range(count)]
    return ["", " ", *snippets, *HARD.split("\n"), *mixtures]


class Small:
    """Codes and a vocabulary of the sample corpus, and tokenizers of them, each made once."""

    def __init__(self) -> None:
        self.lines = {
            name: (REPOSITORY / "data" / "sample" / f"test.{name}").read_text(encoding="utf-8").splitlines()[:200]
            for name in ("de", "en")
        }
        words = Counter(word for name, lines in self.lines.items() for line in lines for word in words_of(line, name))
        self.codes: Sequence[Code] = learn_bpe(words.items(), 500)
        pipeline = BpePipeline(CASED, self.codes, Vocab([("a", 1)]))
        counts = Counter(word for name, lines in self.lines.items() for word in pipeline.tokens(" ".join(lines), name))
        # Every character has an id: that it is the right one shows only by this.
        characters = set(HARD + HARD.lower() + unicodedata.normalize("NFD", HARD))
        counts.update(2 * [word for character in characters for word in (character, f"{character}@@")])
        self.vocab = Vocab.from_counts(counts, min_count=2)
        self._tokenizers: dict[tuple[str, str], Any] = {}

    def tokenizer(self, language: str, text: TextConfig = CASED) -> Any:
        key = language, repr(text)
        if key not in self._tokenizers:
            content = tokenizer_json(self.vocab, self.codes, language, text)
            self._tokenizers[key] = tokenizers.Tokenizer.from_str(content)
        return self._tokenizers[key]


def words_of(line: str, language: str) -> list[str]:
    return Tokenizer(language, CASED)(line)


@pytest.fixture(scope="module")
def small() -> Small:
    return Small()


def differences(tokenizer: Any, pipeline: BpePipeline, language: str, lines: list[str]) -> list[tuple[str, Any, Any]]:
    """The lines whose ids are not the pipeline's between two EOS, with both."""
    known = len(pipeline.vocab)
    found = [[i if i < known else UNK for i in encoding.ids] for encoding in tokenizer.encode_batch(lines)]
    expected = [[EOS, *pipeline.ids(line, language), EOS] for line in lines]
    return [case for case in zip(lines, expected, found) if case[1] != case[2]]


@pytest.mark.parametrize(("language", "text"), [("de", CASED), ("de", BARE), ("en", CASED), ("fr", CASED)])
def test_ids_are_the_pipelines(small: Small, language: str, text: TextConfig) -> None:
    pipeline = BpePipeline(text, small.codes, small.vocab)
    lines = [*hard_lines(800), *small.lines.get(language, [])]
    assert differences(small.tokenizer(language, text), pipeline, language, lines) == []


def test_unicode_is_normalized_as_in_the_pipeline(small: Small) -> None:
    lines = [*hard_lines(300), *small.lines["de"]]
    lines += [unicodedata.normalize("NFD", line) for line in lines] + ["\u00ad".join(line) for line in lines[:50]]
    lines += ["a" * 2500 + " b", "x" * 1000 + " y", "\u00fc" * 1001, "<mask>\u0308 <ma\u00adsk> \u200d<mask>\ufeff"]
    pipeline = BpePipeline(COMPOSED, small.codes, small.vocab)
    assert differences(small.tokenizer("de", COMPOSED), pipeline, "de", lines) == []


def test_only_mask_is_special_in_text(small: Small) -> None:
    tokenizer, word = small.tokenizer("de"), small.vocab.id
    assert tokenizer.encode("</s> <mask>s").ids == [
        EOS,
        word("<"),
        word("/"),
        word("s"),
        word(">"),
        MASK,
        word("s"),
        EOS,
    ]
    assert not set(tokenizer.encode("x <pad> <s> <unk> <special1>").ids) & ({*range(len(SPECIALS))} - {EOS, UNK})
    # The one exception, which programs rely on that ask for a symbol's id by its name.
    assert tokenizer.encode("<pad>", add_special_tokens=False).ids == [PAD]


def test_unlisted_symbols_come_behind_the_vocabulary(small: Small) -> None:
    unlisted = out_of_vocab_merges(small.vocab, small.codes)
    tokenizer = small.tokenizer("de")
    assert 0 < len(unlisted) < len(small.codes)
    assert [tokenizer.token_to_id(symbol) for symbol in unlisted] == [
        len(small.vocab) + i for i in range(len(unlisted))
    ]
    assert tokenizer.get_vocab_size() == len(small.vocab) + len(unlisted)


def test_back_to_text(small: Small) -> None:
    tokenizer = small.tokenizer("de")
    line = next(line for line in small.lines["de"] if UNK not in tokenizer.encode(line).ids and len(line) > 40)
    ids = tokenizer.encode(f"<mask> {line}").ids
    words = " ".join(words_of(line, "de"))
    assert tokenizer.decode(ids) == words
    assert tokenizer.decode(ids, skip_special_tokens=False) == f"</s> <mask> {words} </s>"


def test_a_prefix_alone_is_shown_as_a_prefix(small: Small) -> None:
    tokenizer, vocab = small.tokenizer("de"), small.tokenizer("de").get_vocab()
    prefix = next(word for word in vocab if len(word) > 2 and f"{word}</w>" in vocab and word.isalpha())
    assert tokenizer.decode([vocab[prefix]]) == f"{prefix}@@"
    assert tokenizer.decode([vocab[f"{prefix}</w>"]]) == prefix
    assert tokenizer.decode([vocab[prefix], vocab[f"{prefix}</w>"]]) == prefix + prefix


def test_offsets_lie_in_the_text_and_in_order(small: Small) -> None:
    tokenizer = small.tokenizer("de")
    encoding = tokenizer.encode("Er  rief: „So.“")
    assert encoding.offsets[1:-1][0][0] == 0
    for line in ["(<mask>) am 3. Mai", "<mask><mask>, ( z.B. <mask>", "<pad>", *small.lines["de"]]:
        encoding = tokenizer.encode(line, add_special_tokens=False)
        for token, (start, end) in zip(encoding.tokens, encoding.offsets):
            assert line[start:end] == token.removesuffix("</w>") or token in (",</w>", '"</w>', "<unk>"), line
    for line in hard_lines(300):
        offsets = tokenizer.encode(line, add_special_tokens=False).offsets
        assert all(0 <= start <= end <= len(line) for start, end in offsets), line
        assert offsets == sorted(offsets), line


def test_offsets_of_decomposed_text_begin_at_the_letter(small: Small) -> None:
    """They may end before its marks: the library has a single place for what it composes."""
    tokenizer = small.tokenizer("de", COMPOSED)
    for line in small.lines["de"][:100]:
        decomposed = unicodedata.normalize("NFD", line)
        found = tokenizer.encode(decomposed, add_special_tokens=False)
        assert found.tokens == tokenizer.encode(line, add_special_tokens=False).tokens
        for token, (start, end) in zip(found.tokens, found.offsets):
            while end < len(decomposed) and unicodedata.combining(decomposed[end]):
                end += 1
            shown = unicodedata.normalize("NFC", decomposed[start:end])
            assert shown == token.removesuffix("</w>") or token in (",</w>", '"</w>', "<unk>"), line


def test_transformers_loads_and_saves_it(small: Small, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(small.vocab, small.codes, "de", CASED), encoding="utf-8")
    config = tokenizer_config(["de", "en"], 512, CASED)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "xlm"}', encoding="utf-8")
    pipeline = BpePipeline(CASED, small.codes, small.vocab)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "again")
    (tmp_path / "again" / "config.json").write_text('{"model_type": "xlm"}', encoding="utf-8")
    for tokenizer in (loaded, transformers.AutoTokenizer.from_pretrained(tmp_path / "again")):
        assert (tokenizer.mask_token, tokenizer.mask_token_id, tokenizer.pad_token_id) == ("<mask>", MASK, PAD)
        assert len(tokenizer) == len(small.vocab) + len(out_of_vocab_merges(small.vocab, small.codes))
        assert tokenizer.model_max_length == 512
        lines = ["Das ist am 3. <mask> z.B. gut", "<mask>", "a </s> b"]
        batch = tokenizer(lines, padding=True)
        assert set(batch) == {"input_ids", "attention_mask"}
        for line, ids, mask in zip(lines, batch["input_ids"], batch["attention_mask"]):
            known = [i if i < len(small.vocab) else UNK for i, shown in zip(ids, mask) if shown]
            assert known == [EOS, *pipeline.ids(line, "de"), EOS]
            assert set(ids[len(known) :]) <= {PAD}
        whole = tokenizer(lines[0])["input_ids"]
        parts = tokenizer(lines[0], truncation=True, max_length=6, stride=2, return_overflowing_tokens=True)[
            "input_ids"
        ]
        assert all((len(part) <= 6, part[0], part[-1]) == (True, EOS, EOS) for part in parts)
        assert [*parts[0][1:-1], *(i for part in parts[1:] for i in part[3:-1])] == whole[1:-1]
        assert tokenizer("so", padding="max_length", max_length=9)["attention_mask"].count(0) > 0
        first, second = pipeline.ids("so", "de"), pipeline.ids("und", "de")
        assert tokenizer("so", "und")["input_ids"] == [EOS, *first, EOS, EOS, *second, EOS]


def test_without_the_package_it_is_said_how_to_get_it(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install 'xlmtrain\[hf\]'"):
        tokenizer_json(small.vocab, small.codes, "de", CASED)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_line_of_the_reference(shared: Path, tmp_path: Path, language: str) -> None:
    for name in ("codes", "vocab"):
        content = lzma.decompress((shared / "reference" / "text-chain" / f"{name}.xz").read_bytes())
        (tmp_path / name).write_bytes(content)
    codes, vocab = read_codes(tmp_path / "codes"), Vocab.read(tmp_path / "vocab")
    content = lzma.decompress((shared / "reference" / "text-chain" / f"sample.{language}.xz").read_bytes())
    lines = content.decode().removesuffix("\n").split("\n")
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_json(vocab, codes, language, CASED))
    assert differences(tokenizer, BpePipeline(CASED, codes, vocab), language, lines) == []
