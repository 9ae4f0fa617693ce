"""Evaluation as training calls it: all validation sets, figures, and masked sentences to look at."""

from __future__ import annotations

from collections.abc import Callable

from xlmtrain.config.prepare import TextConfig
from xlmtrain.config.schema import Config, Precision
from xlmtrain.data.dataset import Dataset
from xlmtrain.data.validation import parallel_cloze_sets, validation_sets
from xlmtrain.errors import ConfigError
from xlmtrain.evaluate.crosslingual import Alignment
from xlmtrain.evaluate.perplexity import evaluate
from xlmtrain.evaluate.predictions import sample_predictions
from xlmtrain.evaluate.zero_shot import ZeroShot
from xlmtrain.model.language_model import LanguageModel
from xlmtrain.runtime.distributed import Distributed
from xlmtrain.text.bpe import read_codes
from xlmtrain.text.pipeline import TextPipeline


class Validator:
    """Evaluates a model on the validation sets of everything it is trained on, and on how far its languages have met.

    Raises ConfigError if ``evaluate.metric`` is none of the figures that come out.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self.sets = validation_sets(config, dataset)
        self._samples, self._vocab = config.evaluate.sample_predictions, dataset.vocab
        causal = not any([*config.data.mlm.values(), *config.data.tlm.values()])
        most = 0 if causal else config.evaluate.parallel_pairs
        self._hidden = parallel_cloze_sets(config, dataset, most=most) if most else []
        self._alignment = Alignment(config.evaluate, dataset, config.model.max_positions, causal)
        classify, positions = config.evaluate.zero_shot_probe, config.model.max_positions
        self._zeroshot = (
            ZeroShot(classify, _text(dataset), dataset.languages, positions, causal) if classify.train else None
        )
        names = {name for one in self.sets + self._hidden for name in (one.name, f"valid/{one.objective}")}
        found = [f"{name}_{what}" for name in names for what in ("ppl", "acc")]
        metrics = sorted(found + self._alignment.metrics + (self._zeroshot.metrics if self._zeroshot else []))
        if self.sets and config.evaluate.metric not in metrics:
            raise ConfigError(f"evaluate.metric: {config.evaluate.metric!r} is none of {', '.join(metrics)}")

    def __call__(
        self, model: LanguageModel, precision: Precision, distributed: Distributed, stop: Callable[[], bool]
    ) -> dict[str, float]:
        """The figures, the same on every process. ``stop`` as in :func:`~xlmtrain.evaluate.perplexity.evaluate`."""
        figures = evaluate(model, [*self.sets, *self._hidden], precision, distributed, stop)
        figures |= self._alignment(model, distributed, stop)
        return figures | (self._zeroshot(model, distributed, stop) if self._zeroshot else {})

    def samples(self, model: LanguageModel, precision: Precision, distributed: Distributed) -> dict[str, str]:
        """Set -> its first sentences, masked, with the model's predictions, as Markdown."""
        device, count = distributed.device, self._samples
        return {
            f"{chosen.key}_{chosen.objective}": sample_predictions(model, chosen, self._vocab, count, precision, device)
            for chosen in self.sets
            if count > 0
        }


def _text(dataset: Dataset) -> TextPipeline:
    """From raw text to the ids of the data."""
    codes = dataset.path / "codes"
    return TextPipeline(TextConfig(**dataset.header.text), read_codes(codes) if codes.exists() else [], dataset.vocab)
