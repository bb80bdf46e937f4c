"""Locks of the operating system, which go with the process that holds them, and disks without."""

import errno
import fcntl
from typing import IO, Any

NO_LOCKS_HERE = frozenset({errno.ENOLCK, errno.EBADFD, errno.ENOSYS, errno.EOPNOTSUPP})
"""What file systems without locks answer: NFS without a lock daemon, Lustre mounted without."""


def try_to_lock(file: IO[Any], *, is_shared: bool = False) -> bool:
    """Lock an open file until it is closed; False where its file system keeps no locks.

    Raises:
        BlockingIOError: another process holds a lock that does not go with this one.
        OSError: the disk refuses for another reason.
    """
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
        return False
    return True
