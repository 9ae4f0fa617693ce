"""Every module imports where the optional packages are not installed."""

from __future__ import annotations

from tests.support import programs
from tests.support.repository import REPOSITORY

# What setup.cfg offers as extras, and what the extras bring along.
OPTIONAL = (
    *("apex", "fastBPE", "matplotlib", "mwparserfromhell", "py3langid", "pynvml", "ray", "sentencex", "sklearn"),
    *("tokenizers", "transformers", "accelerate", "pyarrow", "pytest", "sacrebleu", "sentencepiece"),
    *("onnx", "onnxruntime", "onnxscript", "sentence_transformers"),
)
MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    for path in (REPOSITORY / "xlmtrain").rglob("*.py")
    # Copied into exported folders, where transformers is.
    if path.relative_to(REPOSITORY / "xlmtrain").as_posix() != "interop/hf/fill_mask.py"
)
PROGRAM = """
import importlib, sys

for name in {missing!r}:
    sys.modules[name] = None  # any import of it raises ImportError
for name in {modules!r}:
    importlib.import_module(name)
print("imported", len({modules!r}))
"""


def test_every_module_imports_without_them() -> None:
    done = programs.run("-c", PROGRAM.format(missing=OPTIONAL, modules=MODULES))
    assert done.stdout == f"imported {len(MODULES)}\n"
