# SPDX-License-Identifier: GPL-2.0
"""Where things are kept: the clone's own target/ and the cache outside the clone."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

TREE = Path(__file__).resolve().parents[2]
TARGET = TREE / "target"
LOGS = TARGET / "log"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmm-devmem"
KEEP_DAYS = 30


def digest(*facts: str) -> str:
    """A short name for a set of facts: when one changes, so does the name."""
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]


def used(place: Path) -> Path:
    """Note that something in the cache is in use today."""
    os.utime(place)
    return place


def prune() -> list[Path]:
    """Remove what nobody used for a long time: kernels and roots that newer ones have replaced."""
    oldest = time.time() - KEEP_DAYS * 86400
    gone = [place for kind in ("kernels", "roots", "peer", "source") for place in sorted((CACHE / kind).glob("*"))
            if place.stat().st_mtime < oldest]
    for place in gone:
        shutil.rmtree(place)
    return gone


@contextlib.contextmanager
def locked(place: Path = CACHE) -> Iterator[None]:
    """Only one run at a time changes a place, the cache if no other is given."""
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


_own: dict[Path, IO[str]] = {}


def own(place: Path) -> Path:
    """A directory for this run alone, until it ends: `place`, or place-2 and so on while others use those before it."""
    for number in range(1, 100):
        chosen = place if number == 1 else place.with_name(f"{place.name}-{number}")
        if chosen in _own:
            return chosen
        chosen.mkdir(parents=True, exist_ok=True)
        handle = open(chosen / "lock", "w")  # noqa: SIM115 - held until the process ends
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            continue
        _own[chosen] = handle
        return chosen
    raise RuntimeError(f"a hundred runs use {place}")


@contextlib.contextmanager
def made(place: Path) -> Iterator[Path]:
    """A directory that exists either whole or not at all: filled under another name, renamed at the end."""
    draft = place.with_name(place.name + ".part")
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    draft.rename(place)


def give_back(place: Path, owner: int, group: int) -> None:
    """Give to somebody all that belongs to the user who runs this, below a place."""
    for folder, folders, files in os.walk(place):
        for path in [folder, *(os.path.join(folder, name) for name in [*folders, *files])]:
            if os.lstat(path).st_uid == os.geteuid():
                os.lchown(path, owner, group)


# Under sudo, what is built in the clone stays with the user whose clone it is.
if os.geteuid() == 0 and os.environ.get("SUDO_UID", "0") != "0":
    atexit.register(give_back, TARGET, int(os.environ["SUDO_UID"]), int(os.environ.get("SUDO_GID", os.environ["SUDO_UID"])))
