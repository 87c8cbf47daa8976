# SPDX-License-Identifier: GPL-2.0
"""`make test-install`: what reaches other machines. The release archive, the packages, DKMS, signatures."""

from __future__ import annotations

import argparse
import difflib
import filecmp
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import build
import cache
import kernel
import root
import rules
from kernel import Kernel
from progress import Failure, Step
from results import Results

PLACE = cache.TARGET / "install"
# The kernels that the packages are installed for; the second one comes later, as an upgrade.
DISTRIBUTIONS = {"bookworm": ("6.1", "6.12"), "trixie": ("7.3", "7.2")}
GROUP = "install"
# Any date will do for what must not depend on the date.
EPOCH = "1750000000"
# What of ours is on a machine; DKMS keeps its own key and the version of its database.
LEFT = """find / -xdev \\( -path /deb -o -path /proc -o -path /tmp -o -path '/usr/src/linux-*' \\) -prune -o -name '*hmm*' -print
find /lib/modules/ -path '*/updates*'; ls /var/lib/dkms | grep -v '^mok\\|dbversion' || :"""


def version() -> str:
    """The version of this tree."""
    for line in (cache.TREE / "Cargo.toml").read_text().splitlines():
        if line.startswith("version = "):
            return line.split('"')[1]
    raise Failure("Cargo.toml names no version")


def fresh(name: str) -> Path:
    """An empty directory for one test."""
    place = PLACE / name
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    return place


def archive(results: Results) -> Path:
    """The release archive: two clones make the same bytes of it, and modules come from it without Rust. Returns it."""
    made = []
    with Step("release archive, made twice", "install-dist") as step:
        # The path, the dates of the files and the umask differ; the bytes must not.
        for number, name in enumerate(("one", "another-clone/of-the-same")):
            clone = fresh(name) / "hmm"
            for file in rules.files():
                (clone / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(cache.TREE / file, clone / file)
                os.utime(clone / file, (1_600_000_000 + number * 1_000_000,) * 2)
            step.run(["sh", "-c", f"umask 0{number * 5}2; exec make dist"], cwd=clone,
                     env={"SOURCE_DATE_EPOCH": EPOCH, "TZ": f"UTC{number}"}, hint="make dist")
            made.append(clone)
    name = f"hmm-devmem-{version()}.tar.xz"
    for what, path in (("core object", "target/core/hmm_core.o"), ("release archive", f"target/dist/{name}")):
        files = [clone / path for clone in made]
        results.add(GROUP, f"two clones make the same {what}, byte by byte", filecmp.cmp(*files, shallow=False),
                    [f"compare {files[0]} and {files[1]}"])
    _unpacked(results, made[0] / "target/dist" / name)
    return made[0] / "target/dist" / name


def _unpacked(results: Results, tarball: Path) -> None:
    """Build from an archive in a root that has no Rust, and make the archive again from itself."""
    found = kernel.fetch(kernel.line("6.1"))
    environment = root.get(found.line.root)
    place = fresh("unpacked")
    source = place / tarball.name.removesuffix(".tar.xz")
    with Step("modules from the archive, without Rust", "install-unpacked") as step:
        step.run(["tar", "-xf", tarball, "-C", place])
        bare = subprocess.run(root.command(environment, found.tree, place, ["sh", "-c", "command -v rustc cargo python3"]),
                              capture_output=True, text=True, check=False)
        results.add(GROUP, "the build root has neither Rust nor Python", not bare.stdout, [bare.stdout])
        step.run(root.command(environment, found.tree, place,
                              ["make", "-C", f"/build/{source.name}", f"KVER={found.release}"]),
                 shown=["make", f"KVER={found.release}"])
        assert step.log
        told = build.complaints(step.log.read_text(errors="replace"))
    results.add(GROUP, "the archive builds without a complaint", not told, told)
    modules = {path.name for path in source.rglob("*.ko")}
    results.add(GROUP, "it builds every module", modules >= {"hmm_devmem.ko", "hmm_dmirror.ko"}, sorted(modules))
    _signatures(results, found, environment, place, source)
    with Step("the archive of the archive", "install-again") as step:
        step.run(["make", "-C", source, "dist"], env={"SOURCE_DATE_EPOCH": EPOCH})
    results.add(GROUP, "an unpacked archive makes itself again",
                filecmp.cmp(tarball, source / "target/dist" / tarball.name, shallow=False))
    with Step("a newer source asks for Rust", "install-newer") as step:
        os.utime(source / "rust/lib.rs")
        try:
            step.run(root.command(environment, found.tree, place, ["make", "-C", f"/build/{source.name}", "core"]))
            told = ["the old object was taken although a source is newer"]
        except Failure:
            assert step.log
            text = step.log.read_text(errors="replace")
            told = [] if "no Rust compiler that can build kernel code" in text else text.splitlines()
    results.add(GROUP, "a changed core is not silently the old one", not told, told)


@dataclass
class Machine:
    """A machine of a user: a copy of a root, into which things are installed."""

    place: Path
    step: Step
    name: str

    def run(self, script: str, *, check: bool = True) -> tuple[int, str]:
        """Run a shell script in it; its exit code and what it said."""
        words = root.enter(self.place, [(PLACE / "deb", "deb")], ["sh", "-ec", script])
        done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        assert self.step.log
        with open(self.step.log, "a") as log:
            print(f"$ {script}\n{done.stdout}{done.stderr}(exit {done.returncode})", file=log)
        if check and done.returncode:
            raise Failure(f"{self.name}: {script} (exit {done.returncode})", self.step.log)
        return done.returncode, done.stdout + done.stderr

    def finds(self, pattern: str, *places: str) -> list[str]:
        """What lies there under such a name."""
        return sorted(str(path.relative_to(self.place)) for name in places for path in (self.place / name).rglob(pattern))


def packages(results: Results, tarball: Path) -> None:
    """The packages, on a Debian 12 and on a Debian 13 machine."""
    ours = _debs(tarball)
    _conf(results)
    for name in DISTRIBUTIONS:
        _distribution(results, name, ours)


def _conf(results: Results) -> None:
    """dkms.conf says twice what stands elsewhere; here it is compared."""
    text = (cache.TREE / "dkms.conf").read_text()
    results.add(GROUP, "dkms.conf has the version of Cargo.toml", f'PACKAGE_VERSION="{version()}"' in text)
    listed = set(re.findall(r'^BUILT_MODULE_NAME\[\d+\]="(\w+)"$', text, re.MULTILINE))
    made = set(re.findall(r"\b(hmm_\w+)\.o\b", " ".join(re.findall(r"^obj-m .*$", (cache.TREE / "Kbuild").read_text(), re.MULTILINE))))
    results.add(GROUP, "dkms.conf has every module but the example", listed == made - {"hmm_minimal"},
                [f"dkms.conf {sorted(listed)}, Kbuild {sorted(made)}"])


def _debs(tarball: Path) -> dict[str, Path]:
    """The packages of this version and of the next one, and throw-away kernels; by name."""
    place = fresh("deb")
    following = version() + "+next"
    with Step("packages", "install-deb") as step:
        step.run(["make", "user"], hint="make user")
        step.run(["sh", "install/deb.sh", tarball, place, "target/release"], hint="make deb")
        source = fresh("next") / f"hmm-devmem-{following}"
        step.run(["tar", "-xf", tarball, "-C", source.parent])
        (source.parent / tarball.name.removesuffix(".tar.xz")).rename(source)
        for file in ("Cargo.toml", "dkms.conf"):
            path = source / file
            path.write_text(path.read_text().replace(f'"{version()}"', f'"{following}"', 1))
        step.run(["make", "deb-modules"], cwd=source, env={"SOURCE_DATE_EPOCH": EPOCH})
        for deb in (source / "target/dist").glob("*.deb"):
            shutil.copy(deb, place)
        for what in ("image", "headers"):
            for release in ("new", "bare", "poor", "broken"):
                _kernel_package(step, place, what, release)
    return {path.name: path for path in place.glob("*.deb")}


def _kernel_package(step: Step, place: Path, what: str, release: str) -> None:
    """A package that, as those of Debian do, runs the hooks for a kernel when it is installed; the files are put there by the test."""
    folder = place / f"{what}-{release}"
    (folder / "DEBIAN").mkdir(parents=True)
    hooks = "/etc/kernel/postinst.d" if what == "image" else "/etc/kernel/header_postinst.d"
    (folder / "DEBIAN/control").write_text(f"Package: linux-{what}-{release}\nVersion: 1\nArchitecture: all\n"
                                           "Maintainer: nobody <nobody@debian.org>\nDescription: a kernel that comes\n")
    script = folder / "DEBIAN/postinst"
    script.write_text(f'#!/bin/sh\nset -e\nrun-parts --report --exit-on-error --arg="$(cat /deb/{release})" {hooks}\n')
    script.chmod(0o755)
    step.run(["dpkg-deb", "--root-owner-group", "--build", folder, place / f"linux-{what}-{release}.deb"])


def _distribution(results: Results, name: str, ours: dict[str, Path]) -> None:
    group = f"{GROUP} {name}"
    kernels = [kernel.fetch(kernel.line(line)) for line in DISTRIBUTIONS[name]]
    environment = root.get(f"install-{name}")
    place = PLACE / f"machine-{name}"
    with Step(f"packages on {name}", f"install-{name}") as step:
        step.run(["rm", "-rf", "--one-file-system", place])
        step.run(["cp", "-a", environment, place])
        machine = Machine(place, step, name)
        before = machine.run(LEFT)[1]
        for test in (_install, _clients, _upgrade_kernel, _odd_kernels, _upgrade, _purge):
            step.note = test.__name__.strip("_").replace("_", " ")
            test(results, group, machine, kernels)
        after = machine.run(LEFT)[1]
        results.add(group, "after purge nothing of ours is left", before == after,
                    [*difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="")])
        step.note = ", ".join(found.release for found in kernels)
        step.run(["rm", "-rf", "--one-file-system", place])


def _headers(machine: Machine, found: Kernel) -> None:
    """Put a kernel's headers where its packages put them."""
    for folder in ("usr/src", "usr/lib"):
        if (found.tree / folder).exists():
            machine.step.run(["cp", "-a", f"{found.tree / folder}/.", machine.place / folder])
    # Newer DKMS tells modprobe of new modules only where there are others: the kernel's own, which this stands for.
    other = machine.place / "usr/lib/modules" / found.release / "kernel" / "other.ko"
    other.parent.mkdir()
    shutil.copy(next((PLACE / "unpacked").rglob("hmm_minimal.ko")), other)
    machine.run(f"depmod {found.release}")


def _has(results: Results, group: str, machine: Machine, found: Kernel, number: str) -> None:
    """The modules of a version are built, signed and found for a kernel."""
    release = found.release
    status = machine.run("dkms status hmm-devmem")[1]
    good = [line for line in status.splitlines() if number in line and release in line and "installed" in line]
    results.add(group, f"DKMS has {number} installed for {release}", len(good) == 1, [status])
    order = machine.run(f"modprobe --dry-run --show-depends -S {release} hmm_dmirror", check=False)[1]
    results.add(group, f"modprobe finds hmm_devmem and hmm_dmirror for {release}",
                re.findall(r"updates/dkms/(hmm_\w+)\.ko", order) == ["hmm_devmem", "hmm_dmirror"], [order])
    file = next(iter(machine.finds("hmm_devmem.ko*", f"usr/lib/modules/{release}/updates")), "missing")
    told = machine.run(f"modinfo -F signer /{file}; modinfo -F vermagic /{file}; modinfo -F license /{file}", check=False)[1].splitlines()
    results.add(group, f"for {release} it is signed with DKMS's key, and is for that kernel",
                len(told) == 3 and "DKMS module signing key" in told[0] and told[1].startswith(f"{release} "), told)
    symbols = machine.run(f'cat "$(pkg-config --define-variable=kver={release} --variable=symvers hmm-devmem)"', check=False)[1]
    results.add(group, f"pkg-config finds the symbols for {release}", "\thmm_devmem_add\t" in symbols, symbols.splitlines()[:5])


def _install(results: Results, group: str, machine: Machine, kernels: list[Kernel]) -> None:
    _headers(machine, kernels[0])
    code, text = machine.run(f"dpkg -i /deb/hmm-devmem-dkms_{version()}_amd64.deb /deb/hmm-devmem-dev_{version()}_all.deb", check=False)
    results.add(group, "the packages install", code == 0, text.splitlines())
    _has(results, group, machine, kernels[0], version())
    tools = f"/deb/hmm-devmem-tools_{version()}_amd64.deb"
    machine.run(f"dpkg -i {tools}")
    for tool in ("hmm-run", "hmmtop", "hmm-map", "hmm-record", "hmm-replay"):
        code, text = machine.run(f"{tool} --version && {tool} --help && dpkg-deb --fsys-tarfile {tools} |"
                                 f" tar -xO ./usr/share/man/man1/{tool}.1.gz | zcat", check=False)
        good = text.startswith(f"{tool} {version()}\n") and "Usage:" in text and f"\n{tool} \\- " in text
        results.add(group, f"{tool} of its package runs, and has a page of the manual", code == 0 and good, text.splitlines()[:20])
    code, text = machine.run("hmmtop --once", check=False)
    results.add(group, "without the module hmmtop says what to do", code == 1 and "next: modprobe hmm_devmem" in text, [text])
    if machine.name == "trixie":
        code, text = machine.run(f"lintian --allow-root --fail-on error /deb/hmm-devmem-*_{version()}_*.deb", check=False)
        results.add(group, "lintian finds no error", code == 0, text.splitlines())


def _clients(results: Results, group: str, machine: Machine, kernels: list[Kernel]) -> None:
    """Modules of others are built against the installed headers, with the lines of the documentation."""
    release = kernels[0].release
    recipe = re.search(r"^ {4}(HMM_API := 419)\n {4}(include /usr/include/hmm-devmem/hmm\.mk)$",
                       (cache.TREE / "c/PORTING.md").read_text(), re.MULTILINE)
    assert recipe, "c/PORTING.md has no recipe"
    example = [line for line in machine.run("cat /usr/include/hmm-devmem/hmm.mk")[1].splitlines() if line.startswith("#\tinclude ")]
    for name, lines, files in (
            ("hmm_probe419", list(recipe.groups()), ["probe/hmm_probe419.c", "probe/probe.c", "probe/probe.h"]),
            ("minimal", [line.removeprefix("#\t") for line in example], ["../../c/examples/minimal.c"])):
        place = machine.place / "tmp" / name
        place.mkdir()
        for file in files:
            shutil.copy(build.CLIENTS / file, place)
        (place / "Kbuild").write_text("\n".join([*lines, f"obj-m := {name}.o"]) + "\n")
        code, text = machine.run(f"make -C /lib/modules/{release}/build M=/tmp/{name} W=1 modules", check=False)
        told = build.complaints(text)
        results.add(group, f"{name} builds against the installed headers, with the {len(lines)} lines that the documentation gives",
                    code == 0 and not told, told or text.splitlines())
    keep = fresh(f"modules-{machine.name}")
    for name in machine.finds("*.ko*", "tmp", f"usr/lib/modules/{release}/updates"):
        shutil.copy(machine.place / name, keep)
    (keep / "Module.symvers").write_text(machine.run(f"cat /var/lib/dkms/hmm-devmem/kernel-{release}-x86_64/module/Module.symvers")[1])
    for packed in keep.glob("*.ko.xz"):
        machine.step.run(["xz", "-d", packed])


def _upgrade_kernel(results: Results, group: str, machine: Machine, kernels: list[Kernel]) -> None:
    """A newer kernel comes, and goes."""
    for found in kernels[1:]:
        _headers(machine, found)
        (PLACE / "deb" / "new").write_text(found.release)
        code, text = machine.run("dpkg -i /deb/linux-image-new.deb /deb/linux-headers-new.deb", check=False)
        results.add(group, "a newer kernel installs", code == 0, text.splitlines())
        _has(results, group, machine, found, version())
        code, text = machine.run(f"run-parts --arg={found.release} /etc/kernel/prerm.d", check=False)
        left = machine.finds("hmm*", f"usr/lib/modules/{found.release}")
        results.add(group, "its modules go with it", code == 0 and not left, [*text.splitlines(), *left])


def _odd_kernels(results: Results, group: str, machine: Machine, kernels: list[Kernel]) -> None:
    """Kernels that we cannot be built for do not fail to install because of us, and we say what is the matter."""
    good = machine.place / "usr/src" / f"linux-headers-{kernels[0].release}"
    for name, words in (("bare", "no headers of"), ("poor", "built without what it takes"), ("broken", "could not be built for")):
        release = f"9.9.9-{name}"
        (PLACE / "deb" / name).write_text(release)
        modules = machine.place / "usr/lib/modules" / release
        modules.mkdir()
        if name != "bare":
            headers = good.with_name(f"linux-headers-{release}")
            machine.step.run(["cp", "-a", good, headers])
            (modules / "build").symlink_to(f"../../../src/{headers.name}")
            if name == "broken":
                (headers / "Makefile").write_text("$(error broken on purpose)\n")
            for config in (headers / ".config", headers / "include/config/auto.conf"):
                if name == "poor" and config.exists():
                    config.write_text(re.sub(r"^CONFIG_HMM_MIRROR=y\n", "", config.read_text(), flags=re.MULTILINE))
        code, text = machine.run(f"dpkg -i /deb/linux-image-{name}.deb /deb/linux-headers-{name}.deb; dpkg --audit", check=False)
        results.add(group, f"a kernel installs for which we cannot be built ({name})", code == 0, text.splitlines())
        results.add(group, f"and it is said why ({name})", words in text, text.splitlines())
        results.add(group, f"and nothing is installed for it ({name})", not machine.finds("hmm*", f"usr/lib/modules/{release}"))
    # The same without our hooks: what they are there for.
    code, text = machine.run("chmod -x /usr/lib/hmm-devmem/for-kernel; dpkg -i /deb/linux-headers-broken.deb", check=False)
    machine.run("chmod +x /usr/lib/hmm-devmem/for-kernel; dpkg --configure -a")
    results.add(group, "without our hooks DKMS would have failed it", code != 0, text.splitlines())


def _upgrade(results: Results, group: str, machine: Machine, kernels: list[Kernel]) -> None:
    """A newer version of the packages, with kernels around that it cannot be built for."""
    code, text = machine.run(f"dpkg -i /deb/hmm-devmem-dkms_{version()}+next_amd64.deb /deb/hmm-devmem-dev_{version()}+next_all.deb",
                             check=False)
    results.add(group, "the packages are upgraded", code == 0, text.splitlines())
    _has(results, group, machine, kernels[0], f"{version()}+next")
    old = machine.run("dkms status hmm-devmem; ls /usr/src")[1].replace(f"{version()}+next", "next")
    results.add(group, "of the old version nothing is left", version() not in old, old.splitlines())


def _purge(results: Results, group: str, machine: Machine, kernels: list[Kernel]) -> None:
    code, text = machine.run("dpkg --purge hmm-devmem-dkms hmm-devmem-dev hmm-devmem-tools; rm -r /tmp/*", check=False)
    results.add(group, "the packages are removed", code == 0, text.splitlines())


def _signatures(results: Results, found: Kernel, environment: Path, place: Path, source: Path) -> None:
    """`make sign` with a key, then with another; the signature is read back and checked."""
    module = next(source.rglob("hmm_devmem.ko"))
    bare = module.stat().st_size
    with Step("signatures", "install-sign") as step:
        for name in ("one", "two"):
            step.run(["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN=key {name}",
                      "-keyout", place / f"{name}.key", "-outform", "DER", "-out", place / f"{name}.der"])
        for name in ("one", "two"):
            step.run(root.command(environment, found.tree, place, [
                "make", "-C", f"/build/{source.name}", "sign", f"KVER={found.release}", f"KEY=/build/{name}.key", f"CERT=/build/{name}.der"]))
            signer = subprocess.run(["modinfo", "-F", "signer", module], capture_output=True, text=True, check=False).stdout.strip()
            results.add(GROUP, f"signed with key {name}, modinfo reads its name", signer == f"key {name}", [signer])
        data = module.read_bytes()
        magic = b"~Module signature appended~\n"
        length = int.from_bytes(data[-len(magic) - 4:-len(magic)], "big")
        end = len(data) - len(magic) - 12 - length
        results.add(GROUP, "the second signature replaced the first", data.endswith(magic) and end == bare, [f"{end}, was {bare}"])
        (place / "content").write_bytes(data[:end])
        (place / "signature").write_bytes(data[end:end + length])
        verdicts = [subprocess.run(
            ["openssl", "cms", "-verify", "-inform", "DER", "-in", place / "signature", "-content", place / "content", "-binary",
             "-noverify", "-certfile", place / f"{name}.der", "-out", "/dev/null"], capture_output=True, check=False).returncode
            for name in ("two", "one")]
        results.add(GROUP, "the signature is over the module, by that key and no other", verdicts[0] == 0 and verdicts[1] != 0)
        told = subprocess.run(["make", "-C", source, "-f", "install/install.mk", "sign-key"], capture_output=True, text=True, check=False)
        results.add(GROUP, "without a key it says how to make one", told.returncode != 0 and "openssl req" in told.stderr, [told.stderr])


def everything(results: Results) -> None:
    """All of them, in the order in which one needs the other."""
    packages(results, archive(results))


def main() -> int:
    """Parse the command line."""
    import loading  # which builds upon this module

    argparse.ArgumentParser(description=__doc__).parse_args()
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        os.environ.pop(name, None)
    os.chdir(cache.TREE)
    results = Results()
    try:
        everything(results)
        loading.tests(results)
    except Failure as failure:
        failure.show()
        results.add("machinery", failure.what, False)
    return results.close()


if __name__ == "__main__":
    sys.exit(main())
