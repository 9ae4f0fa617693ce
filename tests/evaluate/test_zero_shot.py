"""Labels are learned from the states of one language and predicted from those of another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.tiny import ALONE, NeverStops, run_processes, tiny_config
from tests.support.toy import toy_model, write_task
from tests.support.training import records, state, train_alone
from xlmtrain.commands import evaluate as tool
from xlmtrain.config.evaluate import Pooling, ZeroShotProbeConfig
from xlmtrain.data.dataset import Dataset
from xlmtrain.errors import ConfigError, DataError, NumericalError
from xlmtrain.evaluate.classification_data import read_examples
from xlmtrain.evaluate.perplexity import Interrupted
from xlmtrain.evaluate.validator import Validator
from xlmtrain.evaluate.zero_shot import PENALTY, ZeroShotProbe, fit_probe
from xlmtrain.interop.bundle import PretrainedBundle
from xlmtrain.interop.run import write_run
from xlmtrain.pretrained import PretrainedModel
from xlmtrain.runtime.distributed import Distributed


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ZeroShotProbeConfig:
    directory = tmp_path_factory.mktemp("labelled")
    train, english, german = (
        str(write_task(directory / f"{number}.{language}.tsv", language, count, number))
        for number, (language, count) in enumerate((("en", 160), ("en", 60), ("de", 61)))
    )
    return ZeroShotProbeConfig({"en": train}, {"en": english, "de": german})


def task_of(files: ZeroShotProbeConfig, saved: PretrainedBundle) -> ZeroShotProbe:
    return ZeroShotProbe(files, saved.pipeline(), saved.languages, saved.config.max_positions, saved.causal)


def judged(
    distributed: Distributed, files: ZeroShotProbeConfig, data: Path, aligned: bool, stop: Callable[[], bool]
) -> dict[str, float]:
    saved = toy_model(data, aligned)
    return task_of(files, saved)(saved.module(), distributed, stop)


@pytest.mark.parametrize("labels", [2, 5])
def test_the_probe_is_scikit_learns(labels: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(labels)
    centres = rng.normal(size=(labels, 8))
    targets = rng.integers(labels, size=300)
    vectors = centres[targets] + rng.normal(size=(300, 8)) * 1.5
    for penalty in (0.01, 1.0):
        weights, bias = fit_probe(torch.from_numpy(vectors), torch.from_numpy(targets), labels, penalty)
        theirs = linear_model.LogisticRegression(C=1 / (300 * penalty), tol=1e-9, max_iter=5000).fit(vectors, targets)
        if labels == 2:  # scikit-learn has one vector for two labels, which is their difference under half the penalty
            theirs = linear_model.LogisticRegression(C=2 / (300 * penalty), tol=1e-9, max_iter=5000)
            theirs.fit(vectors, targets)
            differences = weights[1:] - weights[:1], bias[1:] - bias[:1]
        else:
            differences = weights, bias - bias.mean()
            theirs.intercept_ -= theirs.intercept_.mean()
        np.testing.assert_allclose(differences[0].numpy(), theirs.coef_, atol=1e-5)
        np.testing.assert_allclose(differences[1].numpy(), theirs.intercept_, atol=1e-5)
        said = (torch.from_numpy(vectors) @ weights.T + bias).argmax(dim=1).numpy()
        assert (said == theirs.predict(vectors)).all()
        assert 0.5 < (said == targets).mean() < 1


def test_languages_that_have_met_and_that_have_not(files: ZeroShotProbeConfig, tiny_dataset: Path) -> None:
    met, apart = (judged(ALONE, files, tiny_dataset, aligned, NeverStops()) for aligned in (True, False))
    for layer in range(3):
        assert met[f"zero_shot/en_layer{layer}_in_language"] > 90
        assert met[f"zero_shot/de_layer{layer}_centered"] > 90
        assert met[f"zero_shot/de_layer{layer}_source_centered"] > 90
        assert apart[f"zero_shot/en_layer{layer}_in_language"] > 90
    assert met["valid/zero_shot_acc"] == met["valid/de_zero_shot_acc"] > 90
    assert apart["valid/zero_shot_acc"] < 75
    assert len(met) == 3 * 3 + 2


def test_a_constant_between_the_languages_is_seen_through(files: ZeroShotProbeConfig, tiny_dataset: Path) -> None:
    """English words have the German ones' vectors, but a large language embedding is added: mostly the means differ."""
    saved = toy_model(tiny_dataset)
    saved.weights["encoder.language_embeddings.weight"][1] += 3 * torch.randn(32, generator=torch.manual_seed(1))
    figures = task_of(files, saved)(saved.module(), ALONE, NeverStops())
    for layer in (1, 2):
        assert figures[f"zero_shot/de_layer{layer}_source_centered"] < 75
        assert figures[f"zero_shot/de_layer{layer}_centered"] > 90


def test_figures_are_scikit_learns_on_the_states_of_the_api(files: ZeroShotProbeConfig, tiny_dataset: Path) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    saved = toy_model(tiny_dataset, aligned=False)
    figures, model = task_of(files, saved)(saved.module(), ALONE, NeverStops()), PretrainedModel(saved)
    places = {"train": ("en", files.train["en"]), "en": ("en", files.test["en"]), "de": ("de", files.test["de"])}
    read = {name: read_examples(Path(path), language, "here") for name, (language, path) in places.items()}
    texts = {name: [example.texts[0] for example in some] for name, some in read.items()}
    labels = {name: np.array([example.label for example in some]) for name, some in read.items()}
    states = {name: model.embed_layers(texts[name], places[name][0])[Pooling.mean].astype(float) for name in read}
    best = 0.0
    for layer in range(3):
        train, german = states["train"][layer], states["de"][layer]
        mean, scale = train.mean(axis=0), train.std(axis=0)
        theirs = linear_model.LogisticRegression(C=2 / (160 * PENALTY), tol=1e-9, max_iter=5000)
        theirs.fit((train - mean) / scale, labels["train"])
        for name, vectors, way, own in (
            ("en", states["en"][layer], "in_language", mean),
            ("de", german, "source_centered", mean),
            ("de", german, "centered", german.mean(axis=0)),
        ):
            expected = 100 * (theirs.predict((vectors - own) / scale) == labels[name]).mean()
            assert figures[f"zero_shot/{name}_layer{layer}_{way}"] == pytest.approx(expected)
        if layer > 0:
            best = max(best, figures[f"zero_shot/de_layer{layer}_centered"])
    assert figures["valid/zero_shot_acc"] == best


def test_pairs_of_texts(tiny_dataset: Path, tmp_path: Path) -> None:
    english, german = (
        str(write_task(tmp_path / f"{language}.tsv", language, 200, number, pairs=True))
        for number, language in enumerate(("en", "de"))
    )
    figures = judged(ALONE, ZeroShotProbeConfig({"en": english}, {"de": german}), tiny_dataset, True, NeverStops())
    assert figures["valid/zero_shot_acc"] > 85
    assert set(figures) >= {"zero_shot/de_layer2_source_centered", "valid/de_zero_shot_acc"}


def test_two_processes_find_what_one_finds_with_half_the_work(
    files: ZeroShotProbeConfig, tiny_dataset: Path, tmp_path: Path
) -> None:
    alone, whole = shared_out(ALONE, files, tiny_dataset)
    (first, one), (second, other) = run_processes(2, shared_out, tmp_path, files, tiny_dataset)
    assert first == second == alone
    assert one + other == whole + 1  # each is asked once more at the end
    assert abs(one - other) <= 3


def shared_out(distributed: Distributed, files: ZeroShotProbeConfig, data: Path) -> tuple[dict[str, float], int]:
    """The figures, and how often this process was asked whether to stop: before each batch, and at the end."""
    stop = NeverStops()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xlmtrain.evaluate.sentence_embeddings.BATCH_TOKENS", 100)
        return judged(distributed, files, data, False, stop), stop.asked


def test_it_stops_when_asked(files: ZeroShotProbeConfig, tiny_dataset: Path) -> None:
    with pytest.raises(Interrupted):
        judged(ALONE, files, tiny_dataset, True, lambda: True)


def test_what_is_not_finite_is_refused(files: ZeroShotProbeConfig, tiny_dataset: Path) -> None:
    saved = toy_model(tiny_dataset)
    saved.weights["encoder.language_embeddings.weight"][0] = torch.nan
    with pytest.raises(NumericalError, match="not finite, so nothing can be learned"):
        task_of(files, saved)(saved.module(), ALONE, NeverStops())


def test_of_a_long_file_a_part_is_taken(
    files: ZeroShotProbeConfig, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xlmtrain.evaluate.zero_shot.MAX_EXAMPLES", 60)
    task = task_of(files, toy_model(tiny_dataset))
    assert [len(file.ids) for file in (task.train["en"], task.test["en"], task.test["de"])] == [54, 60, 31]


def test_training_chooses_its_best_by_it(files: ZeroShotProbeConfig, tiny_dataset: Path, tmp_path: Path) -> None:
    changes = {"train.steps": 10, "evaluate.zero_shot_probe": files, "evaluate.metric": "valid/zero_shot_acc"}
    config = tiny_config(tmp_path / "run", tiny_dataset, changes)
    train_alone(config)
    found = [record for record in records(tmp_path / "run") if "valid/zero_shot_acc" in record]
    assert [record["step"] for record in found] == [0, 5, 10]
    assert all("zero_shot/de_layer1_centered" in record for record in found)
    best = state(tmp_path / "run", 10)["progress"]["best"]
    assert best == max(record["valid/zero_shot_acc"] for record in found)
    other = ZeroShotProbeConfig(files.train, {"de": files.test["de"]})
    with pytest.raises(ConfigError, match=r"evaluate\.zero_shot_probe\.test\.en: .* -> None"):
        train_alone(replace(config, evaluate=replace(config.evaluate, zero_shot_probe=other)))


def test_the_tool_prints_it(
    files: ZeroShotProbeConfig, tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    write_run(toy_model(tiny_dataset), tmp_path / "run")
    given = (
        "zero_shot_probe="
        f"{{train: {{en: {files.train['en']}}}, test: {{en: {files.test['en']}, de: {files.test['de']}}}}}"
    )
    tool.main([f"model={tmp_path / 'run'}", given, f"output={tmp_path / 'figures.json'}"])
    figures = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))["zero_shot_probe"]
    assert figures == judged(ALONE, files, tiny_dataset, True, NeverStops())
    header, _, *lines, frequent = capsys.readouterr().out.splitlines()
    assert header.split() == ["layer", "en", "in_language", "de", "source_centered", "de", "centered"]
    for layer, line in enumerate(lines):
        names = (f"zero_shot/{name}" for name in (f"en_layer{layer}_in_language", f"de_layer{layer}_source_centered"))
        assert line.split()[:3] == [str(layer), *(f"{figures[name]:.1f}%" for name in names)]
    assert frequent.startswith("most frequent label: en 5")


@pytest.mark.parametrize(
    ("train", "test", "error", "message"),
    [
        (
            {"en": "train"},
            {"en": "test"},
            ConfigError,
            "zero_shot_probe.test: has the languages of zero_shot_probe.train only",
        ),
        ({"en": "train"}, {"de": "nowhere.tsv"}, DataError, "zero_shot_probe.test.de: nowhere.tsv is not there"),
        ({"en": "train"}, {"fr": "test"}, ConfigError, "zero_shot_probe: fr is none of the model's languages, de, en"),
    ],
)
def test_refused(
    train: dict[str, str],
    test: dict[str, str],
    error: type[Exception],
    message: str,
    files: ZeroShotProbeConfig,
    tiny_dataset: Path,
) -> None:
    places = {"train": files.train["en"], "test": files.test["en"]}
    chosen = ZeroShotProbeConfig(*({lang: places.get(p, p) for lang, p in some.items()} for some in (train, test)))
    config = tiny_config("run", tiny_dataset, {"evaluate.zero_shot_probe": chosen})
    with pytest.raises(error, match=message):
        Validator(config, Dataset(tiny_dataset))


def test_one_without_the_other() -> None:
    probe = ZeroShotProbeConfig({"en": "train.tsv"})
    with pytest.raises(ConfigError, match=r"evaluate\.zero_shot_probe\.train: train and test are needed together"):
        tiny_config("run", "data", {"evaluate.zero_shot_probe": probe})
