# SPDX-License-Identifier: GPL-2.0
"""Where things are kept: the clone's own target/ and the cache outside the clone."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
TARGET = TREE / "target"
LOGS = TARGET / "log"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hmm-devmem"


def digest(*facts: str) -> str:
    """A short name for a set of facts: when one changes, so does the name."""
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Only one run at a time changes the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


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
