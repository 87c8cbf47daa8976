# SPDX-License-Identifier: GPL-2.0
"""The commands behind the Makefile."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import bench
import boot
import build
import cache
import check
import demo
import disk
import doctor
import kernel
import klog
import readme
import selftests
import suite
import tracing
from initramfs import Tree
from progress import Failure


def _run(arguments: argparse.Namespace) -> int:
    """Build the modules, boot one machine, run one command in it and show everything."""
    boot.must_exist()
    found = kernel.fetch(kernel.line(arguments.kernel))
    machine = kernel.machine(arguments.machine or found.line.machines(True)[0])
    modules = build.build(found, arguments.source)
    for line in modules.complaints:
        print(f"  ! {line}")
    tree = Tree(boot.place_for(found, "run") / "tree")
    tree.add_modules(modules.modules, machine)
    disk.equip(tree, found)
    doctor.equip(tree, found)
    usual = suite.needs(suite.programs("test") + suite.programs("demo")) if suite.LIST.exists() else []
    suite.equip(tree, [name for name in usual if "/" not in name or (cache.TREE / name).exists()])
    suite.equip(tree, [str(file) for file in arguments.file])
    load = "true" if arguments.no_load or arguments.source else "/modules/load"
    script = arguments.command or "dmesg | tail -n 30"
    if Path(script).is_file():
        tree.add(Path(script), "/run.sh", 0o755)
    else:
        (tree.place / "run.sh").write_text(f"{script}\n")
    jobs = [boot.Job("load", load, 60), boot.Job("run", "/usr/bin/sh /run.sh", arguments.timeout)]
    report = boot.boot(found, machine, tree, jobs, counting=arguments.icount,
                       on_line=lambda job, line: print(line, flush=True) if job else None)
    job = jobs[1]
    for line in klog.complaints(klog.since_start(report.log) or boot.console_tail(report, 400)):
        print(f"  kernel: {line}")
    if report.trouble:
        print("\n".join(f"  console: {line}" for line in boot.console_tail(report)))
        print(f"  trouble: {report.trouble}; whole console: {report.console}")
        return 1
    taint = klog.taint(report.tainted or 0)
    print(f"  up after {report.boot_seconds:.1f} s, ran {job.took:.1f} s, exit {job.code}"
          f"{', timed out' if job.timed_out else ''}{f', tainted {taint}' if taint else ''}; console: {report.console}")
    return job.code or 0


def _test(arguments: argparse.Namespace) -> int:
    """Run all tests, or those of the chosen kernels."""
    return check.everything(arguments.kernel, arguments.every)


def _matrix(arguments: argparse.Namespace) -> int:
    """Build for every kernel of the list, boot each in all its machines, and judge every row."""
    return check.grid([kernel.line(name).name for name in arguments.kernel], arguments.build_only)


def _demo(arguments: argparse.Namespace) -> int:
    """Show real programs on real kernels."""
    return demo.show(arguments.kernel)


def _hmm_tests(arguments: argparse.Namespace) -> int:
    """Run the kernel's own HMM selftests on our device."""
    return selftests.run(arguments.kernel, arguments.variant)


def _bench(arguments: argparse.Namespace) -> int:
    """Count instructions per page, beside the kernel's own test driver."""
    return bench.run(arguments.kernel)


def _trace(arguments: argparse.Namespace) -> int:
    """Count what tracepoints cost."""
    return tracing.run(arguments.kernel)


def _update(_arguments: argparse.Namespace) -> int:
    """Refresh the package lists and fetch kernels and build roots that became newer."""
    kernel.archive().refresh(force=True)
    code = _list(_arguments)
    with cache.locked():
        for place in cache.prune():
            print(f"  removed {place}: not used for {cache.KEEP_DAYS} days")
    return code


def _list(_arguments: argparse.Namespace) -> int:
    """Show the kernels of the list as they are today."""
    for line in kernel.lines():
        found = kernel.fetch(line)
        print(f"  {line.name:<12} {found.release:<28} {found.version:<24} {', '.join(line.machines(True))}")
    return 0


def main() -> int:
    """Parse the command line and run a command; a Failure is told in words, not with a traceback."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)

    run = commands.add_parser("run", help=_run.__doc__)
    run.add_argument("--kernel", default=kernel.lines()[0].name)
    run.add_argument("--machine", help="private or coherent; the first of the kernel's machines if not given")
    run.add_argument("--command", default=os.environ.get("HMM_RUN"), help="a shell command, or the path of a script")
    run.add_argument("--file", action="append", default=[], type=Path, help="a program of this machine to take along")
    run.add_argument("--timeout", type=int, default=120)
    run.add_argument("--icount", action="store_true", help="count instructions: one virtual ns is one instruction")
    run.add_argument("--no-load", action="store_true", help="do not load the modules first")
    run.add_argument("--source", type=Path, help="build this directory with a Kbuild in it instead of ours")
    run.set_defaults(call=_run)

    test = commands.add_parser("test", help=_test.__doc__)
    test.add_argument("--kernel", action="append", default=[], help="only this kernel of the list; may be repeated")
    test.add_argument("--every", action="store_true", help="in every machine of the list, also those that make test leaves out")
    test.set_defaults(call=_test)

    grid = commands.add_parser("matrix", help=_matrix.__doc__)
    grid.add_argument("--kernel", action="append", default=[], help="only this kernel of the list; may be repeated")
    grid.add_argument("--build-only", action="store_true", help="boot nothing")
    grid.set_defaults(call=_matrix)

    show = commands.add_parser("demo", help=_demo.__doc__)
    show.add_argument("--kernel", help="one kernel of the list; its first machine is shown")
    show.set_defaults(call=_demo)

    own = commands.add_parser("hmm-tests", help=_hmm_tests.__doc__)
    own.add_argument("--kernel", help="one kernel of the list")
    own.add_argument("--variant", help="private or coherent; all that the kernel has if not given")
    own.set_defaults(call=_hmm_tests)

    count = commands.add_parser("bench", help=_bench.__doc__)
    count.add_argument("--kernel", help="one kernel of the list")
    count.set_defaults(call=_bench)

    traced = commands.add_parser("bench-trace", help=_trace.__doc__)
    traced.add_argument("--kernel", help="one kernel of the list")
    traced.set_defaults(call=_trace)

    commands.add_parser("update", help=_update.__doc__).set_defaults(call=_update)
    commands.add_parser("readme", help=readme.renew.__doc__).set_defaults(call=lambda _: readme.renew())
    commands.add_parser("list", help=_list.__doc__).set_defaults(call=_list)

    arguments = parser.parse_args()
    # This is run by make, and runs make: what the outer one was told is not for the inner ones.
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        os.environ.pop(name, None)
    os.chdir(cache.TREE)
    try:
        return int(arguments.call(arguments))
    except Failure as failure:
        failure.show()
        return 1


if __name__ == "__main__":
    sys.exit(main())
