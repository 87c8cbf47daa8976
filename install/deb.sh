#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Makes the Debian packages from the release archive and, with BINDIR, from the programs there:
#
#   deb.sh ARCHIVE.tar.xz OUTDIR [BINDIR]
#
# hmm-devmem-dkms: the modules' sources for DKMS, with the core's object, and hmm-doctor.
# hmm-devmem-dev:  the headers for other modules, and what finds the symbols.
# hmm-devmem-tools: hmm-run and the programs that show what happens; only with BINDIR.
# DEBEMAIL and DEBFULLNAME name the maintainer.
set -eu
LC_ALL=C
export LC_ALL

archive=$1 out=$2 bin=${3:-}
name=hmm-devmem
version=$(basename "$archive" .tar.xz)
version=${version#"$name"-}
who="${DEBFULLNAME:-The hmm-devmem authors} <${DEBEMAIL:-hmm-devmem@packages.debian.org}>"

command -v dpkg-deb >/dev/null || { echo "deb: dpkg-deb is missing; next: apt-get install dpkg" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
tar -xf "$archive" -C "$work"
src=$work/$name-$version
SOURCE_DATE_EPOCH=$(stat -c %Y "$src/Cargo.toml")
export SOURCE_DATE_EPOCH

# put MODE FILE TARGET: one file of the package in $root, with the version written in.
put() {
	mkdir -p "$(dirname "$root/$3")"
	sed "s/@VERSION@/$version/g" "$src/$2" >"$root/$3"
	chmod "$1" "$root/$3"
}

# documents: what every package has in its folder of documents.
documents() {
	doc=$root/usr/share/doc/$package
	mkdir -p "$doc"
	gzip -9n <"$src/README.md" >"$doc/README.md.gz"
	cat >"$doc/copyright" <<END
$name $version

Copyright: 2026 The hmm-devmem authors

License: GPL-2.0. On Debian systems the text of the GNU General Public License,
version 2, is in /usr/share/common-licenses/GPL-2.
END
	cat >"$work/changelog" <<END
$name ($version) unstable; urgency=medium

  * Version $version.

 -- $who  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
	gzip -9n <"$work/changelog" >"$doc/changelog.gz"
}

# control ARCHITECTURE DEPENDS RECOMMENDS SUMMARY, and the long text on standard input.
control() {
	mkdir -p "$root/DEBIAN"
	(cd "$root" && find . -type f ! -path './DEBIAN/*' | sed 's|^\./||' | sort | tr '\n' '\0' |
		xargs -0 md5sum) >"$root/DEBIAN/md5sums"
	size=$(du -sk --apparent-size "$root" | cut -f1)
	{
		printf '%s\n' "Package: $package" "Source: $name" "Version: $version" "Section: kernel" \
			"Priority: optional" "Architecture: $1" "Maintainer: $who" "Installed-Size: $size"
		[ -z "$2" ] || echo "Depends: $2"
		[ -z "$3" ] || echo "Recommends: $3"
		echo "Description: $4"
		sed 's/^$/./; s/^/ /'
	} >"$root/DEBIAN/control"
	find "$root" -type d -exec chmod 755 {} +
	find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	dpkg-deb --root-owner-group -Zxz --build "$root" "$out/${package}_${version}_$1.deb" >&2
}

mkdir -p "$out"

# --- the modules ------------------------------------------------------------
package=$name-dkms
root=$work/$package
usr_src=usr/src/$name-$version
mkdir -p "$root/$usr_src/install"
cp -R "$src/c" "$root/$usr_src/c"
rm -f "$root/$usr_src/c/PORTING.md"
cp "$src/Kbuild" "$src/dkms.conf" "$src/hmm_core.o_shipped" "$root/$usr_src/"
put 755 install/symvers.sh "$usr_src/install/symvers.sh"
put 755 install/for-kernel.sh usr/lib/hmm-devmem/for-kernel
put 755 install/doctor.sh usr/bin/hmm-doctor
# Before DKMS's own hook, which is called dkms: what it fails at, fails the kernel's installation.
put 755 install/hook.sh etc/kernel/postinst.d/00-hmm-devmem
put 755 install/hook.sh etc/kernel/header_postinst.d/00-hmm-devmem
put 755 install/postinst.sh DEBIAN/postinst
put 755 install/prerm.sh DEBIAN/prerm
printf '/%s\n' etc/kernel/postinst.d/00-hmm-devmem etc/kernel/header_postinst.d/00-hmm-devmem >"$root/DEBIAN/conffiles"
mkdir -p "$root/usr/share/lintian/overrides"
cat >"$root/usr/share/lintian/overrides/$package" <<END
# An input of the modules' link: objtool and stack traces need its symbols.
$package: unstripped-binary-or-object [usr/src/$name-$version/hmm_core.o_shipped]
END
documents
control amd64 "dkms (>= 3.0), gcc, make" "linux-headers-amd64 | linux-headers, openssl, mokutil" \
	"device memory for Linux drivers (kernel modules)" <<'END'
hmm_devmem lets a driver add its device's memory to the memory management of
the system, as hmm_devmem_add() of Linux 4.19 did, on the kernels of today: any
page that a program got from malloc can live in the memory of the device, comes
back when the CPU touches it, and is never lost.

DKMS builds the modules for every installed kernel. No Rust compiler is needed.
hmm-doctor shows what of it works on this machine, and why not the rest.
END

# --- the headers ------------------------------------------------------------
package=$name-dev
root=$work/$package
include=usr/include/$name
for header in hmm_devmem.h hmm_plain.h hmm_mirror.h migrate_vma.h core.h linux/hmm.h linux/migrate.h linux/mm.h; do
	put 644 "c/$header" "$include/$header"
done
put 644 install/hmm.mk "$include/hmm.mk"
put 644 install/hmm-devmem.pc usr/share/pkgconfig/hmm-devmem.pc
put 644 c/examples/minimal.c "usr/share/doc/$package/examples/minimal.c"
documents
gzip -9n <"$src/c/PORTING.md" >"$root/usr/share/doc/$package/PORTING.md.gz"
control all "" "hmm-devmem-dkms, linux-headers-amd64 | linux-headers" \
	"device memory for Linux drivers (headers)" <<'END'
The headers for modules that use hmm_devmem: today's interface, hmm_devmem.h,
and that of Linux 4.14 to 5.2, linux/hmm.h.

One line in a Kbuild, "include /usr/include/hmm-devmem/hmm.mk", sets the flags
and finds the symbols of the installed module; pkg-config knows them too.
END

[ -n "$bin" ] || exit 0

# --- the programs -----------------------------------------------------------
package=$name-tools
root=$work/$package
tools="hmm-run hmmtop hmm-map hmm-record hmm-replay"

# manual PROGRAM: its --help as a page of the manual.
manual() {
	COLUMNS=78 "$root/usr/bin/$1" --help >"$work/help"
	{
		printf '.TH %s 1 "" "%s %s"\n.SH NAME\n%s \\- ' "$(echo "$1" | tr a-z A-Z)" "$name" "$version" "$1"
		COLUMNS=999 "$root/usr/bin/$1" --help | sed -n '1{s/\.$//;p}'
		printf '.SH DESCRIPTION\n.nf\n'
		sed "1,/^\$/d; s/[\\]/\\\\/g; s/-/\\\\-/g; s/^[.']/\\\\\&&/" "$work/help"
	} | gzip -9n >"$root/usr/share/man/man1/$1.1.gz"
}

mkdir -p "$root/usr/bin" "$root/usr/lib/hmm" "$root/usr/share/man/man1"
for tool in $tools; do
	strip -o "$root/usr/bin/$tool" "$bin/$tool"
	chmod 755 "$root/usr/bin/$tool"
	manual "$tool"
done
strip --strip-unneeded -o "$root/usr/lib/hmm/libhmm_run.so" "$bin/libhmm_run.so"
chmod 644 "$root/usr/lib/hmm/libhmm_run.so"
glibc=$(objdump -T "$root"/usr/bin/* "$root"/usr/lib/hmm/* | sed -n 's/.*[( ]GLIBC_\([0-9.]*\).*/\1/p' | sort -Vu | tail -n 1)
documents
control amd64 "libc6 (>= $glibc), libgcc-s1" "hmm-devmem-dkms" \
	"device memory for Linux drivers (programs)" <<'END'
hmm-run runs a program with its memory on a device. hmmtop shows devices and
who moves what, hmm-map where the memory of a process is; hmm-record writes
down what happens, and hmm-replay draws it and tries other policies on it.
END
