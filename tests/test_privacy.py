"""What is given away names neither the user nor the machine."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.foreign_tokenizers import LINES, write_tokenizer
from tests.support.repository import REPOSITORY
from tests.support.tiny import phase, tiny_config
from tests.support.training import train_alone
from xlmtrain.commands import checkpoint, export, report, show_data
from xlmtrain.config.load import compose
from xlmtrain.config.prepare import CleanConfig, PrepareConfig, SplitConfig
from xlmtrain.config.train import Device, Precision
from xlmtrain.prepare.pipeline import prepare


def _family_with_a_tokenizer(home: Path) -> Path:
    """Train a ModernBERT in two phases on text prepared with another's tokenizer, and return the prepared data."""
    tokenizer, text = write_tokenizer("byte_bpe", home / "tokenizer"), home / "text.de"
    text.write_text("\n".join(LINES[:200]), encoding="utf-8")
    split = SplitConfig({"de": [str(text)]})
    prepare(
        PrepareConfig(
            str(home / "ids"), split, split, tokenizer=str(tokenizer), workers=1, clean=CleanConfig(decontaminate=False)
        )
    )
    config = compose(
        "config", ["model=modernbert_tiny", f"data.path={home / 'ids'}", "data.mlm={de: 1}", f"run={home / 'family'}"]
    )
    config.model.dim, config.model.layers, config.model.heads, config.train.device = 32, 1, 2, Device.cpu
    config.data.sub_batch_tokens = config.train.batch_tokens = 64
    config.data.sequence_length, config.train.precision = 32, Precision.fp32
    config.phases = [phase("first", 2), phase("second", 2, mask__prob=0.3)]
    train_alone(config)
    return home / "ids"


@pytest.mark.parametrize("relative", [False, True])
def test_nothing_that_is_given_away_names_the_user_or_the_machine(
    own_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    relative: bool,
) -> None:
    """The name of the user, directories, the host and a secret of the environment, also inside binary files."""
    home = tmp_path / "home" / "planted-user"
    home.mkdir(parents=True)
    for name, value in {"HOME": str(home), "USER": "planted-user", "API_TOKEN": "planted-secret"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("socket.gethostname", lambda: "planted-host")
    monkeypatch.setattr("platform.node", lambda: "planted-host")
    if relative:
        monkeypatch.chdir(home.parent)
        home = Path(home.name)
    data, run, given = home / "data", home / "study", tmp_path / "given"
    own_dataset.rename(data)
    train_alone(tiny_config(run, data, {"train.steps": 5}))
    assert "planted-user" in (run / "config.json").read_text()  # the run directory is the user's own
    ended = {"status": "failed", "reason": f"OSError: {data}/codes: gone ({home / 'other'})"}
    (run / "status.json").write_text(json.dumps(ended), encoding="utf-8")
    forms = {"run": "run", "xlm": "model.pth", "vectors": "words.vec", "projector": "projector"}
    if importlib.util.find_spec("transformers"):
        forms["hf"] = "hf"
        show_data.main([f"data={data}", f"card={given / 'card.md'}"])
    for form, name in forms.items():
        export.main([f"model={run}", f"format={form}", f"output={given / name}"])
    report.main([f"run={run}", f"output={given / 'report.html'}"])
    checkpoint.main(["average", f"run={run}", "last=1", f"output={given / 'mean'}"])
    capsys.readouterr()
    shutil.copytree(run / "checkpoints" / "step-00000005", given / "checkpoint")
    shutil.copytree(_family_with_a_tokenizer(home), given / "data")
    family = [*([f"hf={given / 'family'}"] if "hf" in forms else []), f"run={given / 'family-run'}"]
    for form, _, output in (word.partition("=") for word in family):
        export.main([f"model={home / 'family'}", f"format={form}", f"output={output}"])
    report.main([f"run={home / 'family'}", f"output={given / 'family.html'}"])
    capsys.readouterr()
    files = [path for path in given.rglob("*") if path.is_file()]
    assert len(files) > 15
    assert "OSError: data/codes: gone (other)" in (given / "report.html").read_text(encoding="utf-8")
    for path in files:
        content = path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content += b"".join(map(archive.read, archive.namelist()))
        for planted in (b"planted-", str(tmp_path).encode(), str(REPOSITORY).encode(), sys.prefix.encode()):
            assert planted not in content, path
