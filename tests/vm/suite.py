# SPDX-License-Identifier: GPL-2.0
"""What runs inside the machines: tests/user/suite.toml.

Each [[test]] (KTAP on its standard output) and each [[demo]] (lines `HMM-DEMO {json}`) has
    name      of small letters, digits and dashes
    run       a shell command
    files     what it needs: a path in the clone, an absolute path of this machine, or the bare name of a program here
    machines  where it can run; when not given, all that have no `own` programs
    timeout   in seconds
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass

import cache
import kernel
from boot import Job
from initramfs import Tree
from progress import Failure

LIST = cache.TREE / "tests" / "user" / "suite.toml"
_ELF = b"\x7fELF"


@dataclass(frozen=True)
class Program:
    """One entry of the suite."""

    name: str
    run: str
    files: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    timeout: int = 60

    def fits(self, machine: str) -> bool:
        """Whether it can run in this machine."""
        return machine in self.machines if self.machines else not kernel.machine(machine).own

    def unfit(self, line: kernel.Line, machine: str) -> str:
        """Why it is not run on a kernel in a machine; empty if it is."""
        if not self.fits(machine):
            return f"not for a {machine} machine"
        return "" if wants(line, self.name, machine) else f"not in the short suite of {line.name}"

    def job(self) -> Job:
        """It as a line of a machine's plan."""
        return Job(self.name, self.run, self.timeout)


def programs(kind: str) -> list[Program]:
    """The entries of a kind, `test` or `demo`."""
    if not LIST.exists():
        raise Failure("there is no tests/user/suite.toml")
    known = set(kernel.table()["machines"])
    result: list[Program] = []
    for entry in tomllib.loads(LIST.read_text()).get(kind, []):
        try:
            program = Program(**kernel.frozen(entry))
        except TypeError as error:
            raise Failure(f"tests/user/suite.toml, [[{kind}]] {entry.get('name')}: {error}") from error
        if unknown := set(program.machines) - known:
            raise Failure(f"tests/user/suite.toml, {program.name}: unknown machine {', '.join(unknown)}")
        if program.name in (other.name for other in result):
            raise Failure(f"tests/user/suite.toml: there are two called {program.name}")
        result.append(program)
    return result


def wants(line: kernel.Line, name: str, machine: str) -> bool:
    """Whether a kernel of the list runs a program: all, or those that its line names; without devices no hmm-tests."""
    return (not line.suite or name in kernel.table()["suite"][line.suite]) and not (name == "hmm-tests" and machine == "mirror")


def needs(chosen: list[Program]) -> list[str]:
    """The files that some programs need, each once."""
    return list(dict.fromkeys(name for program in chosen for name in program.files))


def equip(tree: Tree, names: list[str]) -> None:
    """Copy files into a machine: programs with their libraries to /usr/bin, libraries to /usr/lib, data where it was."""
    for name in names:
        if "/" not in name:
            tree.add_host_program(name)
            continue
        source = cache.TREE / name  # an absolute name stays what it is
        if not source.is_file():
            raise Failure(f"{name} is wanted in the machine and does not exist", hint="make user")
        with open(source, "rb") as handle:
            elf = handle.read(4) == _ELF
        if ".so" in source.suffixes:
            tree.add_program(source, f"/usr/lib/{source.name}")
        elif elf:
            tree.add_program(source)
        else:
            tree.add(source, name if name.startswith("/") else f"/data/{source.name}")
