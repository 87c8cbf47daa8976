# SPDX-License-Identifier: GPL-2.0
"""Reads the finished modules: does the kernel know all that it has to know about the code of the Rust core?

The kernel patches returns and indirect branches when it loads a module, from lists that objtool made, and unwinds
stacks with tables that objtool made. Code that objtool has not seen runs all the same, unprotected; so it is looked up.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import build
import install
from kernel import Kernel
from results import Results

ENDBR = b"\xf3\x0f\x1e\xfa"
SYMTAB, RELA = 2, 4  # kinds of sections
FUNC, SECTION = 2, 3  # kinds of symbols
# A flag of an exported symbol, from 7.0 on: for GPL modules only.
GPL_ONLY = 1

Place = tuple[int, int]  # a section's number and an offset in it


@dataclass
class Symbol:
    """A line of the symbol table."""

    name: str
    kind: int
    place: Place
    size: int


@dataclass
class Object:
    """A relocatable object file, as far as it is of interest here."""

    path: Path
    names: list[str] = field(default_factory=list)
    bytes: list[bytes] = field(default_factory=list)
    symbols: list[Symbol] = field(default_factory=list)
    # By section: where, which symbol, plus what.
    relocations: dict[int, list[tuple[int, Symbol, int]]] = field(default_factory=dict)

    def section(self, name: str) -> int:
        """The number of a section, 0 if it is not there."""
        return self.names.index(name) if name in self.names else 0

    def listed(self, name: str) -> list[Place]:
        """What the entries of a table of places point to, in their order."""
        entries = sorted(self.relocations.get(self.section(name), []), key=lambda entry: entry[0])
        return [(symbol.place[0], symbol.place[1] + plus) for _, symbol, plus in entries]

    def calls(self, prefix: str) -> list[Place]:
        """Where code goes to a symbol whose name begins so: the place of the distance in the instruction."""
        return [(number, where) for number, entries in self.relocations.items() if ".text" in self.names[number]
                for where, symbol, _ in entries if symbol.name.startswith(prefix)]


def read(path: Path) -> Object:
    """An object file of x86-64."""
    data = path.read_bytes()
    start, = struct.unpack_from("<Q", data, 0x28)
    size, count, strings = struct.unpack_from("<HHH", data, 0x3a)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, start + number * size) for number in range(count)]
    result = Object(path)

    def text(table: int, offset: int) -> str:
        begin = headers[table][4] + offset
        return data[begin:data.index(b"\0", begin)].decode(errors="replace")

    for head in headers:
        result.names.append(text(strings, head[0]))
        result.bytes.append(data[head[4]:head[4] + head[5]])
    table = next(number for number, head in enumerate(headers) if head[1] == SYMTAB)
    for name, info, _, section, value, length in struct.iter_unpack("<IBBHQQ", result.bytes[table]):
        own = text(headers[table][6], name) if name else result.names[section] if section < count else ""
        result.symbols.append(Symbol(own, info & 15, (section, value), length))
    for number, head in enumerate(headers):
        if head[1] == RELA and head[6] == table:
            result.relocations[head[7]] = [(where, result.symbols[info >> 32], plus)
                                           for where, info, plus in struct.iter_unpack("<QQq", result.bytes[number])]
    return result


def unlisted(calls: list[Place], listed: list[Place]) -> list[str]:
    """Branches whose instruction, which begins one to three bytes before the distance, is in no list."""
    known = set(listed)
    return [f"section {section}, {where:#x}" for section, where in calls
            if not any((section, where - back) in known for back in (1, 2, 3))]


def without_unwinding(module: Object, functions: list[Symbol], tables: list[tuple[Place, int]]) -> list[str]:
    """Functions that a stack cannot be unwound from, at their first instruction or at one of their calls."""
    ordered = sorted(tables)
    starts = [place for place, _ in ordered]
    bad = []
    for function in functions:
        section, first = function.place
        # An address on the stack is the one after a call; the kernel looks up the byte before.
        returns = [where + 3 for where, symbol, _ in module.relocations.get(section, [])
                   if first <= where < first + function.size and symbol.kind != SECTION and not symbol.name.startswith("__x86")]
        for address in [first, *returns]:
            index = bisect.bisect_right(starts, (section, address)) - 1
            if index < 0 or starts[index][0] != section or not ordered[index][1]:
                bad.append(f"{function.name}+{address - first:#x}")
    return bad


def orc(module: Object) -> list[tuple[Place, int]]:
    """The unwinder's entries: from where on, and the register that it counts from (0: it does not know)."""
    table = module.bytes[module.section(".orc_unwind")]
    return [(place, table[number * 6 + 4] & 15) for number, place in enumerate(module.listed(".orc_unwind_ip"))]


def _inside(functions: list[Symbol], places: list[Place]) -> list[Place]:
    spans = [(function.place[0], function.place[1], function.place[1] + function.size) for function in functions]
    return [place for place in places if any(section == place[0] and low <= place[1] < high for section, low, high in spans)]


def _exports(module: Object, symvers: Path) -> Iterator[str]:
    """Exports that are for others than GPL modules."""
    lines = [line.split("\t") for line in symvers.read_text().splitlines()] if symvers.exists() else []
    ours = [words for words in lines if words[2].rpartition("/")[2] == module.path.stem]
    yield from (f"{words[1]}: {words[3]}" for words in ours if words[3] != "EXPORT_SYMBOL_GPL")
    exported = {symbol.name.removeprefix("__ksymtab_") for symbol in module.symbols
                if symbol.name.startswith("__ksymtab_") and symbol.kind != SECTION}
    yield from (f"{name} is exported and not in Module.symvers" for name in exported - {words[1] for words in ours})
    flags = module.bytes[module.section("__kflagstab")] if module.section("__kflagstab") else None
    if module.section("__ksymtab") and flags is None:
        yield "there is a list of exports for everybody"
    if flags is not None and (len(flags) != len(ours) or not all(flag & GPL_ONLY for flag in flags)):
        yield f"flags of exports: {flags.hex()} for {len(ours)} symbols"


def tests(results: Results, found: Kernel, modules: build.Modules) -> None:
    """What a kernel's modules have to have."""
    group = f"objects {found.line.name}"
    rust = {symbol.name for symbol in read(build.CORE).symbols if symbol.kind == FUNC}
    border = {name for name in rust if name.startswith("hmm_core_")}
    config = next(iter(sorted(found.tree.glob("usr/src/*/.config"))), None)
    options = config.read_text().splitlines() if config else []

    def has(*names: str) -> bool:
        """Whether the kernel is built with one of these; if not, that is said."""
        there = any(f"CONFIG_{name}=y" in options for name in names)
        if not there:
            results.skip(group, names[0], "the kernel is built without it")
        return there

    thunks = [(what, thunk, table) for what, thunk, table, options_ in (
        ("returns", "__x86_return_thunk", ".return_sites", ("MITIGATION_RETHUNK", "RETHUNK")),
        ("indirect branches", "__x86_indirect_thunk_", ".retpoline_sites", ("MITIGATION_RETPOLINE", "RETPOLINE"))) if has(*options_)]
    unwinds, tracks = has("UNWINDER_ORC"), has("X86_KERNEL_IBT")
    for path in modules.modules:
        if path.parent != modules.place:
            continue  # a client of the tests
        module = read(path)
        core = [symbol for symbol in module.symbols if symbol.kind == FUNC and symbol.name in rust]
        for what, thunk, table in thunks:
            _sites(results, group, module, core, what, thunk, table)
        bad = list(_exports(module, modules.place / "Module.symvers"))
        results.add(group, f"{path.name} exports nothing but for GPL modules", not bad, bad)
        if path.stem != "hmm_minimal":
            said = module.bytes[module.section(".modinfo")].split(b"\0")
            results.add(group, f"{path.name} names the version of Cargo.toml", f"version={install.version()}".encode() in said)
        if path.stem != "hmm_devmem":
            continue
        results.add(group, f"the Rust core is in {path.name} with all of its {len(rust)} functions",
                    {symbol.name for symbol in core} == rust and len(border) > 5, sorted(rust - {s.name for s in core}))
        if unwinds:
            tables = orc(module)
            bad = without_unwinding(module, core, tables)
            results.add(group, "stacks can be unwound from every function of the core and every call in it", not bad and bool(tables), bad)
            # The same with the core's own entries taken away.
            fewer = [(place, 0 if _inside(core, [place]) else register) for place, register in tables]
            results.add(group, "without them that would be seen", bool(without_unwinding(module, core, fewer)))
        if tracks:
            sealed = set(module.listed(".ibt_endbr_seal"))
            bad = [symbol.name for symbol in core if symbol.name in border and (
                module.bytes[symbol.place[0]][symbol.place[1]:symbol.place[1] + 4] != ENDBR or symbol.place not in sealed)]
            results.add(group, f"the core's {len(border)} entries begin with ENDBR, which the kernel may remove", not bad, bad)


def _sites(results: Results, group: str, module: Object, core: list[Symbol], what: str, thunk: str, table: str) -> None:
    """Every branch to a thunk is in the list from which the kernel patches it."""
    calls, listed = module.calls(thunk), module.listed(table)
    bad = unlisted(calls, listed)
    inside = _inside(core, calls)
    note = f", {len(inside)} of them in the core" if core else ""
    results.add(group, f"{module.path.name}: {len(calls)} {what}{note}, all in {table}",
                not bad and (not core or bool(inside) == (what == "returns")), bad or [f"{len(inside)} in the core"])
    if inside:
        section, where = inside[-1]
        fewer = [place for place in listed if place not in {(section, where - back) for back in (1, 2, 3)}]
        results.add(group, f"{module.path.name}: if one were missing there, that would be seen", bool(unlisted(calls, fewer)))
