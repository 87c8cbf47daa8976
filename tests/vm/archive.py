# SPDX-License-Identifier: GPL-2.0
"""Debian's package archive, read through a private apt configuration.

The machine's own apt is asked for one thing only: the addresses of its mirrors. Everything else (lists, cache,
sources) is ours and lies in the cache, so suites that the machine does not use can be read without touching it.
Signatures and checksums are apt's business and stay switched on.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import cache
from progress import Failure, Step, say

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FRESH_SECONDS = 6 * 3600
# Suites in development: their date may have run out on a mirror. The signature is checked all the same.
MOVING = {"forky", "sid", "testing", "unstable"}


@dataclass(frozen=True)
class Package:
    """One package in one version."""

    name: str
    version: str
    suite: str

    def __str__(self) -> str:
        return f"{self.name}={self.version}"


def mirrors() -> tuple[str, str]:
    """The addresses of the main archive and of the security archive, as this machine's apt has them."""
    # This only prints what an update would fetch, so it works on a machine that never updated.
    output = subprocess.run(["apt-get", "update", "--print-uris"], capture_output=True, text=True, check=False).stdout
    plain, security = os.environ.get("MIRROR", ""), os.environ.get("MIRROR_SECURITY", "")
    listed = re.findall(r"^'(\S+)/dists/(\S+)/InRelease'", output, re.MULTILINE)
    # Other vendors call their suites by Debian's names too, but only Debian has -updates and -backports beside them.
    for pattern in (r"\w+-updates", r"\w+-backports", r"bullseye|bookworm|trixie|forky|sid|unstable|testing|(old)*stable"):
        plain = plain or next((address for address, suite in listed if re.fullmatch(pattern, suite)), "")
    security = security or next((address for address, suite in listed if re.fullmatch(r"\w+-security", suite)), "")
    if not plain:
        raise Failure("apt has no Debian mirror configured", hint="give one: make MIRROR=<address of a debian/ folder> ...")
    plain = plain.rstrip("/")
    # Every full mirror keeps the security archive beside the main one, under this name.
    return plain, security.rstrip("/") or f"{plain}-security"


class Archive:
    """The suites that are asked for, through a private apt."""

    def __init__(self, suites: list[str]) -> None:
        plain, security = mirrors()
        self.sources = "".join(
            f"deb [arch=amd64 signed-by={KEYRING}{' check-valid-until=no' if suite in MOVING else ''}] "
            f"{security if suite.endswith('-security') else plain} {suite} main\n"
            for suite in suites)
        self.place = cache.CACHE / "apt" / cache.digest(self.sources)
        self.config = self.place / "apt.conf"

    def _write(self) -> None:
        for folder in ("state/lists/partial", "cache/archives/partial", "none"):
            (self.place / folder).mkdir(parents=True, exist_ok=True)
        (self.place / "sources.list").write_text(self.sources)
        (self.place / "status").write_text("")
        here = self.place
        self.config.write_text(
            f'Dir::State "{here}/state";\nDir::State::lists "{here}/state/lists";\nDir::State::status "{here}/status";\n'
            f'Dir::Cache "{here}/cache";\nDir::Cache::archives "archives";\n'
            'Dir::Cache::pkgcache "pkgcache.bin";\nDir::Cache::srcpkgcache "";\n'
            f'Dir::Etc::sourcelist "{here}/sources.list";\nDir::Etc::sourceparts "{here}/none";\n'
            f'Dir::Etc::preferences "{here}/none/x";\nDir::Etc::preferencesparts "{here}/none";\n'
            'Acquire::Languages "none";\nAPT::Sandbox::User "root";\n'
            'APT::Architecture "amd64";\nAPT::Architectures { "amd64"; };\n'
            'APT::Get::List-Cleanup "true";\nAcquire::Retries "3";\n'
            'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
            # The machine's own hooks clean the machine's own cache: not ours to trigger.
            '#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n')

    @property
    def stamp(self) -> Path:
        """Written after each successful refresh of the lists."""
        return self.place / "updated"

    def refresh(self, force: bool = False) -> None:
        """Fetch the package lists when they are older than a few hours; old ones serve where the net is away."""
        age = time.time() - self.stamp.stat().st_mtime if self.stamp.exists() else None
        if age is not None and age < FRESH_SECONDS and not force:
            return
        self._write()
        try:
            with Step("package lists", "apt-update") as step:
                step.run(["apt-get", "-c", self.config, "-q", "--error-on=any", "update"],
                         hint="check the network and apt's mirror, or set MIRROR=")
                step.note = self.sources.count("\n").__str__() + " suites"
            self.stamp.write_text("")
        except Failure as failure:
            if age is None:
                raise
            say(f"  (the lists could not be refreshed, using those of {age / 3600:.0f} hours ago; {failure.what})")

    def _ask(self, *words: str) -> str:
        return subprocess.run(["apt-cache", "-c", str(self.config), *words], capture_output=True, text=True,
                              check=False).stdout

    def names(self, prefix: str) -> list[str]:
        """All package names with a prefix."""
        return sorted(set(self._ask("pkgnames", prefix).split()))

    def versions(self, names: list[str], suites: list[str]) -> list[Package]:
        """All versions of these packages in these suites, the newest first."""
        found = set()
        if names:
            for line in self._ask("madison", *names).splitlines():
                name, version, origin = (part.strip() for part in line.split("|", 2))
                suite = origin.split()[1].partition("/")[0]
                if suite in suites and origin.endswith("Packages"):
                    found.add(Package(name, version, suite))
        return sorted(found, key=functools.cmp_to_key(_newest_first))

    def depends(self, package: Package) -> dict[str, str | None]:
        """What a package depends on: the first alternative of each, with its exact version where one is demanded."""
        record = self._ask("show", str(package))
        match = re.search(r"^Depends: (.*)$", record, re.MULTILINE)
        result: dict[str, str | None] = {}
        for item in (match[1] if match else "").split(","):
            words = re.fullmatch(r"([^\s(|:]+)(?::\w+)?(?:\s*\(=\s*([^)]+)\))?.*", item.strip())
            if words:
                result[words[1]] = words[2]
        return result

    def download(self, packages: list[Package], place: Path, step: Step) -> list[Path]:
        """Fetch packages into a folder; apt has verified each against the signed list when this returns."""
        step.run(["apt-get", "-c", self.config, "-q", "download", *map(str, packages)], cwd=place,
                 hint="make update, then the same again")
        return sorted(place.glob("*.deb"))


def _newest_first(one: Package, other: Package) -> int:
    if one.version == other.version:
        return (one.name < other.name) - (one.name > other.name)
    newer = subprocess.run(["dpkg", "--compare-versions", one.version, "gt", other.version], check=False).returncode == 0
    return -1 if newer else 1

