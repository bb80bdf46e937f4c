"""Files in object stores and on web servers, through fsspec: read in blocks, where they are."""

import glob
import os
import re
from pathlib import Path, PosixPath
from typing import IO, Any, Final

import fsspec

from data_tools.errors import UserError, describe

# One frame of a policy is 10 to 150 kB; a larger block costs more than the round trip it may save.
BLOCK_BYTES: Final = 256 << 10
MAX_BLOCKS: Final = 64  # 16 MiB a file

_WEB: Final = ("http://", "https://")
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.:\-]+):/+(?P<rest>.+)", flags=re.DOTALL)


class RemotePath(PosixPath):
    """A URL that can be asked what a path can: its name, its parent, whether it is a file.

    Picklable; connections are made when they are needed, and again in every process. A name with
    an empty part, as in `s3://bucket//key`, is not kept. What a web address has after a question
    mark, a signature say, is part of the address and not of the name.
    """

    @property
    def name(self) -> str:
        """The last part, without what follows a question mark of a web address."""
        return super().name.removesuffix(self.query)

    @property
    def is_pattern(self) -> bool:
        """Whether it is a glob."""
        return glob.has_magic(str(self).removesuffix(self.query))

    @property
    def query(self) -> str:
        """What follows a web address from its question mark on, as a signature does; or ''."""
        last = super().name
        return last[last.find("?") :] if "?" in last and str(self).startswith(_WEB) else ""

    def with_name(self, name: str) -> "RemotePath":
        """A file of this name beside it, asked for with the same signature."""
        return super().with_name(name + self.query)

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest}"

    def __fspath__(self) -> str:
        return str(self)

    def is_file(self) -> bool:
        """Whether there is a file."""
        system, name = self._located()
        return bool(system.isfile(name))

    def is_dir(self) -> bool:
        """Whether there is a folder, as far as the store has any."""
        system, name = self._located()
        return bool(system.isdir(name))

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        system, name = self._located()
        return bool(system.exists(name))

    def resolve(self, strict: bool = False) -> "RemotePath":
        """The same: a URL has no links to follow."""
        return self

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:  # type: ignore[override]
        """The file, open for reading; blocks of 256 KiB are fetched and kept as they are needed."""
        system, name = self._located()
        options = {"cache_type": "blockcache", "cache_options": {"maxblocks": MAX_BLOCKS}}
        kind = {key: value for key, value in kwargs.items() if key == "encoding" and value}
        opened: IO[Any] = system.open(name, mode, block_size=BLOCK_BYTES, **options, **kind)
        return opened

    def files(self, suffixes: tuple[str, ...]) -> list[Path]:
        """What a glob matches, or the files of a folder: its own or else all below it."""
        system, name = self._located()
        if "*" in str(self):
            found = system.glob(name)
        else:
            below = [each for each in system.find(name) if each.endswith(suffixes)]
            own = [each for each in below if each.rpartition("/")[0].strip("/") == name.strip("/")]
            found = own if any(not f.rpartition("/")[2].startswith(".") for f in own) else below
        return [RemotePath(system.unstrip_protocol(each)) for each in found]

    def _located(self) -> tuple[Any, str]:
        """Fsspec's file system and the name in it.

        Raises:
            UserError: the package that speaks this protocol is not installed, or there is none.
        """
        try:
            system, name = fsspec.core.url_to_fs(str(self))
        except ImportError as error:
            remedy = 'Run: pip install "policy_ft[s3]"'
            expected = "the package for this kind of URL"
            raise UserError(describe(str(self), str(error), expected, remedy)) from error
        except ValueError as error:
            remedy = "Use s3://, https://, or another protocol of fsspec, or a local path."
            raise UserError(describe(str(self), str(error), "a known protocol", remedy)) from error
        return system, name


def path_of(place: str | Path) -> Path:
    """The path of a file or folder, or the `RemotePath` of a URL; `file://` is a local path."""
    matched = None if isinstance(place, RemotePath) else _URL.fullmatch(str(place))
    if matched is None or os.path.exists(place):
        return Path(place) if isinstance(place, str) else place
    if matched["scheme"] == "file":
        return Path(f"/{matched['rest']}")
    address, mark, query = matched["rest"].partition("?")
    # a slash in a query is no folder
    return RemotePath(f"{matched['scheme']}://{address}{mark}{query.replace('/', '%2F')}")
