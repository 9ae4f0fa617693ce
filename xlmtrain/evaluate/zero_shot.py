"""Zero-shot classification without fine-tuning: a linear probe learns labels from the states of one language's texts,
and is tried on other languages'. What it gets right there, the languages have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from xlmtrain.config.schema import Pooling, ZeroShotProbeConfig
from xlmtrain.errors import ConfigError, NumericalError
from xlmtrain.evaluate.classification_data import Encoded, Example, encode, labels_of, read_examples
from xlmtrain.evaluate.linear_probe import fit_probe
from xlmtrain.evaluate.sentence_embeddings import embed
from xlmtrain.metrics.table import format_table
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.runtime.process import Interrupted
from xlmtrain.text.pipeline import TextPipeline

PENALTY = 0.01
"""Of the probe, whose vectors have a deviation of 1 in every direction."""
MOST_EXAMPLES = 5000
"""Of a longer file as many are taken, evenly: more say little more, and decide how long this takes."""
MOST_TOKENS = 256
"""Longer texts are cut."""


class ZeroShot:
    """Reads the files of ``evaluate.zero_shot_probe`` in the settings.

    ``text``, ``languages``, ``positions``: the model's. ``causal``: it is trained by CLM alone. Raises DataError for
    files that are not as they should be, ConfigError for languages that the model does not know, or for none that is
    to be tried without having been learned.
    """

    def __init__(
        self, config: ZeroShotProbeConfig, text: TextPipeline, languages: Sequence[str], positions: int, causal: bool
    ) -> None:
        self._causal = causal
        files = {
            split: {
                language: _evenly(read_examples(Path(path), language, f"classify.{split}.{language}"))
                for language, path in getattr(config, split).items()
            }
            for split in ("train", "test")
        }
        every = {f"classify.{split}.{language}": some for split in files for language, some in files[split].items()}
        self.labels = labels_of(every)
        self.train, self.test = (
            encode("classify", files[split], text, languages, positions, self.labels, MOST_TOKENS)
            for split in ("train", "test")
        )
        self.new = [language for language in self.test if language not in self.train]
        if not self.new:
            raise ConfigError("classify.test: has the languages of classify.train only; give a file of another one")

    @property
    def metrics(self) -> list[str]:
        """Names of the figures that a checkpoint can be chosen by."""
        return [*(f"valid/{language}_zeroshot_acc" for language in self.new), "valid/zero_shot_acc"]

    def __call__(self, model: LanguageModel, distributed: Distributed, stop: Callable[[], bool]) -> dict[str, float]:
        """Share of the test examples labelled right, in %, by the mean of each layer's states.

        ``zero_shot/{language}_layer{n}_centred``: each language is seen from its own mean, that of its test file if it
        was not learned; ``..._raw``: from the mean of what was learned. Languages are often apart by little but their
        means. ``..._learned``: of languages that were learned. ``valid/{language}_zeroshot_acc`` is the centred figure
        of the block that is best over all languages not learned; ``valid/zero_shot_acc`` the mean. The embeddings, layer
        0, are not counted there: by them words that are written alike are told, also before training. The texts are
        shared out over the processes, and so are the layers; ``stop`` as in
        :class:`~xlmtrain.evaluate.crosslingual.Alignment`.
        """
        layers = range(len(model.encoder.blocks) + 1)
        share = (distributed.rank, distributed.world_size)

        def states(file: Encoded) -> np.ndarray:
            found = distributed.run_on_all(
                lambda: embed(model, file.ids, file.language, [Pooling.mean], layers, self._causal, share, stop)
            )
            return distributed.all_reduce_array(found[0])

        learned = {language: states(file) for language, file in self.train.items()}
        tried = {language: states(file) for language, file in self.test.items()}
        if distributed.all_reduce_sum([float(stop())])[0]:
            raise Interrupted
        if not all(np.isfinite(x).all() for x in (*learned.values(), *tried.values())):
            raise NumericalError("a vector of the model is not finite, so nothing can be learned from it")
        figures: dict[str, float] = {}
        for layer in layers:
            mine = layer % distributed.world_size == distributed.rank
            known, new = ({lang: x[layer] for lang, x in some.items()} for some in (learned, tried))
            found = distributed.run_on_all(partial(self._judge, known, new, mine))
            figures |= {f"zeroshot/{lang}_layer{layer}_{way}": value for (lang, way), value in found.items()}
        figures = dict(zip(figures, distributed.all_reduce_sum([*figures.values()])))
        centred = {i: [figures[f"zeroshot/{lang}_layer{i}_centred"] for lang in self.new] for i in layers[1:]}
        best = max(centred.values(), key=sum)
        chosen = {f"valid/{lang}_zeroshot_acc": value for lang, value in zip(self.new, best)}
        return figures | chosen | {"valid/zero_shot_acc": sum(chosen.values()) / len(chosen)}

    def _judge(
        self, learned: Mapping[str, np.ndarray], tried: Mapping[str, np.ndarray], mine: bool
    ) -> dict[tuple[str, str], float]:
        """(language, way of looking at it) -> accuracy by a layer's vectors (N, D); 0 if it is another process's to
        find."""
        ways = {lang: ("raw", "centred") if lang in self.new else ("learned",) for lang in tried}
        figures = {(lang, way): 0.0 for lang, some in ways.items() for way in some}
        if not mine:
            return figures
        texts = {lang: torch.from_numpy(x).double() for lang, x in learned.items()}
        means = {lang: x.mean(dim=0) for lang, x in texts.items()}
        vectors = torch.cat([x - means[lang] for lang, x in texts.items()])
        scale = vectors.std(dim=0, correction=0)
        scale[scale == 0] = 1.0
        targets = torch.from_numpy(np.concatenate([self.train[lang].labels for lang in texts]))
        probe = fit_probe(vectors / scale, targets, len(self.labels), PENALTY)
        for lang, way in figures:
            x = torch.from_numpy(tried[lang]).double()
            if way == "learned":
                mean = means[lang]
            else:
                mean = x.mean(dim=0) if way == "centred" else torch.stack([*means.values()]).mean(dim=0)
            said = probe((x - mean) / scale).numpy()
            figures[lang, way] = 100.0 * float((said == self.test[lang].labels).mean())
        return figures


def zero_shot_table(task: ZeroShot, figures: Mapping[str, float]) -> Iterator[str]:
    """Yield a row for each layer, accuracy in %, and the share of the most frequent label."""
    names = [name.removeprefix("zeroshot/") for name in figures if name.startswith("zeroshot/")]
    columns = list(dict.fromkeys((name.rpartition("_layer")[0], name.rpartition("_")[2]) for name in names))
    rows = [
        (str(layer), *(f"{figures[f'zeroshot/{language}_layer{layer}_{way}']:.1f}%" for language, way in columns))
        for layer in range(len(names) // len(columns))
    ]
    header = ("layer", *(f"{language} {way}" for language, way in columns))
    yield from format_table(rows, header, left=()).splitlines()
    majority = {lang: 100.0 * np.bincount(file.labels).max() / len(file.labels) for lang, file in task.test.items()}
    yield "most frequent label: " + ", ".join(f"{language} {share:.1f}%" for language, share in majority.items())


def _evenly(examples: list[Example]) -> list[Example]:
    return examples[:: -(-len(examples) // MOST_EXAMPLES)]
