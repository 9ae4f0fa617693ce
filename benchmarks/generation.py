"""Compare the speed of translation with that of transformers' ``generate``, on random models of the same shape.

    python -m benchmarks.generation                              beams of 1 (greedy) and 4, 200 synthetic sentences
    python -m benchmarks.generation data=prepared/ende beam=1    the first validation pairs of prepared text
    python -m benchmarks.generation precision=bf16               the products of ours, all of the peer, in bf16

The peer is ``MarianMTModel``. Neither model ever ends a translation by itself. In the first comparison both get the
same batches, sorted by the length of the source, and write as many tokens as the other side of the pair has. In the
second both get the sentences in their order, and write as many tokens as the source has: ours sorts them and cuts them
into batches by tokens, as ``xlmtrain translate`` does; the peer takes ``batch`` of them at a time. They run in turn in
one process on one thread; speeds are tokens of the translations per CPU-second. Needs ``pip install -e '.[bench]'``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor, LogitsProcessorList, MarianConfig, MarianMTModel

from benchmarks.comparison import Comparison, print_comparisons
from benchmarks.metrics import print_environment
from xlmtrain.config.load import parse_options
from xlmtrain.config.model import ModelConfig
from xlmtrain.config.train import Precision
from xlmtrain.config.translate import TranslationConfig
from xlmtrain.config.validate import ABOVE_ZERO, CheckedSettings, ranged
from xlmtrain.data.batch import encoder_input
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.sequences import sentence_sequences
from xlmtrain.errors import DataError
from xlmtrain.generate.beam import BeamSettings
from xlmtrain.generate.search import search
from xlmtrain.generate.translate import translate_ids
from xlmtrain.model.translation_model import TranslationModel
from xlmtrain.runtime.precision import HALF, autocast, cast_linear_layers, choose_precision
from xlmtrain.runtime.program import user_errors
from xlmtrain.text.vocab import EOS, PAD, SPECIALS

Sentence = tuple[np.ndarray, int]
"""Ids that end with EOS, and how many tokens their translation has."""

Translate = Callable[[list[Sentence]], None]
System = tuple[Translate, list[list[Sentence]]]
"""What translates a batch, and its batches."""
PEER = "MarianMTModel.generate"


@dataclass
class GenerationOptions(CheckedSettings):
    """The settings of this program."""

    data: str | None = None
    """Directory made by xlmtrain prepare, with validation pairs; null: synthetic sentences of 2 to 50 tokens, whose
    translations have 0.7 to 1.3 times as many."""

    dim: int = ranged(256, ABOVE_ZERO)
    """Width of the models."""

    layers: int = ranged(3, ABOVE_ZERO)
    """Layers of the encoder, and of the decoder."""

    heads: int = ranged(4, ABOVE_ZERO)
    """Attention heads."""

    vocab_size: int = ranged(8000, ABOVE_ZERO)
    """Entries of the vocabulary; with data=, that of the data counts."""

    sentences: int = ranged(200, ABOVE_ZERO)
    """Sentences to translate."""

    batch: int = ranged(32, ABOVE_ZERO)
    """Sentences of a batch."""

    beam: list[int] = field(default_factory=list)
    """Widths of the beam, one argument for each; none: 1 and 4."""

    precision: Precision = Precision.fp32
    """Number format of our matrix products; of the peer's weights."""

    rounds: int = ranged(5, ABOVE_ZERO)
    """Rounds; each system translates everything once in a round."""


def main(argv: list[str]) -> None:
    """Print a table with two rows for each beam."""
    options = parse_options(GenerationOptions, argv)
    options = replace(options, precision=choose_precision(options.precision, torch.device("cpu"), "precision"))
    print_environment(torch.device("cpu"))
    print_comparisons(compare(options))


def compare(options: GenerationOptions) -> Iterator[Comparison]:
    """Yield the speeds with each beam, on equal batches and on sentences in their order."""
    torch.set_num_threads(1)
    vocab_size, sentences = _sentences(options)
    ours = cast_linear_layers(_our_model(options, vocab_size), options.precision)
    marian = _marian_model(options, vocab_size).to(HALF.get(options.precision, torch.float32))
    batches = _cut(sorted(sentences, key=_length, reverse=True), options.batch)
    alike = [(ids, len(ids) - 1) for ids, _ in sentences]
    shape, rounds = f"{options.layers} + {options.layers} x {options.dim}", options.rounds
    for beam in options.beam or [1, 4]:
        work, generate = f"{shape}, beam of {beam}, {options.precision.value}", _generator(marian, beam)
        with_batches = (_translator(ours, beam, options.precision), batches)
        yield _in_turn(f"translate batches, {work}", with_batches, PEER, (generate, batches), rounds)
        with_lines, taken = (_line_translator(ours, beam, options.precision), [alike]), _cut(alike, options.batch)
        peer = f"{PEER}, batches of {options.batch}"
        yield _in_turn(f"translate lines, {work}", with_lines, peer, (generate, taken), rounds)


def _in_turn(work: str, ours: System, peer: str, theirs: System, rounds: int) -> Comparison:
    systems = {"ours": ours, peer: theirs}
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    for translate, batches in systems.values():
        translate(batches[-1])  # warms up
    for number in range(rounds):
        for name in list(systems)[:: 1 if number % 2 == 0 else -1]:
            speeds[name].append(_speed(*systems[name]))
    return Comparison(work, "tokens", speeds["ours"], peer, speeds[peer])


def _cut(sentences: list[Sentence], size: int) -> list[list[Sentence]]:
    return [sentences[i : i + size] for i in range(0, len(sentences), size)]


def _sentences(options: GenerationOptions) -> tuple[int, list[Sentence]]:
    """Return the size of the vocabulary, and sentences."""
    if options.data is None:
        rng = np.random.default_rng(0)
        lengths = rng.integers(2, 51, options.sentences)
        words = [rng.integers(len(SPECIALS), options.vocab_size, length) for length in lengths]
        written = np.maximum(1, np.round(lengths * rng.uniform(0.7, 1.3, options.sentences))).astype(int).tolist()
        return options.vocab_size, [(np.append(ids, EOS), length) for ids, length in zip(words, written)]
    dataset = Dataset(options.data)
    pairs = dataset.pairs("valid")
    if not pairs:
        raise DataError(f"data={options.data}: has no validation pairs")
    source, target = dataset.pair("valid", pairs[0])
    first = range(min(options.sentences, len(source)))
    found = [(source.sentence(i).astype(np.int64), len(target.sentence(i)) - 1) for i in first]
    return len(dataset.vocab), [pair for pair in found if len(pair[0]) > 1 < pair[1]]


def _length(sentence: Sentence) -> int:
    return len(sentence[0])


def _our_model(options: GenerationOptions, vocab_size: int) -> TranslationModel:
    torch.manual_seed(0)
    model = TranslationModel(ModelConfig(options.dim, options.layers, options.heads), vocab_size, 2).eval()
    model.decoder_head.bias.data[EOS] = -100.0
    return model


def _marian_model(options: GenerationOptions, vocab_size: int) -> Any:
    config = MarianConfig(
        vocab_size=vocab_size,
        d_model=options.dim,
        encoder_layers=options.layers,
        decoder_layers=options.layers,
        encoder_attention_heads=options.heads,
        decoder_attention_heads=options.heads,
        encoder_ffn_dim=4 * options.dim,
        decoder_ffn_dim=4 * options.dim,
        activation_function="gelu",
        max_position_embeddings=512,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
        forced_eos_token_id=None,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    model = MarianMTModel(config).eval()
    model.final_logits_bias[0, [EOS, PAD]] = -100.0
    return model


def _translator(model: TranslationModel, beam: int, precision: Precision) -> Translate:
    def translate(batch: list[Sentence]) -> None:
        inputs = encoder_input(sentence_sequences([ids for ids, _ in batch], 0, model.special))
        max_lengths = torch.tensor([length + 2 for _, length in batch])  # with both </s>
        with autocast(precision, torch.device("cpu")):
            found = search(model, inputs, 1, max_lengths, BeamSettings(beam), None, lambda _: torch.empty(0))
        assert [len(best[0].ids) - 1 for best in found] == [length for _, length in batch]

    return translate


def _line_translator(model: TranslationModel, beam: int, precision: Precision) -> Translate:
    """Return what translates sentences as xlmtrain translate does, each as long as its source."""
    config = TranslationConfig(beam=beam, max_length_ratio=1.0, max_length_extra=0)

    def translate(sentences: list[Sentence]) -> None:
        found = list(translate_ids(model, (ids for ids, _ in sentences), 0, 1, config, precision))
        assert [len(best[0].ids) - 1 for best in found] == [length for _, length in sentences]

    return translate


class _Ends(LogitsProcessor):
    """Lets a translation end after ``lengths`` tokens, for each row of the scores."""

    def __init__(self, lengths: torch.Tensor) -> None:
        self._lengths = lengths

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        ends = input_ids.shape[1] > self._lengths
        scores[ends] = -torch.inf
        scores[ends, EOS] = 0.0
        return scores


def _generator(model: Any, beam: int) -> Translate:
    def generate(batch: list[Sentence]) -> None:
        sources = pad_sequence([torch.from_numpy(ids) for ids, _ in batch], batch_first=True, padding_value=PAD)
        lengths = torch.tensor([length for _, length in batch])
        with torch.inference_mode():
            found = model.generate(
                input_ids=sources,
                attention_mask=(sources != PAD).long(),
                num_beams=beam,
                do_sample=False,
                max_new_tokens=int(lengths.max()) + 1,
                logits_processor=LogitsProcessorList([_Ends(lengths.repeat_interleave(beam))]),
            )
        written = (found != PAD).sum(dim=1) - 1  # without </s>; it starts with PAD
        assert written.equal(lengths), (written, lengths)

    return generate


def _speed(translate: Translate, batches: list[list[Sentence]]) -> float:
    """Return tokens per CPU-second."""
    begin = time.process_time()
    for batch in batches:
        translate(batch)
    seconds = time.process_time() - begin
    return sum(length for batch in batches for _, length in batch) / seconds


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
