"""Compare the speed of using a model with transformers' pipelines and sentence-transformers, at mixed lengths.

    python -m benchmarks.use model=runs/small_cpu exported=DIRECTORY text=FILE lang=en
    python -m benchmarks.use ... precision=bf16          our products, all of the peers, in bf16

``exported``: the same model, as ``xlmtrain export format=hf`` wrote it; the peers load its folder of one language.
One thread, sentences per CPU-second, the systems in turn within one run; ratio: median of the rounds, smallest and
largest. A system whose package is missing is left out.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

import xlmtrain
from benchmarks.comparison import Comparison, print_comparisons
from benchmarks.metrics import print_environment
from xlmtrain.config.load import parse_options
from xlmtrain.config.train import Precision
from xlmtrain.config.validate import ABOVE_ZERO, CheckedSettings, ranged
from xlmtrain.pretrained import PretrainedModel
from xlmtrain.runtime.precision import HALF, choose_precision
from xlmtrain.runtime.program import user_errors
from xlmtrain.text.text_files import read_lines

try:
    import sentence_transformers
except ImportError:
    sentence_transformers = None  # type: ignore[assignment,unused-ignore]

BATCH = 32
"""Sentences that a peer computes together; its pipelines take one at a time by default."""


@dataclass
class UseOptions(CheckedSettings):
    """The settings of this program."""

    model: str = "???"
    """Model that xlmtrain.load reads."""

    exported: str = "???"
    """The same model, exported as a Hugging Face folder."""

    text: str = "???"
    """File of sentences."""

    lang: str = "en"
    """Language of the text."""

    sentences: int = ranged(64, ABOVE_ZERO)
    """Sentences in a round; a quarter of them for scores."""

    precision: Precision = Precision.fp32
    """Number format of our matrix products; of the peers' weights."""

    rounds: int = ranged(5, ABOVE_ZERO)
    """Number of measurements of each system."""

    def problems(self) -> Iterator[str]:
        """Yield values that cannot be."""
        if self.sentences < 4:
            yield f"sentences: {self.sentences} is less than 4, of which one is scored"


Task = dict[str, Callable[[], object]]
"""Systems by name, ours first."""


def main(argv: list[str]) -> None:
    """Measure and print a row for each task and peer."""
    options = parse_options(UseOptions, argv)
    options = replace(options, precision=choose_precision(options.precision, torch.device("cpu"), "precision"))
    print_environment(torch.device("cpu"))
    print_comparisons(compare(options))


def compare(options: UseOptions) -> Iterator[Comparison]:
    """Yield the speeds of each task beside each peer."""
    torch.set_num_threads(1)
    model = xlmtrain.load(options.model, device="cpu", precision=options.precision)
    lines = [line for _, line in read_lines(options.text, "text")]
    shape = model.model.encoder.config
    sentences = mixed_lengths(lines, options.sentences, shape.max_positions // 2)
    for task, systems in tasks(options, model, sentences).items():
        count = len(sentences) // 4 if task == "score" else len(sentences)
        speeds: dict[str, list[float]] = {name: [] for name in systems}
        for number in range(options.rounds + 1):  # the first one warms up
            for name in list(systems)[:: 1 if number % 2 else -1]:
                start = time.process_time()
                systems[name]()
                speeds[name].append(count / (time.process_time() - start))
        ours, *others = [(name, found[1:]) for name, found in speeds.items()]
        for name, found in others:
            yield Comparison(
                f"{task}, {shape.layers} x {shape.dim}, {options.precision.value}", "sentences", ours[1], name, found
            )


def mixed_lengths(lines: list[str], count: int, longest: int) -> list[str]:
    """Return ``count`` runs of the text's words, from 1 to ``longest`` of them, log-uniform."""
    draw, words = random.Random(0), " ".join(lines).replace("<", "").split()
    starts = [draw.randrange(max(1, len(words) - longest)) for _ in range(count)]
    return [" ".join(words[start : start + int(longest ** draw.random())]) for start in starts]


def tasks(options: UseOptions, model: PretrainedModel, sentences: list[str]) -> dict[str, Task]:
    """Return the systems of each task."""
    folder, lang = f"{options.exported}/{options.lang}", options.lang
    dtype, tokenizer = HALF.get(options.precision, torch.float32), AutoTokenizer.from_pretrained(folder)
    theirs = AutoModelForMaskedLM.from_pretrained(folder, dtype=dtype).eval()
    features = pipeline("feature-extraction", model=theirs.transformer, tokenizer=tokenizer)
    filler, masked = pipeline("fill-mask", model=theirs, tokenizer=tokenizer), [f"{s} <mask>" for s in sentences]

    @torch.inference_mode()
    def score_each() -> None:
        for sentence in sentences[: len(sentences) // 4]:
            ids = tokenizer(sentence, return_tensors="pt")["input_ids"]
            places = torch.arange(1, ids.shape[1] - 1)
            for some in places.split(BATCH):
                copies = ids.repeat(len(some), 1)
                copies[torch.arange(len(some)), some] = tokenizer.mask_token_id
                logits = theirs(copies).logits[torch.arange(len(some)), some]
                logits.log_softmax(dim=1).gather(1, ids[0, some, None])

    embed: Task = {"ours": lambda: model.embed(sentences, lang)}
    for size in (1, BATCH):
        embed[f"feature-extraction, batches of {size}"] = partial(features, sentences, batch_size=size)
    if sentence_transformers is not None:
        encoder = sentence_transformers.SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": dtype})
        embed["sentence-transformers"] = lambda: encoder.encode(sentences, batch_size=BATCH)
    return {
        "embed": embed,
        "fill_mask": {
            "ours": lambda: [model.fill_mask(sentence, lang) for sentence in masked],
            **{f"fill-mask, batches of {n}": partial(filler, masked, batch_size=n) for n in (1, BATCH)},
        },
        "score": {
            "ours": lambda: model.score(sentences[: len(sentences) // 4], lang),
            f"a loop, batches of {BATCH}": score_each,
        },
    }


if __name__ == "__main__":
    with user_errors():
        main(sys.argv[1:])
