"""The floors of the house: a module imports only lower floors or its own room, without cycles."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("data_tools", "eval_envs", "policy_ft")

DATA_TOOLS = (
    "errors|declaration|conventions finding|rules episode|columns finite|stats|actions|"
    "storage|formats|writer view|rewrite|doctor|commands|cli"
)
# Lowest floor first; rooms on one floor do not import one another. A bare name is an __init__.py.
FLOORS: tuple[tuple[str, ...], ...] = (
    *(tuple(f"data_tools.{room}" for room in floor.split()) for floor in DATA_TOOLS.split("|")),
    ("data_tools", "data_tools.__main__"),
    ("eval_envs",),
    ("policy_ft.errors",),
    ("policy_ft.config", "policy_ft.ranks"),
    ("policy_ft.models",),
    ("policy_ft.transforms",),
    ("policy_ft.data", "policy_ft.formats.embodiments"),
    ("policy_ft.policy",),
    ("policy_ft.checkpoints", "policy_ft.tuning", "policy_ft.execution"),
    ("policy_ft.evaluation",),
    ("policy_ft.training", "policy_ft.formats"),
    ("policy_ft.objectives", "policy_ft.deployment", "policy_ft.preflight"),
    ("policy_ft.assemble",),
    ("policy_ft.quickstart",),
    ("policy_ft.commands",),
    ("policy_ft.cli",),
    ("policy_ft", "policy_ft.__main__"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

TORCH_FREE = ("data_tools", "eval_envs")
NEEDS_TORCH = {"torch", "torchvision", "timm", "transformers", "accelerate"}


@dataclass(frozen=True)
class Import:
    """One import of a module; `where` names the function around it, '' at the top level."""

    target: str
    line: int
    where: str


@dataclass(frozen=True)
class Module:
    """A source file: its dotted name, its path below the root, and what it imports."""

    name: str
    path: Path
    imports: tuple[Import, ...]

    @property
    def room(self) -> str:
        """eval_envs is one room; of the other packages, the first two parts of the name."""
        parts = self.name.split(".")
        return parts[0] if parts[0] == "eval_envs" else ".".join(parts[:2])


def read_modules(root: Path) -> dict[str, Module]:
    """Every module of our packages below `root`, by dotted name."""
    paths = {
        dotted(path.relative_to(root)): path
        for package in PACKAGES
        for path in sorted((root / package).rglob("*.py"))
    }
    return {
        name: Module(name, path.relative_to(root), tuple(imports_of(path, name, set(paths))))
        for name, path in paths.items()
    }


def dotted(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path, name: str, known: set[str]) -> Iterator[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node, where in walk_with_function(ast.parse(path.read_text(encoding="utf-8")), ""):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, where) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
            base = ".".join([*parts, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield Import(submodule if submodule in known else base, node.lineno, where)


def walk_with_function(node: ast.AST, where: str) -> Iterator[tuple[ast.AST, str]]:
    for child in ast.iter_child_nodes(node):
        inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else where
        yield child, inner
        yield from walk_with_function(child, inner)


def is_ours(target: str) -> bool:
    return target.split(".")[0] in PACKAGES


def unplaced_rooms(modules: dict[str, Module]) -> list[str]:
    """Modules in a room that has no floor."""
    return [
        f"{module.path}:1: found room {module.room!r}; expected one of {sorted(FLOOR_OF)}. "
        "Put the module into one of these rooms, or give the new room a floor in this test."
        for module in modules.values()
        if module.room not in FLOOR_OF
    ]


def upward_imports(modules: dict[str, Module]) -> list[str]:
    """Imports of a higher floor, or of another room on the same floor."""
    faults = []
    for module in modules.values():
        for item in module.imports:
            target = modules.get(item.target)
            if (
                target is None
                or target.room == module.room
                or not {target.room, module.room} <= set(FLOOR_OF)
            ):
                continue
            here, there = FLOOR_OF[module.room], FLOOR_OF[target.room]
            if there >= here:
                faults.append(
                    f"{module.path}:{item.line}: found {module.room} (floor {here}) importing "
                    f"{item.target} (floor {there}); expected imports of lower floors or of its "
                    "own room. Move the shared part down."
                )
    return faults


def missing_targets(modules: dict[str, Module]) -> list[str]:
    """Imports of modules of ours that do not exist."""
    return [
        f"{module.path}:{item.line}: found an import of {item.target}; expected a module that "
        "exists. Correct the name."
        for module in modules.values()
        for item in module.imports
        if is_ours(item.target) and item.target not in modules
    ]


def import_cycles(modules: dict[str, Module]) -> list[str]:
    """One fault for each module that a chain of top-level imports leads back to."""
    edges = {
        name: {
            item.target for item in module.imports if item.target in modules and item.target != name
        }
        for name, module in modules.items()
    }
    faults = []
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            cycle = " -> ".join((*trail[trail.index(name) :], name))
            faults.append(
                f"{modules[name].path}:1: found the import cycle {cycle}; expected none. "
                "Move the shared part down."
            )
        elif name not in done:
            for target in sorted(edges[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())
    return faults


def imports_inside_functions(modules: dict[str, Module]) -> list[str]:
    """Imports of our own packages inside functions, but for the lazy names of the package root."""
    return [
        f"{module.path}:{item.line}: found an import of {item.target} inside {item.where}(); "
        "expected it at the top of the file. Move it up; if that makes a cycle, move the shared "
        "part down."
        for module in modules.values()
        for item in module.imports
        if item.where
        and is_ours(item.target)
        and (module.name, item.where) != ("policy_ft", "__getattr__")
    ]


def torch_on_torch_free_floors(modules: dict[str, Module]) -> list[str]:
    """Imports of torch, or of a library that imports it, in data_tools and eval_envs."""
    return [
        f"{module.path}:{item.line}: found an import of {item.target}; expected none in "
        f"{module.room}, which a lab uses without torch. Use numpy, or move it into policy_ft."
        for module in modules.values()
        for item in module.imports
        if module.name.split(".")[0] in TORCH_FREE
        and (item.target.split(".")[0] in NEEDS_TORCH or item.target == "safetensors.torch")
    ]


RULES = (
    unplaced_rooms,
    upward_imports,
    missing_targets,
    import_cycles,
    imports_inside_functions,
    torch_on_torch_free_floors,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_has_no(rule):
    modules = read_modules(ROOT)
    assert {module.name.split(".")[0] for module in modules.values()} == set(PACKAGES)
    faults = rule(modules)
    assert not faults, "\n" + "\n".join(faults)


PLANTED = [
    (
        upward_imports,
        {
            "data_tools/writer.py": "import numpy\nfrom policy_ft.errors import x\n",
            "policy_ft/errors.py": "",
        },
        "writer.py:2: found data_tools.writer (floor 9) importing policy_ft.errors (floor 16)",
    ),
    (
        upward_imports,
        {
            "policy_ft/models/flow.py": "from ..training import loop\n",
            "policy_ft/training/loop.py": "",
        },
        "models/flow.py:1: found policy_ft.models (floor 18) importing policy_ft.training.loop",
    ),
    (
        upward_imports,
        {"data_tools/storage/a.py": "import data_tools.doctor.b\n", "data_tools/doctor/b.py": ""},
        "found data_tools.storage (floor 7) importing data_tools.doctor.b (floor 11)",
    ),
    (
        upward_imports,
        {"policy_ft/tuning/a.py": "import policy_ft.execution.b\n", "policy_ft/execution/b.py": ""},
        "Move the shared part down",
    ),
    (
        upward_imports,
        {"policy_ft/data/a.py": "from policy_ft import train\n", "policy_ft/__init__.py": ""},
        "data/a.py:1: found policy_ft.data",
    ),
    (
        upward_imports,
        {
            "policy_ft/training/a.py": "from policy_ft.formats.load import load_policy\n",
            "policy_ft/formats/load.py": "",
        },
        "found policy_ft.training",
    ),
    (
        upward_imports,
        {
            "policy_ft/tuning/a.py": "from policy_ft.formats import hub\n",
            "policy_ft/formats/hub.py": "",
        },
        "found policy_ft.tuning",
    ),
    (unplaced_rooms, {"policy_ft/extra.py": ""}, "extra.py:1: found room 'policy_ft.extra'"),
    (
        missing_targets,
        {"eval_envs/a.py": "\nimport data_tools.b\n"},
        "eval_envs/a.py:2: found an import of data_tools.b",
    ),
    (
        import_cycles,
        {
            "data_tools/a.py": "from data_tools import b\n",
            "data_tools/b.py": "import data_tools.a\n",
        },
        "found the import cycle data_tools.a -> data_tools.b -> data_tools.a",
    ),
    (
        imports_inside_functions,
        {"data_tools/a.py": "def f():\n    from data_tools import b\n", "data_tools/b.py": ""},
        "data_tools/a.py:2: found an import of data_tools.b inside f()",
    ),
    (
        imports_inside_functions,
        {
            "policy_ft/cli.py": "class A:\n    def run(self):\n        import eval_envs.c\n",
            "eval_envs/c.py": "",
        },
        "policy_ft/cli.py:3: found an import of eval_envs.c inside run()",
    ),
    (
        torch_on_torch_free_floors,
        {"data_tools/a.py": "import torch.nn\n"},
        "found an import of torch.nn; expected none",
    ),
    (
        torch_on_torch_free_floors,
        {"eval_envs/a.py": "def f():\n    from timm.models import x\n"},
        "eval_envs/a.py:2: found an import of timm.models",
    ),
]


@pytest.mark.parametrize(("rule", "files", "words"), PLANTED)
def test_a_planted_violation_is_found(rule, files, words, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    faults = rule(read_modules(tmp_path))
    assert len(faults) == 1
    assert words in faults[0]


def test_the_lazy_names_of_the_package_root_are_allowed(tmp_path):
    (tmp_path / "policy_ft").mkdir()
    (tmp_path / "policy_ft/cli.py").touch()
    (tmp_path / "policy_ft/__init__.py").write_text(
        "def __getattr__(name):\n    from policy_ft import cli\n"
    )
    assert imports_inside_functions(read_modules(tmp_path)) == []


@pytest.mark.parametrize("package", TORCH_FREE)
def test_importing_every_module_of_a_torch_free_package_loads_no_torch(package):
    names = [
        name
        for name in read_modules(ROOT)
        if name.split(".")[0] == package and not name.endswith("__main__")
    ]
    program = (
        f"import importlib, sys; [importlib.import_module(name) for name in {names}]; "
        f"print(sorted({NEEDS_TORCH} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
