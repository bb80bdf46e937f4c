"""The program of an environment's process: `python eval_envs/worker_start.py DESCRIPTOR`.

The interpreter may be one in which our packages are not installed, and whose own must not be mixed
with those that lie beside ours. So ours are lent to it by their paths, and nothing else is.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

LENT = ("data_tools", "eval_envs")


def lend(package: Path) -> None:
    """Import the package in this folder under the folder's name, wherever that lies."""
    init, places = package / "__init__.py", [str(package)]
    spec = importlib.util.spec_from_file_location(
        package.name, init, submodule_search_locations=places
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[package.name] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    for name in LENT:
        lend(Path(__file__).resolve().parents[1] / name)
    importlib.import_module("eval_envs.worker").main(int(sys.argv[1]))
