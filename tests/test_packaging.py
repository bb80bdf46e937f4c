"""What pip installs is what the code needs: dependencies, pins and files beside the modules."""

import ast
import fnmatch
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("data_tools", "eval_envs", "policy_ft")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]

# An import's top-level name -> the distribution that brings it, where the two differ.
DISTRIBUTION_OF = {"PIL": "pillow", "yaml": "pyyaml"}
# Brought along, and pinned, by a dependency that cannot do without it.
COMES_WITH = {
    "click": "typer",
    "httpx2": "huggingface_hub",
    "packaging": "pytest",
    "pydantic_core": "pydantic",
}
# Modules of benchmarks/, found because Python puts a script's own folder on the path; the folder
# itself, from the root.
BESIDE_A_SCRIPT = {
    "benchmarks",
    "cpu_clock",
    "index_speed",
    "peers",
    "pi0_gpu",
    "pi0_sizes",
    "repack_speed",
}
# The code compared with: in its own environment (peers/lerobot.sh), or without dependencies.
PEERS = {"lerobot", "mani_skill", "robomimic", "robosuite"}
# Tools that are run, not imported (fsspec finds aiohttp), and what torch imports for us.
RUN_BY_NAME = {"aiohttp", "codespell", "mypy", "pytest-timeout", "ruff", "types-PyYAML"}
IMPORTED_BY_TORCH = {"tensorboard"}
# Extras that our own modules import, where they are needed.
IMPORTED_EXTRAS = ("adapters", "orbax")
# A script that lists its own requirements (PEP 723) runs in an environment of its own.
OWN_REQUIREMENTS = "# /// script"


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for group in (PROJECT["dependencies"], *extras) for text in group]


def declared(*extras: str) -> set[str]:
    """Names of the dependencies, or of these extras alone."""
    groups = [PROJECT["optional-dependencies"][extra] for extra in extras]
    return {
        Requirement(text).name for group in groups or [PROJECT["dependencies"]] for text in group
    }


def imported_distributions(*folders: str) -> set[str]:
    """Distributions, other than ours, that the files below these folders import."""
    names = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if source.startswith(OWN_REQUIREMENTS):
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    known = {*sys.stdlib_module_names, *PACKAGES, "tests", *COMES_WITH, *BESIDE_A_SCRIPT, *PEERS}
    third_party = names - known
    return {DISTRIBUTION_OF.get(name, name) for name in third_party}


def test_the_packages_import_exactly_the_declared_dependencies():
    needed = imported_distributions(*PACKAGES)
    known = declared() | declared(*IMPORTED_EXTRAS)
    assert needed - known == set(), "imported, not declared: add to pyproject.toml"
    assert known - needed == set(), "declared, not imported: remove from pyproject.toml"


def test_tests_and_benchmarks_import_exactly_the_declared_extras():
    needed = imported_distributions("tests", "benchmarks") - declared()
    extras = declared("dev", "track", *IMPORTED_EXTRAS) - RUN_BY_NAME - IMPORTED_BY_TORCH
    assert needed - extras == set(), "imported, not declared: add to the extra 'dev'"
    assert extras - needed == set(), "declared, not imported: remove from the extras"


def test_every_requirement_is_pinned_to_a_version_in_its_range():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    for requirement in requirements():
        pin = pins.get(requirement.name.lower())
        assert pin is not None, f"{requirement}: not in constraints.txt; run make lock"
        assert requirement.specifier.contains(pin), f"{requirement}: pinned to {pin}; run make lock"


def test_every_file_beside_the_modules_is_package_data():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and path.suffix not in {".py", ".pyc"}:
                name = str(path.relative_to(ROOT / package))
                anywhere = [pattern.replace("**/", "*") for pattern in patterns[package]]
                assert any(fnmatch.fnmatch(name, pattern) for pattern in anywhere), (
                    f"{package}/{name} would not be installed; name it in package-data"
                )


def test_the_three_commands_are_installed():
    installed = {entry.name: entry for entry in metadata.entry_points(group="console_scripts")}
    for name, target in PROJECT["scripts"].items():
        assert installed[name].value == target
        assert callable(installed[name].load())
