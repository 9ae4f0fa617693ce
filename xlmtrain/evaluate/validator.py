"""All evaluations of a training run."""

from __future__ import annotations

from collections.abc import Callable

from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.schema import Config, Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.validation import parallel_cloze_sets, validation_sets
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.cloze import sample_predictions
from xlmtrain.evaluate.crosslingual import CrossLingualEvaluation
from xlmtrain.evaluate.perplexity import evaluate
from xlmtrain.evaluate.zero_shot import ZeroShotProbe
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.text.bpe import read_codes
from xlmtrain.text.pipeline import TextPipeline


class Validator:
    """Evaluates a model on the validation sets of its training mixture, and on cross-lingual transfer.

    Raises ConfigError if ``evaluate.metric`` is not among the metrics.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        settings, positions = config.evaluate, config.model.max_positions
        causal = not any([*config.data.mlm.values(), *config.data.tlm.values()])
        self.sets = validation_sets(config, dataset)
        self._cloze = []
        if settings.parallel_pairs and not causal:
            self._cloze = parallel_cloze_sets(config, dataset, max_pairs=settings.parallel_pairs)
        self._crosslingual = CrossLingualEvaluation(settings, dataset, positions, causal)
        self._zero_shot = None
        if settings.zero_shot_probe.train:
            text, languages = _text_pipeline(dataset), dataset.languages
            self._zero_shot = ZeroShotProbe(settings.zero_shot_probe, text, languages, positions, causal)
        self._samples, self._vocab = settings.sample_predictions, dataset.vocab
        names = {name for one in self.sets + self._cloze for name in (one.name, f"valid/{one.objective}")}
        metrics = [f"{name}_{kind}" for name in names for kind in ("ppl", "acc")] + self._crosslingual.metrics
        metrics += self._zero_shot.metrics if self._zero_shot else []
        if self.sets and settings.metric not in metrics:
            raise ConfigError(f"evaluate.metric: {settings.metric!r} is none of {', '.join(sorted(metrics))}")

    def __call__(
        self, model: LanguageModel, precision: Precision, distributed: Distributed, stop: Callable[[], bool]
    ) -> dict[str, float]:
        """Return all metrics, the same on every rank; ``stop`` as in :func:`~xlmtrain.evaluate.perplexity.evaluate`."""
        metrics = evaluate(model, [*self.sets, *self._cloze], precision, distributed, stop)
        metrics |= self._crosslingual(model, distributed, stop)
        return metrics | (self._zero_shot(model, distributed, stop) if self._zero_shot else {})

    def samples(self, model: LanguageModel, precision: Precision, distributed: Distributed) -> dict[str, str]:
        """Return, for each set, its first sequences with the model's predictions, as Markdown."""
        device, count = distributed.device, self._samples
        return {
            f"{chosen.key}_{chosen.objective}": sample_predictions(model, chosen, self._vocab, count, precision, device)
            for chosen in self.sets
            if count > 0
        }


def _text_pipeline(dataset: Dataset) -> TextPipeline:
    """Return the pipeline from raw text to the data's ids."""
    codes = dataset.path / "codes"
    return TextPipeline(TextConfig(**dataset.header.text), read_codes(codes) if codes.exists() else [], dataset.vocab)
