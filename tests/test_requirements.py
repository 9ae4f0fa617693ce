"""Everything that make installs is pinned by hash, on every supported Python, and fits setup.cfg."""

from __future__ import annotations

import re
from configparser import ConfigParser

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.repository import REPOSITORY

FILES = sorted((REPOSITORY / "requirements").glob("*.txt"))


def pins(name: str, python: str, machine: str) -> dict[str, Requirement]:
    """Return the requirements of a file by package, as one platform takes them. Asserts that each has a hash."""
    values = {"python_version": python, "python_full_version": f"{python}.5", "platform_machine": machine}
    found: dict[str, Requirement] = {}
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", "")
    for line in re.findall(r"^[^#\s].*$", text, re.MULTILINE):
        spec, *hashes = re.split(r"\s+--hash=", line)
        pin = Requirement(spec)
        assert hashes, spec
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", one.strip()) for one in hashes), spec
        assert [one.operator for one in pin.specifier] == ["=="], spec
        if pin.marker is None or pin.marker.evaluate(values | {"sys_platform": "linux"}):
            assert canonicalize_name(pin.name) not in found, spec
            found[canonicalize_name(pin.name)] = pin
    return found


def wanted(extra: str, setup: ConfigParser) -> set[Requirement]:
    """Return the requirements of an extra in setup.cfg, through others that it names."""
    found = set()
    for line in setup["options.extras_require"][extra].split("\n")[1:]:
        requirement = Requirement(line)
        nested = [wanted(name, setup) for name in requirement.extras]
        found |= set().union(*nested) if nested else {requirement}
    return found


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_what_setup_cfg_wants_is_pinned_by_hash(python: str, machine: str) -> None:
    files = {path.stem: pins(path.stem, python, machine) for path in FILES}
    setup = ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    runtime = {Requirement(line) for line in setup["options"]["install_requires"].split("\n")[1:]}
    for torch in ("torch-cpu", "torch-cuda"):
        pinned = files[torch] | files["test"]
        for requirement in runtime | wanted("test", setup) | wanted("fastbpe", setup):
            (version,) = pinned[canonicalize_name(requirement.name)].specifier
            assert requirement.specifier.contains(version.version), f"{requirement}: run make lock"
    # No file changes what another has installed; torch's CPU build is that of the same version.
    versions = {name: {str(files[file][name].specifier) for file in files if name in files[file]} for name in pinned}
    assert {name for name, of in versions.items() if len(of) > 1} == {"torch"}
    assert versions["torch"] == {(cuda := str(files["torch-cuda"]["torch"].specifier)), f"{cuda}+cpu"}


def test_make_installs_nothing_else() -> None:
    lines = (REPOSITORY / "Makefile").read_text(encoding="utf-8").splitlines()
    installs = [line for line in lines if "$(INSTALL)" in line or re.search(r"\bpip install\b", line)]
    assert installs == ["LOCKED := $(INSTALL) --require-hashes", "\t$(INSTALL) --no-deps --editable ."]
