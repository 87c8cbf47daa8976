# SPDX-License-Identifier: GPL-2.0
"""The file system that a test kernel starts with: busybox, programs of this machine with their libraries, our modules."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from kernel import Machine
from progress import Failure

INIT = Path(__file__).with_name("init.sh")
BUSYBOX = Path("/bin/busybox")


class Tree:
    """A directory that becomes an initramfs."""

    def __init__(self, place: Path) -> None:
        self.place = place
        if place.exists():
            shutil.rmtree(place)
        for folder in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "busybox", "proc", "sys", "dev", "tmp", "run", "etc",
                       "modules", "root"):
            (place / folder).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (place / name).symlink_to(f"usr/{name}")
        (place / "tmp").chmod(0o1777)
        (place / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n")
        (place / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
        if not BUSYBOX.exists():
            raise Failure("there is no busybox", hint="apt-get install busybox-static")
        self.add(BUSYBOX, "/usr/bin/busybox")
        # Busybox's own shell prefers its applets to the programs in PATH, so the commands get a shell of this machine.
        self.add_program(Path("/bin/dash"), "/usr/bin/sh")
        self.add(INIT, "/init")

    def add(self, source: Path, target: str | None = None, mode: int | None = None) -> None:
        """Copy one file; into the same path when no other is given. /bin, /lib and so on mean those below /usr."""
        path = re.sub(r"^/(bin|sbin|lib|lib64)/", r"/usr/\1/", target or str(source))
        place = self.place / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
        place.chmod(mode if mode is not None else source.stat().st_mode & 0o777)

    def add_program(self, source: Path, target: str | None = None) -> None:
        """Copy a program and every shared library it needs."""
        self.add(source, target or f"/usr/bin/{source.name}")
        listing = subprocess.run(["ldd", source], capture_output=True, text=True, check=False).stdout
        for line in listing.splitlines():
            found = re.search(r"(?:=> )?(/\S+) \(0x", line)
            if found and not (self.place / re.sub(r"^/(lib|lib64)/", r"usr/\1/", found[1]).lstrip("/")).exists():
                self.add(Path(found[1]).resolve(), found[1])

    def add_host_program(self, name: str) -> None:
        """Copy a program that this machine has in its PATH."""
        path = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
        if path is None:
            raise Failure(f"this machine has no program '{name}'", hint="sh tests/vm/setup.sh")
        self.add_program(Path(path), f"/usr/bin/{name}")

    def add_modules(self, modules: list[Path], machine: Machine | None = None) -> None:
        """Modules, and for a machine of the list the two scripts that load and unload what it wants."""
        for module in modules:
            self.add(module, f"/modules/{module.name}")
        if machine:
            load = [f"insmod /modules/{module}" for module in machine.modules]
            # hmm_vram takes no device by itself: these are given to it by name.
            load += [f"echo hmm_vram >/sys/bus/pci/devices/{name}/driver_override; echo {name} >/sys/bus/pci/drivers_probe"
                     for name in machine.bind]
            unload = [f"rmmod {module.split()[0].removesuffix('.ko')}" for module in reversed(machine.modules)]
            for name, commands in (("load", load), ("unload", unload)):
                script = self.place / "modules" / name
                script.write_text("\n".join(["#!/bin/sh -e", *commands]) + "\n")
                script.chmod(0o755)

    def pack(self, target: Path) -> Path:
        """Write the archive."""
        names = sorted(os.path.relpath(Path(folder) / name, self.place)
                       for folder, folders, files in os.walk(self.place) for name in [*folders, *files])
        with open(target, "wb") as out:
            subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=self.place, stdout=out,
                           input="\n".join(names).encode(), check=True)
        return target
