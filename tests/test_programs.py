"""The three programs: one line on Ctrl-C, whenever it comes."""

import signal
import subprocess
import sys

import pytest

# a package, arguments, and a module that its command line imports late
PROGRAMS = [
    ("data_tools", ["inspect", "a.hdf5"], "matplotlib.figure"),
    ("eval_envs", ["list"], "rich.progress"),
    ("policy_ft", ["convert", "a", "b", "--to", "native"], "torch._utils"),
]


def heed_ctrl_c() -> None:
    """As in a terminal; a job in the background starts with the signal ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("package", "arguments", "module"), PROGRAMS)
def test_ctrl_c_is_one_line_while_the_imports_still_run(package, arguments, module) -> None:
    """python -v names each import on stderr as it happens."""
    program = [sys.executable, "-v", "-m", package, *arguments]
    with subprocess.Popen(
        program, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if f"import '{module}'" in line:
                break
        running.send_signal(signal.SIGINT)
        lines = running.stderr.read().splitlines()
    assert running.returncode == 130
    assert lines.count("stopped") == 1
    assert not any("Traceback" in line or "--resume" in line for line in lines)


@pytest.mark.parametrize("package", [package for package, *_ in PROGRAMS])
def test_a_package_runs_as_a_program(package) -> None:
    program = [sys.executable, "-m", package, "--help"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, "Usage" in done.stdout) == (0, True)
