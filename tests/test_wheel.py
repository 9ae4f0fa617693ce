"""Wheel and sdist: installed without a compiler, outside of the checkout, they train."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist of the checkout, and the wheel that is built from this sdist."""
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("packages")
    for name in ("xlmtrain", "configs", "data"):  # not in the checkout, where setuptools leaves files
        shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "raw"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(output)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(output), *map(str, output.glob("*.tar.gz"))], check=True)
    return output


@pytest.fixture(scope="module")
def environment(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel, which sees all packages of this one but fastBPE."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, symlinks=True)
    (wheel,) = packages.glob("*.whl")
    python = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", str(wheel)], check=True)
    (site,) = directory.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    (site / "fastBPE.py").write_text("raise ImportError\n", encoding="utf-8")
    return directory / "bin"


def run(environment: Path, place: Path, *words: str) -> str:
    """Run a program of the environment in ``place``, where no other program is found."""
    variables = {"PATH": str(environment), "HOME": str(place), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [str(environment / words[0]), *words[1:]], cwd=place, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_configs_and_sample(packages: Path) -> None:
    (wheel,), (sdist,) = packages.glob("*.whl"), packages.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for planted in (str(REPOSITORY).encode(), sys.prefix.encode(), str(packages.parent).encode()):
            assert not [name for name in names if planted in archive.read(name)]
    with tarfile.open(sdist) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    for path in [*(REPOSITORY / "configs").rglob("*.*"), *(REPOSITORY / "data" / "sample").iterdir()]:
        name = str(path.relative_to(REPOSITORY))
        assert f"xlmtrain/{name}" in names
        assert name in source
    for path in (REPOSITORY / "xlmtrain").rglob("*.*"):
        if "__pycache__" not in path.parts:
            assert str(path.relative_to(REPOSITORY)) in names & source
    assert not [name for name in names if name.startswith(("tests", "tools", "benchmarks"))]


def test_the_wheel_trains_without_a_compiler(environment: Path, tmp_path: Path) -> None:
    where = run(environment, tmp_path, "python", "-c", "import xlmtrain; print(xlmtrain.__file__)")
    assert where.startswith(str(environment.parent))
    assert "prepared: prepared/sample" in run(environment, tmp_path, "xlmtrain", "prepare", "corpus=sample")
    assert (tmp_path / "data" / "sample" / "train.de").is_file()
    settings = ("experiment=quickstart", "train.steps=5", "evaluate.every=0", "train.device=cpu")
    run(environment, tmp_path, "xlmtrain", "train", *settings)
    sentence = ("lang=de", "Die <mask> schläft auf dem Sofa.")
    assert "<mask> 1: " in run(environment, tmp_path, "xlmtrain", "fill-mask", "model=runs/quickstart", *sentence)
