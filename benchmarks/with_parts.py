"""Train an encoder of other parts than any family's, to measure one part by itself.

    python -m benchmarks.with_parts rotary,gated train model.family=modernbert model.ffn_dim=680 ...

Builds the family ``modernbert`` of XLM's parts and the named ones of ``xlmtrain.config.families.Parts``; ``no_`` before
a name takes a part away. The rest of the command line is that of ``xlmtrain``, which cannot read such a run otherwise.
"""

import sys
from dataclasses import fields, replace

from xlmtrain.cli import main
from xlmtrain.config.families import PARTS, Family, Parts
from xlmtrain.errors import ConfigError
from xlmtrain.runtime.program import user_errors


def parts_of(names: str) -> Parts:
    """Return XLM's parts with those of a list like ``rotary,no_biases``. Raises ConfigError for an unknown name."""
    changes = {name.removeprefix("no_"): not name.startswith("no_") for name in names.split(",") if name}
    known = [field.name for field in fields(Parts) if field.type == "bool"]
    for name in changes:
        if name not in known:
            raise ConfigError(f"{name}: must be one of {', '.join(known)}")
    return replace(PARTS[Family.xlm], **changes)  # type: ignore[arg-type]


if __name__ == "__main__":
    with user_errors():
        PARTS[Family.modernbert] = parts_of(sys.argv[1] if len(sys.argv) > 1 else "")
        main(sys.argv[2:])
