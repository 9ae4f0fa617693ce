"""Imports point one way, nothing dangerous is called, importing does no work: read off the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY

PACKAGE = REPOSITORY / "xlmtrain"
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
PROGRAMS = sorted(
    [REPOSITORY / "train.py", *(REPOSITORY / "tools").rglob("*.py"), *(REPOSITORY / "benchmarks").glob("*.py")]
)

SETTINGS = tuple(f"xlmtrain.config.{name}" for name in ("data", "evaluate", "model", "optim", "schema", "train"))

# Package -> the parts of xlmtrain that it may import, besides itself and xlmtrain.errors.
ALLOWED = {
    "xlmtrain": (),
    "xlmtrain.errors": (),
    "xlmtrain.resources": (),
    "xlmtrain.config": (
        "xlmtrain.resources",
        "xlmtrain.runtime.program",  # config/load.py starts programs
        "xlmtrain.runtime.typed_json",
    ),
    "xlmtrain.runtime": (*SETTINGS,),
    "xlmtrain.text": ("xlmtrain.config.prepare",),
    "xlmtrain.prepare": (
        "xlmtrain.config.prepare",
        "xlmtrain.data.format",
        "xlmtrain.download.catalogue",  # licences, for the data card
        "xlmtrain.metrics.table",
        "xlmtrain.runtime",
        "xlmtrain.text",
    ),
    "xlmtrain.data": (
        "xlmtrain.config.phases",
        *SETTINGS,
        "xlmtrain.metrics.table",
        "xlmtrain.runtime",
        "xlmtrain.text.tokenizer_json",
        "xlmtrain.text.vocab",
    ),
    "xlmtrain.model": (*SETTINGS, "xlmtrain.text.vocab"),
    "xlmtrain.optim": ("xlmtrain.config.phases", *SETTINGS),
    "xlmtrain.generate": (
        *SETTINGS,
        "xlmtrain.config.translate",
        "xlmtrain.data",
        "xlmtrain.model",
        "xlmtrain.runtime",
        "xlmtrain.text",
    ),
    "xlmtrain.metrics": ("xlmtrain.config.old_names", *SETTINGS, "xlmtrain.runtime"),
    "xlmtrain.evaluate": (
        "xlmtrain.config.families",
        "xlmtrain.config.phases",
        "xlmtrain.config.prepare",
        *SETTINGS,
        "xlmtrain.config.translate",
        "xlmtrain.data",
        "xlmtrain.generate",
        "xlmtrain.metrics",
        "xlmtrain.model",
        "xlmtrain.runtime",
        "xlmtrain.text",
    ),
    "xlmtrain.train": (
        "xlmtrain",
        "xlmtrain.config.old_names",
        "xlmtrain.config.phases",
        *SETTINGS,
        "xlmtrain.data",
        "xlmtrain.generate",
        "xlmtrain.metrics",
        "xlmtrain.model",
        "xlmtrain.optim",
        "xlmtrain.runtime",
    ),
    "xlmtrain.diagnostics": (
        "xlmtrain.config",
        "xlmtrain.data",
        "xlmtrain.evaluate",
        "xlmtrain.interop.warm_start",
        "xlmtrain.metrics",
        "xlmtrain.model",
        "xlmtrain.optim",
        "xlmtrain.prepare.statistics",
        "xlmtrain.runtime",
        "xlmtrain.text",
        "xlmtrain.train.parallel",
        "xlmtrain.train.step",
    ),
    "xlmtrain.download": ("xlmtrain", "xlmtrain.runtime", "xlmtrain.text.xml_files"),
    "xlmtrain.interop": (
        "xlmtrain.config",
        "xlmtrain.data",
        "xlmtrain.download.catalogue",  # licences, for the model card
        "xlmtrain.evaluate",
        "xlmtrain.metrics",
        "xlmtrain.model",
        "xlmtrain.prepare.raw_files",
        "xlmtrain.runtime",
        "xlmtrain.text",
        "xlmtrain.train.checkpoint",
        "xlmtrain.train.checkpoint_io",
    ),
    "xlmtrain.pretrained": (
        "xlmtrain.config",
        "xlmtrain.data",
        "xlmtrain.evaluate",
        "xlmtrain.generate",
        "xlmtrain.interop",
        "xlmtrain.model",
        "xlmtrain.runtime",
        "xlmtrain.text",
    ),
    "xlmtrain.report": (
        "xlmtrain",
        "xlmtrain.config",
        "xlmtrain.data",
        "xlmtrain.diagnostics",
        "xlmtrain.evaluate",
        "xlmtrain.metrics",
        "xlmtrain.pretrained",
        "xlmtrain.runtime",
        "xlmtrain.text.vocab",
    ),
    "xlmtrain.finetune": (
        "xlmtrain",
        "xlmtrain.config",
        "xlmtrain.data",
        "xlmtrain.diagnostics.rules",
        "xlmtrain.evaluate",
        "xlmtrain.interop.bundle",
        "xlmtrain.interop.run",
        "xlmtrain.metrics",
        "xlmtrain.model",
        "xlmtrain.optim",
        "xlmtrain.runtime",
        "xlmtrain.text",
        "xlmtrain.train",
    ),
    "xlmtrain.finetuned": (
        "xlmtrain.config",
        "xlmtrain.evaluate",
        "xlmtrain.finetune",
        "xlmtrain.interop",
        "xlmtrain.pretrained",
        "xlmtrain.text",
    ),
    "xlmtrain.cli": ("xlmtrain", "xlmtrain.runtime.program"),
    "xlmtrain.__main__": ("xlmtrain.cli",),
}
ALLOWED["xlmtrain.commands"] = tuple(ALLOWED)  # nothing imports the commands
TORCH_FREE = (
    "xlmtrain.errors",
    "xlmtrain.cli",
    "xlmtrain.config",
    "xlmtrain.text",
    "xlmtrain.prepare",
    "xlmtrain.download",
    "xlmtrain.runtime.program",
)
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "torch.jit.load", "hydra.utils.instantiate", "instantiate"}
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def is_main(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def imports(node: ast.AST) -> Iterator[tuple[str, int]]:
    """(module, line) of each import that is carried out; ``from a import b`` gives a.b where that is a module."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                inner = f"{'.' * child.level}{child.module}.{alias.name}"
                yield (inner if inner in MODULES else inner.rpartition(".")[0]), child.lineno
        else:
            yield from imports(child)


def within(module: str, packages: tuple[str, ...]) -> bool:
    """Whether ``module`` is one of ``packages`` or inside one; the bare package is only itself."""
    return any(module == name or (name != "xlmtrain" and module.startswith(name + ".")) for name in packages)


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_every_package_is_known() -> None:
    assert {package_of(module) for module in MODULES} == set(ALLOWED)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_one_way(module: str) -> None:
    package = package_of(module)
    allowed = (package, "xlmtrain.errors", *ALLOWED[package])
    for imported, line in imports(tree(MODULES[module])):
        if imported.split(".")[0] == "xlmtrain":
            assert within(imported, allowed), f"{module}:{line} imports {imported}"
        assert imported.split(".")[0] not in ("", "train", "tools", "tests", "benchmarks"), (
            f"{module}:{line} imports {imported}"
        )
        if within(module, TORCH_FREE):
            assert imported.split(".")[0] != "torch", f"{module}:{line} imports torch"


@pytest.mark.parametrize(
    ("module", "absent"),
    [("xlmtrain.commands.prepare", {"torch"}), ("xlmtrain.prepare.task_runner", {"torch", "hydra", "ray"})],
)
def test_preparation_and_its_workers_start_fast(module: str, absent: set[str]) -> None:
    """Importing torch takes two seconds, and a worker is started for each stage."""
    found: set[str] = set()
    left = [module]
    while left:
        for imported, _ in imports(tree(MODULES[left.pop()])):
            if imported in MODULES and imported not in found:
                left.append(imported)
            found.add(imported)
    assert not absent & {name.partition(".")[0] for name in found}


def test_hydra_is_known_in_one_place() -> None:
    users = {
        m for m, path in MODULES.items() for i, _ in imports(tree(path)) if i.split(".")[0] in ("hydra", "omegaconf")
    }
    assert users == {"xlmtrain.config.load"}


def test_no_cycles() -> None:
    graph = {module: {i for i, _ in imports(tree(path)) if i in MODULES} for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way, module])
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("path", [*MODULES.values(), *PROGRAMS], ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_imports_inside_functions(path: Path) -> None:
    for function in ast.walk(tree(path)):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            assert not list(imports(function)), f"{path}:{function.lineno}"


@pytest.mark.parametrize("path", [*MODULES.values(), *PROGRAMS], ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_nothing_dangerous_is_used(path: Path) -> None:
    found = tree(path)
    for imported, line in imports(found):
        assert imported.split(".")[0] not in FORBIDDEN_IMPORTS, f"{path}:{line}"
    for node in ast.walk(found):
        if not isinstance(node, ast.Call):
            continue
        name, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        where = f"{path}:{node.lineno}: {name}"
        assert name not in FORBIDDEN_CALLS, where
        assert not name.endswith(".extractall"), where
        assert keywords.get("shell", "False") == "False", where
        assert keywords.get("allow_pickle", "False") == "False", where
        if name == "torch.load":
            assert keywords.get("weights_only") == "True", where
        if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
            raise AssertionError(where)


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_importing_does_no_work(path: Path) -> None:
    """At the top of a module: imports, definitions, constants, a start as a program. No loops, no bare calls."""
    for node in tree(path).body:
        if is_type_checking(node) or is_main(node):
            continue
        allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign, ast.Try)
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert text or isinstance(node, allowed), f"{path}:{node.lineno}: {ast.unparse(node)[:60]}"


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_public_things_are_explained(path: Path) -> None:
    found = tree(path)
    if path.name == "__init__.py" and not found.body:
        return
    assert ast.get_docstring(found), path
    classes = {node.name: node for node in found.body if isinstance(node, ast.ClassDef)}
    nodes = [
        *found.body,
        *(m for c in classes.values() if not c.name.startswith("_") for m in explained_here(c, classes)),
    ]
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}:{node.lineno}: {node.name}"


def explained_here(one: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Iterator[ast.stmt]:
    """Yield the members of a class that no base class of its module explains, nor config/validate.py (``problems``)."""
    explained = {
        m.name
        for base in bases_of(one, classes)
        for m in base.body
        if isinstance(m, ast.FunctionDef) and ast.get_docstring(m)
    }
    for member in one.body:
        if not (isinstance(member, ast.FunctionDef) and member.name in {"problems", *explained}):
            yield member


def bases_of(one: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Iterator[ast.ClassDef]:
    """Yield the base classes in the same module, and theirs."""
    for base in (base.value if isinstance(base, ast.Subscript) else base for base in one.bases):
        if isinstance(base, ast.Name) and base.id in classes:
            yield classes[base.id]
            yield from bases_of(classes[base.id], classes)
