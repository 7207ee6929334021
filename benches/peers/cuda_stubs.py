"""Lets the PyPI wheel of torch, installed without its gigabytes of CUDA, be imported where there is no CUDA.

The wheel's libraries name CUDA's as needed, so the loader refuses them before anything runs. This puts an empty
library of each such name beside them, in torch/lib, where they look first. Every function in it answers 100,
which is cudaErrorNoDevice: torch then finds no device and says so, as on any machine without one.

    python cuda_stubs.py SITE_PACKAGES
"""

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

CUDA = re.compile(r"lib(cu|nv|nccl)")
# Undefined symbols without a version that can only be CUDA's; any library may hold them, for all are loaded.
CUDA_SYMBOL = re.compile(r"(__)?(cu|nv|nccl)[A-Za-z_]*[A-Z]")


def needed(library: Path) -> set[str]:
    """The CUDA libraries that this one names."""
    return {name for name in re.findall(r"\(NEEDED\).*\[(.+)\]", readelf("-dW", library)) if CUDA.match(name)}


def versions(library: Path) -> dict[str, str]:
    """Symbol version -> the library it is expected of."""
    found, owner = {}, ""
    for line in readelf("-VW", library).splitlines():
        if match := re.search(r"File: (\S+)", line):
            owner = match[1]
        elif (match := re.search(r"Name: (\S+)\s+Flags", line)) and CUDA.match(owner):
            found[match[1]] = owner
    return found


def undefined(library: Path) -> set[tuple[str, str]]:
    """(symbol, version or "") of everything that must come from elsewhere."""
    symbols = set()
    for line in readelf("--dyn-syms", "-W", library).splitlines():
        columns = line.split()
        if len(columns) >= 8 and columns[6] == "UND":
            name, _, version = columns[7].partition("@")
            symbols.add((name, version.lstrip("@")))
    return symbols


def readelf(option: str, *rest) -> str:
    return subprocess.run(["readelf", option, *rest], check=True, capture_output=True, text=True).stdout


def collect(folder: Path) -> dict[str, dict[str, set[str]]]:
    """Library -> version -> symbols, over all of torch's libraries."""
    wanted: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    loose: set[str] = set()
    for library in sorted(folder.glob("*.so*")):
        if CUDA.match(library.name):
            continue
        for name in needed(library):
            wanted[name]  # an entry, even if nothing of it is asked for by version
        owners = versions(library)
        for symbol, version in undefined(library):
            if version in owners:
                wanted[owners[version]][version].add(symbol)
            elif not version and CUDA_SYMBOL.match(symbol):
                loose.add(symbol)
    if wanted and loose:
        wanted[min(wanted)][""] |= loose
    return wanted


def build(folder: Path, name: str, by_version: dict[str, set[str]]) -> None:
    functions = {symbol for symbols in by_version.values() for symbol in symbols}
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch, "stub.c"), Path(scratch, "stub.map")
        source.write_text("".join(f"long {symbol}(void) {{ return 100; }}\n" for symbol in sorted(functions)))
        versioned = {version: symbols for version, symbols in by_version.items() if version}
        script.write_text(
            "".join(f"{name} {{ global: {'; '.join(sorted(symbols))}; }};\n" for name, symbols in versioned.items())
        )
        link = [f"-Wl,--version-script={script}"] if versioned else []
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{name}", *link]
            + ["-o", folder / name, source],
            check=True,
        )


def main() -> None:
    folder = Path(sys.argv[1]) / "torch" / "lib"
    if not folder.is_dir():
        sys.exit(f"{folder}: no such folder; install torch first")
    for name, by_version in collect(folder).items():
        if not (folder / name).exists():
            build(folder, name, by_version)


if __name__ == "__main__":
    main()
