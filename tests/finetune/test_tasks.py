"""Each kind of task is learned in English and known in German, and its files are refused where they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny import ALONE, WORDS, run_processes
from tests.support.toy import LETTERS, result, run_toy, toy_config, toy_model
from tests.support.training import records
from xlmtrain.config.finetune import FinetuneConfig, SelectionMetric, TaskConfig, TaskKind
from xlmtrain.errors import ConfigError, DataError
from xlmtrain.finetune.batches import evaluation_batches
from xlmtrain.finetune.tasks import make_task
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.text.vocab import EOS

Write = Callable[[np.ndarray, list[str]], str]
"""Turn the numbers of the words of a sentence, and the words, into a record."""


@pytest.fixture(scope="module")
def saved(tiny_dataset: Path) -> PretrainedBundle:
    return toy_model(tiny_dataset)


def task_config(directory: Path, kind: TaskKind, write: Write, **changes: Any) -> FinetuneConfig:
    """Sentences of 2 to 6 words of the language, as ``write`` labels them."""
    files = {}
    for seed, (name, count) in enumerate({"train.en": 200, "test.en": 60, "test.de": 60}.items()):
        rng = np.random.default_rng(seed)
        sentences = [rng.integers(WORDS, size=rng.integers(2, 7)) for _ in range(count)]
        shift = WORDS if name.endswith("en") else 0
        lines = [write(numbers, [LETTERS[n + shift] for n in numbers]) for numbers in sentences]
        files[name] = directory / f"{kind.value}.{name}"
        files[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
    test = {language: str(files[f"test.{language}"]) for language in ("en", "de")}
    task = TaskConfig(kind, {"en": str(files["train.en"])}, {}, test)
    return toy_config(directory, kind.value, task=task, **changes)


def tagged(numbers: np.ndarray, words: list[str]) -> str:
    """Entities of one kind or another begin at words below 10, and go on with those below 15."""
    tags, inside = [], False
    for number in numbers:
        tags.append(f"B-{number % 2}" if number < 10 else f"I-{tags[-1][2:]}" if inside and number < 15 else "O")
        inside = tags[-1] != "O"
    return "".join(f"{word}\t{tag}\n" for word, tag in zip(words, tags))


def test_regression(saved: PretrainedBundle, tmp_path: Path) -> None:
    def share(numbers: np.ndarray, words: list[str]) -> str:
        return f"{5 * (numbers < 10).mean():.3f}\t{' '.join(words)}"

    found = run_toy(ALONE, task_config(tmp_path, TaskKind.regression, share, epochs=8), saved)
    assert found is not None
    for language in ("en", "de"):
        assert list(found[language][0].metrics) == ["pearson", "spearman"]
        assert min(found[language][0].metrics.values()) > 85
    assert result(toy_config(tmp_path, "regression"))["test"]["de"]["targets"] == 60


def test_any_number_of_labels(saved: PretrainedBundle, tmp_path: Path) -> None:
    def features(numbers: np.ndarray, words: list[str]) -> str:
        given = [name for name, has in (("low", (numbers < 10).any()), ("many", (numbers > 9).any())) if has]
        return f"{', '.join(given)}\t{' '.join(words)}"

    found = run_toy(ALONE, task_config(tmp_path, TaskKind.multilabel, features, epochs=10), saved)
    assert found is not None
    assert list(found["de"][0].metrics) == ["f1", "micro_f1", "accuracy"]
    assert found["en"][0].metrics["accuracy"] > 80
    assert found["de"][0].metrics["micro_f1"] > 85


def test_labels_of_words(saved: PretrainedBundle, tmp_path: Path) -> None:
    found = run_toy(ALONE, task_config(tmp_path, TaskKind.tokens, tagged, epochs=12, lr=1e-2), saved)
    assert found is not None
    assert list(found["de"][0].metrics) == ["f1", "accuracy", "entity_f1"]
    assert found["de"][0].metrics["accuracy"] > 80
    assert found["de"][0].metrics["entity_f1"] > 60


@pytest.mark.slow
def test_two_processes_divide_by_all_words(saved: PretrainedBundle, tmp_path: Path) -> None:
    alone = task_config(tmp_path, TaskKind.tokens, tagged, epochs=2)
    together = toy_config(tmp_path, "together", task=alone.task, epochs=2)
    expected = run_toy(ALONE, alone, saved)
    first, second = run_processes(2, run_toy, tmp_path, together, saved)
    assert first == second == expected
    ours, theirs = ([r["train/loss"] for r in records(Path(c.run) / "seed-0")] for c in (alone, together))
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_the_target_of_a_word_is_at_its_first_subword(saved: PretrainedBundle, tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("a O\nab X\nc O\n\nd X\n", encoding="utf-8")
    task = make_task(TaskConfig(TaskKind.tokens, max_tokens=3))
    file = task.encode_files({"train": {"de": str(path)}}, saved)["train"]["de"]
    a, b, d = (saved.vocab.id(token) for token in ("a", "b", "d"))
    ((batch, places),) = evaluation_batches(file, 0, 1)
    short, long = batch.tokens.tolist()
    assert short[:3] == [EOS, d, EOS]
    assert long == [EOS, a, *saved.pipeline().ids("ab", "de"), EOS][:5]
    assert long[3] == b
    width = batch.tokens.shape[1]
    assert batch.target_index.tolist() == [1, width + 1, width + 2]  # the last word is behind the third subword
    assert batch.targets.tolist() == [1, 0, 1]
    assert places.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (TaskKind.regression, "2.5\tein Haus\nviel\tdas Haus\n", r"a:2: 'viel' is not a number"),
        (TaskKind.regression, "gut\tein Haus\n", r"a:1: 'gut' is not a number"),
        (TaskKind.regression, "score\ttext\nnan\tein Haus\n", r"a:2: 'nan' is not a number"),
        (TaskKind.multilabel, "\tein Haus\n\tdas Haus\n", "no label in any file"),
        (TaskKind.tokens, "Haus O\n. O\n", r"the only label in task.train.de is 'O'"),
    ],
)
def test_refuses(saved: PretrainedBundle, tmp_path: Path, kind: TaskKind, text: str, message: str) -> None:
    path = tmp_path / "a"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        make_task(TaskConfig(kind)).encode_files({"train": {"de": str(path)}}, saved)


def test_the_benchmarks_numbers_are_found_by_their_header(saved: PretrainedBundle, tmp_path: Path) -> None:
    path = tmp_path / "stsb.tsv"
    path.write_text("index\tsentence1\tsentence2\tscore\n0\ta b\tc\t2.5\n1\td\te\t5.000\n", encoding="utf-8")
    file = make_task(TaskConfig(TaskKind.regression)).encode_files({"train": {"de": str(path)}}, saved)["train"]["de"]
    assert file.labels.tolist() == [2.5, 5.0]
    assert file.labels.dtype == np.float32
    assert [int((ids == EOS).sum()) for ids in file.ids] == [2, 2]


def test_entities_need_their_tags(saved: PretrainedBundle, tmp_path: Path) -> None:
    config = task_config(tmp_path, TaskKind.tokens, lambda numbers, words: tagged(numbers, words).replace("-", ""))
    with pytest.raises(ConfigError, match=r"evaluate\.metric=entity_f1: not for these labels, which have accuracy, f1"):
        run_toy(ALONE, toy_config(tmp_path, task=config.task, metric=SelectionMetric.entity_f1), saved)


def test_losses_are_sums_over_the_targets() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 2)
    regression, several = (make_task(TaskConfig(kind)) for kind in (TaskKind.regression, TaskKind.multilabel))
    several.labels = ["a", "b"]
    numbers, given = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    torch.testing.assert_close(regression.loss(logits, numbers), ((logits[:, 0] - numbers) ** 2).sum())
    probability = torch.where(given > 0, logits.sigmoid(), 1 - logits.sigmoid())
    torch.testing.assert_close(several.loss(logits, given), -probability.log().sum() / 2)
    assert several.predict(logits).tolist() == (logits.sigmoid() > 0.5).float().tolist()
