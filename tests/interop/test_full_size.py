"""The released model's shape: read, kept, written again, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support import programs
from tests.support.xlm_model import Weights
from xlmtrain.text.vocab import SPECIALS

WORDS, DIM, LAYERS, PARAMETERS = 64_699, 1024, 6, 142_422_203
MEMORY = 2.5
"""The most that reading a file may take, as a multiple of its size."""

STATUS = Path("/proc/self/status")
IMPORT = """
import json, sys, time, torch
from pathlib import Path

def peak():  # of this process alone; what getrusage gives begins with its parent's
    return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

from xlmtrain.interop.formats import read_model
from xlmtrain.interop.xlm.conversion import write_xlm_checkpoint
from xlmtrain.interop.run import read_run, write_run

source, run, output = map(Path, sys.argv[1:])
metrics = {"imports": peak()}
started = time.monotonic()
model = read_model(source)
module = model.module()
metrics |= {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time(), "read": peak()}
run.mkdir()
write_run(model, run)
metrics |= {"all_seconds": time.monotonic() - started, "written": peak()}
metrics |= {"parameters": sum(p.numel() for p in module.parameters()), "languages": model.languages}
metrics |= {"words": len(model.vocab)}
del model, module
write_xlm_checkpoint(read_run(run), output)
print(json.dumps(metrics))
"""


def random_weights() -> Weights:
    """The weights of a full-size model under the original's names and in its order, but for the output's matrix."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "position_embeddings.weight": (512, DIM),
        "lang_embeddings.weight": (2, DIM),
        "embeddings.weight": (WORDS, DIM),
        "layer_norm_emb.weight": (DIM,),
        "layer_norm_emb.bias": (DIM,),
    }
    parts = {f"attentions.{{}}.{part}_lin": (DIM, DIM) for part in ("q", "k", "v", "out")}
    parts |= {"layer_norm1.{}": (DIM,), "ffns.{}.lin1": (4 * DIM, DIM), "ffns.{}.lin2": (DIM, 4 * DIM)}
    for part, shape in {**parts, "layer_norm2.{}": (DIM,)}.items():
        for layer in range(LAYERS):
            shapes |= {f"{part.format(layer)}.weight": shape, f"{part.format(layer)}.bias": shape[:1]}
    shapes["pred_layer.proj.bias"] = (WORDS,)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_checkpoint(path: Path, twice: bool) -> None:
    """``twice``: as programs on several GPUs wrote it, names with a prefix and the tied matrix stored two times."""
    weights = random_weights()
    assert sum(weight.numel() for weight in weights.values()) == PARAMETERS
    weights["pred_layer.proj.weight"] = weights["embeddings.weight"]
    if twice:
        weights = {f"module.{name}": weight for name, weight in weights.items()}
        weights["module.pred_layer.proj.weight"] = weights["module.embeddings.weight"].clone()
    words = dict(enumerate([*SPECIALS, *(f"wort{i}" for i in range(WORDS - len(SPECIALS)))]))
    params = {"emb_dim": DIM, "n_layers": LAYERS, "n_heads": 8, "dropout": 0.1, "attention_dropout": 0.1}
    params |= {"gelu_activation": True, "share_inout_emb": True, "sinusoidal_embeddings": False}
    content = {
        "model": weights,
        "dico_id2word": words,
        "dico_word2id": {word: i for i, word in words.items()},
        "dico_counts": {word: 0 if i < len(SPECIALS) else WORDS - i for i, word in words.items()},
        "params": params | {"id2lang": {0: "de", 1: "en"}, "lang2id": {"de": 0, "en": 1}, "n_langs": 2},
    }
    torch.save(content, path)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory whose files do not outlive the test: they are large."""
    yield tmp_path
    for file in tmp_path.rglob("*"):
        if file.is_file():
            file.unlink()


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(("twice", "megabytes"), [(True, 835), (False, 570)])
def test_the_released_models_shape(place: Path, twice: bool, megabytes: int) -> None:
    source, run, output = place / "model.pth", place / "run", place / "again.pth"
    write_checkpoint(source, twice)
    size = source.stat().st_size
    assert round(size / 1e6) in range(megabytes, megabytes + 6)  # the words take some
    done = programs.run("-c", IMPORT, str(source), str(run), str(output), timeout=600)
    metrics = json.loads(done.stdout)
    memory = {what: metrics[what] / size for what in ("imports", "read", "written")}
    print(f"{size / 1e6:.0f} MB: read in {metrics['seconds']:.1f} s, kept as a run in {metrics['all_seconds']:.1f} s")
    print(f"{metrics['cpu_seconds']:.1f} CPU-seconds to that, with the imports")
    print("peak memory / file size: " + ", ".join(f"{what} {ratio:.2f}" for what, ratio in memory.items()))
    assert metrics["parameters"] == PARAMETERS
    assert metrics["languages"] == ["de", "en"]
    assert metrics["words"] == WORDS
    assert memory["imports"] < memory["read"] < MEMORY
    assert memory["written"] < MEMORY

    assert output.stat().st_size < 1.02 * 4 * PARAMETERS  # the tied matrix once
    again = torch.load(output, map_location="cpu", weights_only=True, mmap=True)
    before = torch.load(source, map_location="cpu", weights_only=True, mmap=True)["model"]
    assert again["params"]["id2lang"] == {0: "de", 1: "en"}
    assert again["model"].keys() == {name.removeprefix("module.") for name in before}
    for name, weight in before.items():
        assert torch.equal(again["model"][name.removeprefix("module.")], weight), name
