"""The house style a syntax tree can show: sizes, names, errors with words, no data run as code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("data_tools", "eval_envs", "policy_ft")
PYTHON = (*PACKAGES, "tests", "benchmarks")
TEXT = {".py", ".md", ".yaml", ".toml", ".jinja", ".j2", ".html", ".xml"}

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_POLICY_FT_LINES = 13_000
OTHERS_FORMATS = "policy_ft/formats/"
"""Reading and writing what others publish grows with what they publish, and has no cap."""
CATCH_ALL_NAMES = {"utils", "util", "misc", "helpers", "helper", "common", "manager"}
SAFE_YAML_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader"}
RUNS_DATA_AS_CODE = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def sources(root: Path, folders: tuple[str, ...] = PACKAGES) -> list[tuple[str, ast.Module]]:
    """Path below the root and syntax tree of every Python file in these folders."""
    paths = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    return [
        (str(path.relative_to(root)), ast.parse(path.read_text(encoding="utf-8"))) for path in paths
    ]


def fault(path: object, line: int, found: str, expected: str, remedy: str) -> str:
    return f"{path}:{line}: found {found}; expected {expected}. {remedy}"


def long_files(root: Path) -> Iterator[str]:
    for folder in PYTHON:
        for path in sorted((root / folder).rglob("*.py")):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > MAX_FILE_LINES:
                limit = f"at most {MAX_FILE_LINES}"
                where = path.relative_to(root)
                yield fault(where, lines, f"{lines} lines", limit, "Split the file by subject.")


def long_functions(root: Path) -> Iterator[str]:
    for path, tree in sources(root, PYTHON):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    found, limit = (
                        f"{node.name}() of {lines} lines",
                        f"at most {MAX_FUNCTION_LINES}",
                    )
                    yield fault(path, node.lineno, found, limit, "Give its parts names.")


def large_package(root: Path) -> Iterator[str]:
    lines = sum(
        lines_of_code(tree)
        for path, tree in sources(root, ("policy_ft",))
        if not path.startswith(OTHERS_FORMATS)
    )
    if lines > MAX_POLICY_FT_LINES:
        limit = f"at most {MAX_POLICY_FT_LINES}"
        yield fault("policy_ft", 1, f"{lines} lines of code", limit, "Remove what is said twice.")


def lines_of_code(tree: ast.Module) -> int:
    """Lines that hold part of a statement; docstrings, comments and empty lines do not count."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and not is_text:
            inner = [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)]
            end = min((each.lineno - 1 for each in inner), default=node.end_lineno or node.lineno)
            lines.update(range(node.lineno, end + 1))
    return len(lines)


def catch_all_names(root: Path) -> Iterator[str]:
    for folder in PYTHON:
        for path in sorted((root / folder).rglob("*")):
            if path.stem in CATCH_ALL_NAMES and (path.is_dir() or path.suffix == ".py"):
                where, found = path.relative_to(root), f"the name {path.stem!r}"
                yield fault(where, 1, found, "a name that says what is inside", "Rename it.")


def errors_without_words(root: Path) -> Iterator[str]:
    for path, tree in sources(root):
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and node.exc is not None:
                called = isinstance(node.exc, ast.Call)
                name = ast.unparse(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
                if name.endswith("Error") and not (called and (node.exc.args or node.exc.keywords)):
                    expected = "where, what was found, what was expected and what to do"
                    yield fault(path, node.lineno, f"a bare {name}", expected, "Say it in words.")


def swallowed_exceptions(root: Path) -> Iterator[str]:
    for path, tree in sources(root):
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                everything = caught in {"everything", "Exception", "BaseException"}
                silent = all(isinstance(part, ast.Pass) for part in node.body)
                answered = any(
                    isinstance(part, ast.Raise)
                    or (isinstance(part, ast.Name) and part.id == node.name)
                    for part in ast.walk(node)
                )
                if (everything and not answered) or silent:
                    found = f"a handler that catches {caught} and goes on"
                    remedy = "Name the exception, and answer it or raise again."
                    yield fault(path, node.lineno, found, "no swallowed exception", remedy)


def data_run_as_code(root: Path) -> Iterator[str]:
    for path, tree in sources(root):
        loaders = SAFE_YAML_LOADERS | {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            and {ast.unparse(base) for base in node.bases} & SAFE_YAML_LOADERS
        }
        for node in ast.walk(tree):
            found = unsafe(node, loaders)
            if found:
                remedy = "Use safetensors, JSON, yaml.safe_load or torch.load(weights_only=True)."
                yield fault(path, node.lineno, found, "nothing that runs data as code", remedy)


def unsafe(node: ast.AST, yaml_loaders: set[str]) -> str:
    """What is unsafe about a node, '' when nothing is."""
    if isinstance(node, ast.Import):
        return next(
            (f"import {a.name}" for a in node.names if a.name.split(".")[0] in RUNS_DATA_AS_CODE),
            "",
        )
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in RUNS_DATA_AS_CODE:
        return f"import {node.module}"
    if not isinstance(node, ast.Call):
        return ""
    name = ast.unparse(node.func)
    keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if name in {"eval", "exec", "yaml.unsafe_load", "yaml.full_load"}:
        return f"{name}()"
    if name == "yaml.load" and keywords.get("Loader") not in yaml_loaders:
        return "yaml.load() without a safe Loader"
    if name == "torch.load" and keywords.get("weights_only") != "True":
        return "torch.load() without weights_only=True"
    return "allow_pickle=True" if keywords.get("allow_pickle") == "True" else ""


def not_ascii(root: Path) -> Iterator[str]:
    folders = [root / name for name in (*PYTHON, "configs", "docs", ".ci")]
    files = [path for folder in folders for path in sorted(folder.rglob("*"))] + sorted(
        root.glob("*")
    )
    for path in files:
        if (
            path.is_file()
            and (path.suffix in TEXT or path.name == "Makefile")
            and "assets" not in path.parts
        ):
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                if not line.isascii():
                    letter = next(letter for letter in line if not letter.isascii())
                    where = path.relative_to(root)
                    yield fault(where, number, ascii(letter), "ASCII", "Write it in plain letters.")


RULES = (
    long_files,
    long_functions,
    large_package,
    catch_all_names,
    errors_without_words,
    swallowed_exceptions,
    data_run_as_code,
    not_ascii,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_has_no(rule):
    faults = list(rule(ROOT))
    assert not faults, "\n" + "\n".join(faults)


PLANTED = [
    (long_files, "policy_ft/a.py", "\n" * 351, "found 351 lines"),
    (
        long_functions,
        "tests/a.py",
        "def f():\n" + "    x = 1\n" * 60,
        "a.py:1: found f() of 61 lines",
    ),
    (large_package, "policy_ft/a.py", "x = 1\n" * 13_001, "found 13001 lines of code"),
    (catch_all_names, "data_tools/utils.py", "", "data_tools/utils.py:1: found the name 'utils'"),
    (
        errors_without_words,
        "eval_envs/a.py",
        "\nraise ValueError\n",
        "a.py:2: found a bare ValueError",
    ),
    (
        errors_without_words,
        "eval_envs/a.py",
        "raise errors.UserError()\n",
        "found a bare errors.UserError",
    ),
    (
        swallowed_exceptions,
        "policy_ft/a.py",
        "try:\n    f()\nexcept Exception:\n    x = 1\n",
        "a.py:3: found",
    ),
    (
        swallowed_exceptions,
        "policy_ft/a.py",
        "try:\n    f()\nexcept KeyError:\n    pass\n",
        "catches KeyError",
    ),
    (
        swallowed_exceptions,
        "policy_ft/a.py",
        "try:\n    f()\nexcept:\n    x = 1\n",
        "catches everything",
    ),
    (data_run_as_code, "data_tools/a.py", "import pickle\n", "found import pickle"),
    (data_run_as_code, "data_tools/a.py", "from dill import loads\n", "found import dill"),
    (data_run_as_code, "data_tools/a.py", "x = 1\neval('x')\n", "a.py:2: found eval()"),
    (data_run_as_code, "data_tools/a.py", "exec('x')\n", "found exec()"),
    (data_run_as_code, "policy_ft/a.py", "torch.load(path)\n", "without weights_only=True"),
    (
        data_run_as_code,
        "policy_ft/a.py",
        "np.load(path, allow_pickle=True)\n",
        "found allow_pickle=True",
    ),
    (
        data_run_as_code,
        "policy_ft/a.py",
        "yaml.load(text, Loader)\n",
        "Use safetensors, JSON, yaml.safe_load",
    ),
    (not_ascii, "docs/a.md", "one\ntw\u00f6\n", "docs/a.md:2: found '\\xf6'"),
]


@pytest.mark.parametrize(("rule", "name", "text", "words"), PLANTED)
def test_a_planted_violation_is_found(rule, name, text, words, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(text, encoding="utf-8")
    faults = list(rule(tmp_path))
    assert len(faults) == 1
    assert words in faults[0]


def test_what_is_allowed_is_not_reported(tmp_path):
    (tmp_path / "policy_ft").mkdir()
    (tmp_path / "policy_ft/a.py").write_text(
        "model.eval()\ntorch.load(path, weights_only=True)\nnp.load(path, allow_pickle=False)\n"
        "try:\n    f()\nexcept KeyError as error:\n    raise ValueError(f'{error}') from error\n"
        "try:\n    f()\nexcept BaseException:\n    clean_up()\n    raise\n"
        "try:\n    f()\nexcept Exception as error:\n    faults.append(str(error))\n"
        "class Strict(yaml.SafeLoader):\n    limit = 1\nyaml.load(text, Loader=Strict)\n"
    )
    assert [fault for rule in RULES for fault in rule(tmp_path)] == []
