"""The documentation cannot rot: what it names exists, and the commands it shows are understood."""

import ast
import contextlib
import functools
import importlib
import io
import pkgutil
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from policy_ft.config.config_file import load_config

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
FOLDERS = ("data_tools", "eval_envs", "policy_ft", "configs", "docs", "tests", "benchmarks", ".ci")
HEADER = ("Purpose", "Command", "Hardware", "Expected")
NAMED_ALONE = {".py", ".md", ".toml", ".txt"}


class Snippet(NamedTuple):
    """A piece of code in a page; `language` is that of its fence, '' for an inline span."""

    page: str
    line: int
    text: str
    language: str


def snippets(root: Path) -> Iterator[Snippet]:
    """Every inline code span, every line of a fence, every line of a configuration's header."""
    for path in [*root.glob("*.md"), *root.glob("docs/**/*.md")]:
        yield from page_snippets(path, str(path.relative_to(root)))
    for path in [*root.glob("configs/**/*.yaml"), *root.glob("policy_ft/assets/*.yaml")]:
        page = str(path.relative_to(root))
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if not line.startswith("#"):
                break
            yield Snippet(page, number, re.sub(r"^#\s*(Command: *)?", "", line), "header")
            yield from (Snippet(page, number, span, "") for span in re.findall(r"`([^`]+)`", line))


def page_snippets(path: Path, page: str) -> Iterator[Snippet]:
    language = None
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if line.lstrip().startswith("```"):
            language = line.strip("` \t") if language is None else None
        elif language is not None:
            yield Snippet(page, number, line, language or "text")
        else:
            yield from (Snippet(page, number, span, "") for span in re.findall(r"`([^`]+)`", line))


def commands(root: Path) -> Iterator[tuple[Snippet, list[str]]]:
    """Snippets that run one of our commands, as words, without environment and folder prefixes."""
    for snippet in snippets(root):
        if snippet.language in {"python", "json"}:
            continue
        for part in re.split(r"&&| \| |;", snippet.text.rstrip(" \\")):
            text = re.sub(r"^\s*(\$ )?(\w+=\S+ )*(\.venv/bin/)?", "", part)
            text = re.sub(r"^(accelerate launch .*?|python )-m policy_ft ", "policy-ft ", text)
            prose = snippet.language == "header" and text.startswith("make ")
            if text.split(" ")[0] in {*SCRIPTS, "make"} and not prose:
                yield snippet, [word for word in shlex.split(text, comments=True) if word != "..."]


@functools.cache
def help_of(tool: str, command: str) -> tuple[int, str]:
    """Exit code and text of `tool command --help`, run in this process: a start costs seconds."""
    module, _, function = SCRIPTS[tool].partition(":")
    main = getattr(importlib.import_module(module), function)
    output, code = io.StringIO(), 0
    words = [tool, *([command] if command else []), "--help"]
    with (
        mock.patch.object(sys, "argv", words),
        mock.patch.dict("os.environ", {"COLUMNS": "240", "NO_COLOR": "1", "TERM": "dumb"}),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        try:
            code = main() or 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, output.getvalue()


def unknown_commands(root: Path) -> Iterator[str]:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.MULTILINE))
    for snippet, words in commands(root):
        where = f"{snippet.page}:{snippet.line}"
        tool, *rest = words
        if tool == "make":
            unknown = [
                word for word in rest if re.fullmatch("[a-z]+", word) and word not in targets
            ]
            yield from (f"{where}: make has no target {word!r}" for word in unknown)
            continue
        command = rest[0] if rest and not rest[0].startswith("-") else ""
        for name in command.split("|"):
            code, text = help_of(tool, name)
            if code != 0:
                yield f"{where}: {tool} has no command {name!r}"
                continue
            options = [word.split("=")[0] for word in rest if word.startswith("-")]
            known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text))
            yield from (
                f"{where}: {tool} {name} has no option {o}" for o in options if o not in known
            )


def refused_settings(root: Path) -> Iterator[str]:
    for snippet, words in commands(root):
        paths = [word for word in words if word.endswith(".yaml") and (root / word).exists()]
        if words[0] != "policy-ft" or not paths:
            continue
        overrides = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--set"]
        try:
            load_config(root / paths[0], overrides)
        except ValueError as error:
            yield f"{snippet.page}:{snippet.line}: {error}"


def missing_files(root: Path) -> Iterator[str]:
    here = {path.name for folder in FOLDERS for path in (root / folder).rglob("*")}
    here |= {path.name for path in root.glob("*")}
    for snippet in snippets(root):
        if snippet.language in {"python", "json"}:
            continue
        for word in re.findall(r"(?<![\w/.<-])[\w.*][\w./*-]*", snippet.text):
            name = word.rstrip(".")
            inside = name.split("/")[0] in FOLDERS and "/" in name
            alone = "/" not in name and Path(name).suffix in NAMED_ALONE and "*" not in name
            if (inside and not any(root.glob(name.rstrip("/")))) or (alone and name not in here):
                yield f"{snippet.page}:{snippet.line}: no file {name}"


def dead_links(root: Path) -> Iterator[str]:
    for path in [*root.glob("*.md"), *root.glob("docs/**/*.md")]:
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", line):
                if "://" not in target and not (path.parent / target).exists():
                    yield f"{path.relative_to(root)}:{number}: no file {target}"


def broken_python(root: Path) -> Iterator[str]:
    blocks: dict[tuple[str, int], list[str]] = {}
    for page, line, text, language in snippets(root):
        if language == "python":
            start = next(
                (k for k in blocks if k[0] == page and k[1] + len(blocks[k]) == line), (page, line)
            )
            blocks.setdefault(start, []).append(text)
    for (page, line), lines in blocks.items():
        for node in ast.walk(ast.parse("\n".join(lines), f"{page}:{line}")):
            module = getattr(node, "module", "") or ""
            if isinstance(node, ast.ImportFrom) and module.split(".")[0] in FOLDERS:
                loaded = importlib.import_module(module)
                below = pkgutil.iter_modules(getattr(loaded, "__path__", []))
                known = {*dir(loaded), *(found.name for found in below)}
                names = [alias.name for alias in node.names if alias.name not in known]
                yield from (f"{page}:{line}: {module} has no {name}" for name in names)


def incomplete_headers(root: Path) -> Iterator[str]:
    for path in [*root.glob("configs/**/*.yaml"), *root.glob("policy_ft/assets/*.yaml")]:
        header = re.match(r"(#.*\n)*", path.read_text())[0]
        missing = [word for word in HEADER if f"# {word}: " not in header]
        yield from (
            f"{path.relative_to(root)}:1: no '# {word}: ' in its header" for word in missing
        )


RULES = (
    incomplete_headers,
    unknown_commands,
    refused_settings,
    missing_files,
    dead_links,
    broken_python,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_documentation_has_no(rule):
    faults = list(rule(ROOT))
    assert not faults, "\n" + "\n".join(faults)


def test_the_two_commands_are_on_the_first_screen_of_the_readme():
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert "make quickstart" in first_screen
    assert "make test" in first_screen


PLANTED = [
    (unknown_commands, "Run `make dinner` now.", "make has no target 'dinner'"),
    (unknown_commands, "```\npolicy-ft fly\n```", "policy-ft has no command 'fly'"),
    (
        unknown_commands,
        "`policy-ft train x.yaml --wings 2`",
        "policy-ft train has no option --wings",
    ),
    (refused_settings, "`policy-ft check configs/a.yaml --set sed=1`", "did you mean 'seed'?"),
    (missing_files, "See `policy_ft/nowhere.py`.", "README.md:1: no file policy_ft/nowhere.py"),
    (missing_files, "See\n`absent.md`.", "README.md:2: no file absent.md"),
    (dead_links, "[guide](docs/absent.md)", "README.md:1: no file docs/absent.md"),
    (
        broken_python,
        "```python\nfrom data_tools.errors import Absent\n```",
        "data_tools.errors has no Absent",
    ),
]


@pytest.mark.parametrize(("rule", "text", "words"), PLANTED)
def test_a_planted_fault_is_found(rule, text, words, tmp_path):
    (tmp_path / "README.md").write_text(text)
    (tmp_path / "Makefile").write_text("test: setup\n")
    (tmp_path / "configs").mkdir()
    _, _, settings = (ROOT / "configs/own_hdf5.yaml").read_text().partition("\n\n")
    (tmp_path / "configs/a.yaml").write_text(settings)
    faults = list(rule(tmp_path))
    assert len(faults) == 1
    assert words in faults[0]


def test_a_configuration_without_a_header_is_found(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/a.yaml").write_text("# Purpose: none.\n# Command: none.\nseed: 0\n")
    assert [fault.split("'")[1] for fault in incomplete_headers(tmp_path)] == [
        "# Hardware: ",
        "# Expected: ",
    ]
