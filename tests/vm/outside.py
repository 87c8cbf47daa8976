# SPDX-License-Identifier: GPL-2.0
"""The world outside a test machine, for the tests inside: the files behind its devices, and QEMU's monitor.

A test writes a line to the third serial port and reads one back:

    find FILE WORD      how many 4096-byte pages of the file hold this 64-bit word (hexadecimal), at a multiple of 8
    used FILE           how many pages are not all zeroes
    flip FILE WORD      change the lowest bit of the first such word; answers the number of its page
    monitor COMMAND     QEMU's answer, in one line; {FILE} in the command is the path of one
    wake                the machine will suspend now: wake it as soon as it sleeps. A clock's alarm that rings before is lost

The answer is `ok ...` or `error ...`. The files are those that the kernel in the machine has as its video memory, so what
is seen here is what really is there.
"""

from __future__ import annotations

import mmap
import socket
import tempfile
import threading
import time
from pathlib import Path

from kernel import Machine

PAGE = 4096


class Outside:
    """What one run of a machine has outside: its files, two sockets, and a thread that answers."""

    def __init__(self, place: Path, machine: Machine) -> None:
        self.machine = machine
        self.files: dict[str, Path] = {}
        for entry in machine.files:
            name, _, size = entry.partition("=")
            self.files[name] = place / f"{name}.mem"
            with open(self.files[name], "wb") as file:
                file.truncate(int(size) << 20)
        # The path of a socket has 108 bytes at most, and that of a run may have more.
        self._sockets = tempfile.TemporaryDirectory(prefix="hmm-vm-")
        self._talk, self._monitor = Path(self._sockets.name, "outside"), Path(self._sockets.name, "monitor")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def words(self) -> list[str]:
        """What QEMU is told."""
        if not self.machine.files:
            return []
        words = ["-serial", f"unix:{self._talk},server=on,wait=off",
                 "-monitor", f"unix:{self._monitor},server=on,wait=off"]
        for word in self.machine.qemu:
            words.append(self._with_paths(word))
        return words

    def _with_paths(self, text: str) -> str:
        for name, path in self.files.items():
            text = text.replace("{" + name + "}", str(path))
        return text

    def start(self) -> None:
        """Answer until stop()."""
        if self.machine.files:
            self._thread = threading.Thread(target=self._serve, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """The machine is gone, and its files go with it."""
        self._stop.set()
        if self._thread:
            self._thread.join(5)
        for path in self.files.values():
            path.unlink(missing_ok=True)
        self._sockets.cleanup()

    def _connect(self, path: Path) -> socket.socket | None:
        while not self._stop.is_set():
            link = socket.socket(socket.AF_UNIX)
            try:
                link.connect(str(path))
                link.settimeout(0.2)
                return link
            except OSError:
                link.close()
                time.sleep(0.1)
        return None

    def _serve(self) -> None:
        link = self._connect(self._talk)
        if link is None:
            return
        with link:
            rest = b""
            while not self._stop.is_set():
                try:
                    data = link.recv(4096)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    answer = self.answer(line.decode(errors="replace").strip())
                    link.sendall((answer + "\n").encode())

    def answer(self, request: str) -> str:
        """One request, one line."""
        verb, _, rest = request.partition(" ")
        try:
            if verb == "wake":
                threading.Thread(target=self._wake, daemon=True).start()
                return "ok"
            if verb == "monitor":
                return f"ok {self._ask_monitor(self._with_paths(rest))}"
            name, _, word = rest.partition(" ")
            with open(self.files[name], "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
                if verb == "find":
                    return f"ok {len(pages_with(memory, word))}"
                if verb == "used":
                    zero = bytes(PAGE)
                    return f"ok {sum(memory[at:at + PAGE] != zero for at in range(0, len(memory), PAGE))}"
                if verb == "flip":
                    at = min(pages_with(memory, word).values())
                    memory[at] ^= 1
                    return f"ok {at // PAGE}"
            return f"error no such request: {request}"
        except (KeyError, ValueError, OSError) as error:
            return f"error {request}: {error!r}"

    def _wake(self) -> None:
        end = time.monotonic() + 60
        while not self._stop.wait(0.5) and time.monotonic() < end:
            if "suspended" in self._ask_monitor("info status"):
                # For those who sleep deeply.
                self._stop.wait(0.5)
                self._ask_monitor("system_wakeup")
                return

    def _ask_monitor(self, command: str) -> str:
        link = self._connect(self._monitor)
        if link is None:
            return ""
        with link:
            _until_prompt(link)
            link.sendall(command.encode() + b"\n")
            return " ".join(_until_prompt(link).split())


def pages_with(memory: mmap.mmap, word: str) -> dict[int, int]:
    """The pages that hold a 64-bit word, given in hexadecimal, and where in the file its first place there is."""
    wanted = int(word, 16).to_bytes(8, "little")
    found: dict[int, int] = {}
    at = memory.find(wanted)
    while at >= 0:
        if at % 8 == 0:
            found.setdefault(at // PAGE, at)
        # One place in a page is enough.
        at = memory.find(wanted, at + 1 if at % 8 else (at // PAGE + 1) * PAGE)
    return found


def _until_prompt(link: socket.socket) -> str:
    text = b""
    end = time.monotonic() + 5
    while not text.rstrip().endswith(b"(qemu)") and time.monotonic() < end:
        try:
            data = link.recv(4096)
        except TimeoutError:
            continue
        if not data:
            break
        text += data
    return text.decode(errors="replace").rsplit("(qemu)", 1)[0]
