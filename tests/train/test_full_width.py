"""The released model's recipe at its full width, on a CPU."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny import write_corpus, write_header
from tests.support.training import records, train_alone
from xlmtrain.config.load import compose
from xlmtrain.text.vocab import SPECIALS, Vocab


@pytest.mark.slow
def test_three_steps_of_the_released_recipe(tmp_path: Path) -> None:
    """142,422,203 parameters at a vocabulary of 64,699; `-rP` shows time and memory."""
    rng = np.random.default_rng(0)
    vocab = Vocab([(f"w{i}", 10**7 // (i + 1)) for i in range(64699 - len(SPECIALS))])
    data = tmp_path / "data"
    data.mkdir()
    vocab.write(data / "vocab")
    (data / "codes").write_text("w 1</w> 7\n", encoding="utf-8")
    corpora = {
        f"{split}.{language}": write_corpus(
            data,
            f"{split}.{language}",
            [np.minimum(len(SPECIALS) + rng.zipf(1.3, size=20), len(vocab) - 1).tolist() for _ in range(sentences)],
        )
        for split, sentences in (("train", 400), ("valid", 20))
        for language in ("de", "en")
    }
    write_header(data, vocab, corpora)
    run = tmp_path / "run"
    small = ["data.sub_batch_tokens=1024", "train.batch_tokens=2048", "train.micro_batch_tokens=1024", "train.steps=3"]
    quiet = ["train.log_every=1", "evaluate.max_tokens=256", "evaluate.batch_tokens=256", "train.precision=fp32"]
    config = compose(
        "config", ["experiment=mlm_ende_1024", f"data.path={data}", f"run={run}", "train.device=cpu", *small, *quiet]
    )
    assert train_alone(config).status == "done"
    assert "142,422,203 parameters, vocabulary 64,699" in (run / "log.txt").read_text(encoding="utf-8")
    steps = [record for record in records(run, timed=True) if "train/loss" in record]
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(
        f"{steps[-1]['progress/seconds'] / 3:.1f} s a step of 2,048 tokens on one thread, {gigabytes:.1f} GB resident"
    )
    assert all(np.isfinite(record["train/loss"]) for record in steps)
    assert gigabytes < 8
    assert json.loads((run / "status.json").read_text(encoding="utf-8"))["status"] == "done"
