"""Zero-shot classification without fine-tuning: a linear probe is trained on the hidden states of some languages.

It is tested on others, so its accuracy measures how far the languages share representations.
Letters: N examples, D width, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from xlmtrain.config.evaluate import ZeroShotProbeConfig
from xlmtrain.errors import ConfigError, NumericalError
from xlmtrain.evaluate.classification_data import Example, encode, labels_of, read_examples
from xlmtrain.evaluate.sentence_embeddings import embed_distributed
from xlmtrain.metrics.table import format_table
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.text.pipeline import TextPipeline

PENALTY = 0.01
"""L2 penalty of the probe, for vectors standardized in every dimension."""
MAX_EXAMPLES = 5000
"""Examples read of a file, at even distances: more cost time and change little."""
MAX_TOKENS = 256
"""Longer texts are truncated."""


class ZeroShotProbe:
    """Evaluation on the files of ``evaluate.zero_shot_probe``.

    ``text``, ``languages``, ``max_positions``: of the model. ``causal``: the model is trained by CLM only. Raises
    DataError for malformed files, ConfigError for a language unknown to the model, or if none is tested zero-shot.
    """

    def __init__(
        self,
        config: ZeroShotProbeConfig,
        text: TextPipeline,
        languages: Sequence[str],
        max_positions: int,
        causal: bool,
    ) -> None:
        self._causal = causal
        examples: dict[str, dict[str, list[Example]]] = {"train": {}, "test": {}}
        for split, files in examples.items():
            for language, path in getattr(config, split).items():
                found = read_examples(Path(path), language, f"zero_shot_probe.{split}.{language}", config.columns)
                files[language] = found[:: -(-len(found) // MAX_EXAMPLES)]
        self.labels = labels_of("zero_shot_probe", examples)
        self.train, self.test = (
            encode("zero_shot_probe", files, text, languages, max_positions, self.labels.index, MAX_TOKENS)
            for files in examples.values()
        )
        self.zero_shot_languages = [language for language in self.test if language not in self.train]
        if not self.zero_shot_languages:
            raise ConfigError(
                "zero_shot_probe.test: has the languages of zero_shot_probe.train only; give a file of another one"
            )

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that the best checkpoint can be chosen by."""
        return [*(f"valid/{language}_zero_shot_acc" for language in self.zero_shot_languages), "valid/zero_shot_acc"]

    def __call__(self, model: LanguageModel, distributed: Distributed, stop: Callable[[], bool]) -> dict[str, float]:
        """Return the accuracy in % on the test files, by the mean-pooled states of each layer.

        ``zero_shot/{language}_layer{n}_centered``: of a new language, centered on the mean of its own test texts;
        languages often differ by little but their means. ``..._source_centered``: centered on the training texts.
        ``..._in_language``: of a language that the probe is trained on. ``valid/{language}_zero_shot_acc``: the
        centered accuracy of the block that is best over all new languages. ``valid/zero_shot_acc``: their mean. The
        embeddings (layer 0) are not considered there: words with shared surface forms raise their accuracy even before
        training. Texts and layers are split across ranks; ``stop`` as in
        :func:`~xlmtrain.evaluate.sentence_embeddings.embed_distributed`.
        """
        texts = {f"train.{lang}": (file.language, file.ids) for lang, file in self.train.items()}
        texts |= {f"test.{lang}": (file.language, file.ids) for lang, file in self.test.items()}
        vectors = embed_distributed(model, texts, self._causal, distributed, stop)
        if not all(np.isfinite(x).all() for x in vectors.values()):
            raise NumericalError("a vector of the model is not finite, so nothing can be learned from it")
        layers = range(len(model.encoder.blocks) + 1)
        mine = layers[distributed.rank :: distributed.world_size]
        found = distributed.run_on_all(
            lambda: {i: self._accuracy({name: x[i] for name, x in vectors.items()}) for i in mine}
        )
        metrics = {
            f"zero_shot/{lang}_layer{i}_{way}": found[i][lang, way] if i in mine else 0.0
            for i in layers
            for lang, way in self.columns()
        }
        metrics = dict(zip(metrics, distributed.all_reduce_sum([*metrics.values()])))
        centered = [
            [metrics[f"zero_shot/{lang}_layer{i}_centered"] for lang in self.zero_shot_languages] for i in layers[1:]
        ]
        chosen = {
            f"valid/{lang}_zero_shot_acc": value
            for lang, value in zip(self.zero_shot_languages, max(centered, key=sum))
        }
        return metrics | chosen | {"valid/zero_shot_acc": sum(chosen.values()) / len(chosen)}

    def columns(self) -> list[tuple[str, str]]:
        """Return (test language, kind of accuracy) of all results for a layer."""
        ways = {
            lang: ("source_centered", "centered") if lang in self.zero_shot_languages else ("in_language",)
            for lang in self.test
        }
        return [(lang, way) for lang in ways for way in ways[lang]]

    def _accuracy(self, vectors: Mapping[str, np.ndarray]) -> dict[tuple[str, str], float]:
        """Return the accuracy for each of :meth:`columns`; ``vectors``: ``{split}.{language}`` -> (N, D) of a layer."""
        tensors = {name: torch.from_numpy(x).double() for name, x in vectors.items()}
        means = {lang: tensors[f"train.{lang}"].mean(dim=0) for lang in self.train}
        source_mean = torch.stack([*means.values()]).mean(dim=0)
        train = torch.cat([tensors[f"train.{lang}"] - mean for lang, mean in means.items()])
        scale = train.std(dim=0, correction=0)
        scale[scale == 0] = 1.0
        targets = torch.from_numpy(np.concatenate([file.labels for file in self.train.values()]))
        weights, bias = fit_probe(train / scale, targets, len(self.labels), PENALTY)
        result = {}
        for lang, way in self.columns():
            x = tensors[f"test.{lang}"]
            mean = means[lang] if way == "in_language" else x.mean(dim=0) if way == "centered" else source_mean
            predicted = ((x - mean) / scale @ weights.T + bias).argmax(dim=1).numpy()
            result[lang, way] = 100.0 * float((predicted == self.test[lang].labels).mean())
        return result


def fit_probe(
    vectors: torch.Tensor, targets: torch.Tensor, num_labels: int, penalty: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit multinomial logistic regression to ``vectors`` (N, D) float64 and ``targets`` (N,) int64.

    Returns weights (C, D) and bias (C,). Minimizes the mean cross-entropy + ``penalty`` / 2 times the squared weights
    without bias: scikit-learn's LogisticRegression with C = 1 / (N penalty). Starts at zero, so it is deterministic.
    """
    weights = torch.zeros(num_labels, vectors.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_labels, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias],
        max_iter=1000,
        tolerance_grad=1e-7,
        tolerance_change=0.0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(vectors @ weights.T + bias, targets) + penalty / 2 * weights.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weights.detach(), bias.detach()


def zero_shot_table(task: ZeroShotProbe, metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield a row for each layer, accuracy in %, and the accuracy of always predicting the most frequent label."""
    columns = task.columns()
    layers = sum(name.startswith("zero_shot/") for name in metrics) // len(columns)
    rows = [
        (str(layer), *(f"{metrics[f'zero_shot/{language}_layer{layer}_{way}']:.1f}%" for language, way in columns))
        for layer in range(layers)
    ]
    header = ("layer", *(f"{language} {way}" for language, way in columns))
    yield from format_table(rows, header, left=()).splitlines()
    majority = {lang: 100.0 * np.bincount(file.labels).max() / len(file.labels) for lang, file in task.test.items()}
    yield "most frequent label: " + ", ".join(f"{language} {share:.1f}%" for language, share in majority.items())
