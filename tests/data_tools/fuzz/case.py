"""One case of the fuzz: a seed becomes damaged data, and the data an outcome."""

import re
import shutil
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.errors import UserError
from data_tools.formats.reader import open_dataset
from tests.data_tools.fuzz.beside_damage import damage_beside
from tests.data_tools.fuzz.delivered import Delivered, differences, everything, told_by
from tests.data_tools.fuzz.hdf5_damage import damage_hdf5
from tests.data_tools.fuzz.lerobot_damage import damage_lerobot
from tests.data_tools.fuzz.originals import (
    LAYOUTS,
    LEROBOT_KINDS,
    hdf5_files,
    other_files,
    place_of,
)
from tests.data_tools.fuzz.touched import Touched

FAULT = re.compile(r".+: found .+; expected .+\. \S", re.DOTALL)
SHARE_OF_VALIDATED = 0.1
SHARE_OF_BESIDE = 0.3


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        name: the case, e.g. 'hdf5:17'.
        data: the layout or the kind of folder.
        damage: what was done to it.
        verdict: 'refused', 'same', 'told' (other numbers, and the doctor finds a rule broken that
            holds for the undamaged data), 'unprotected' (rows are read from another place because
            bits of their address changed, which nothing in the file can show), or a failure:
            'wrong', 'raised', 'no remedy', and, from the parent process, 'died' and 'hung'.
        detail: of a refusal or a failure.
        seconds: of reading, without the damaging.
    """

    name: str
    data: str
    damage: str
    verdict: str
    detail: str
    seconds: float


GOOD = ("refused", "same", "told", "unprotected")


class Cases:
    """Makes and reads the cases; remembers what the undamaged data holds.

    Args:
        originals: a folder of `write_originals`.
        scratch: where damaged data is written.
    """

    def __init__(self, originals: Path, scratch: Path) -> None:
        self._originals, self._scratch = originals, scratch
        self._truth: dict[str, tuple[dict[str, Delivered], set[str]]] = {}

    def run(self, name: str) -> Outcome:
        """Damage, read and judge the case of this name."""
        folder = self._scratch / name.replace(":", "_")
        shutil.rmtree(folder, ignore_errors=True)
        data, damage, touched, rng = self.damaged(name, folder)
        truth, known = self.truth_of(data)
        started = time.perf_counter()
        verdict, detail = self._judge(folder, truth, known, touched, rng)
        seconds = time.perf_counter() - started
        if verdict in GOOD:
            shutil.rmtree(folder, ignore_errors=True)
        return Outcome(name, data, damage, verdict, detail[-2000:], seconds)

    def damaged(self, name: str, folder: Path) -> tuple[str, str, Touched, np.random.Generator]:
        """Write the damaged data of a case: its kind, what was done, and what that touched."""
        kind, _, number = name.partition(":")
        rng = np.random.default_rng([len(kind), int(number)])
        data = str(rng.choice(LAYOUTS if kind == "hdf5" else LEROBOT_KINDS))
        shutil.copytree(self._originals / data, folder)
        if kind == "lerobot":
            return data, *damage_lerobot(place_of(folder), rng), rng
        beside = other_files(folder)
        if beside and rng.random() < SHARE_OF_BESIDE:
            path = beside[int(rng.integers(len(beside)))]
            return data, *damage_beside(folder, path, rng), rng
        files = hdf5_files(folder)
        path = files[int(rng.integers(len(files)))]
        return data, *damage_hdf5(path, str(path.relative_to(folder)), rng), rng

    def _judge(
        self,
        folder: Path,
        truth: dict[str, Delivered],
        known: set[str],
        touched: Touched,
        rng: np.random.Generator,
    ) -> tuple[str, str]:
        try:
            dataset = open_dataset(place_of(folder), allow_undeclared=True)
            found = everything(dataset, folder)
            wrong = list(differences(truth, found, touched))
            if not wrong and rng.random() >= SHARE_OF_VALIDATED:
                return "same", ""
            told = told_by(dataset, deep=True) - known
        except UserError as error:
            has_remedy = all(FAULT.match(fault) for fault in error.faults)
            return ("refused" if has_remedy else "no remedy"), str(error)
        except BaseException:
            return "raised", traceback.format_exc()
        if not wrong:
            return "same", ""
        detail = "\n".join([*wrong[:5], f"told: {sorted(told)}"])
        if told or any(differences(truth, found, touched.with_misplaced())):
            return ("told" if told else "wrong"), detail
        return "unprotected", detail

    def truth_of(self, data: str) -> tuple[dict[str, Delivered], set[str]]:
        """What the undamaged data of a kind holds, and the rules that the doctor finds broken."""
        if data not in self._truth:
            folder = self._originals / data
            dataset = open_dataset(place_of(folder))
            told = {f.rule for f in dataset.inspected.warnings} | told_by(dataset, deep=True)
            self._truth[data] = everything(dataset, folder), told
        return self._truth[data]
