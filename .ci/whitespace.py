"""Mend the named files where lines end in blanks or carriage returns, or the last one does not end; fails where it changed any."""

import sys
from pathlib import Path


def mended(content: bytes) -> bytes:
    """The content with every line, the last one too, ended by a bare line feed."""
    lines = [line.rstrip() for line in content.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"".join(line + b"\n" for line in lines)


changed = [path for path in map(Path, sys.argv[1:]) if mended(path.read_bytes()) != path.read_bytes()]
for path in changed:
    path.write_bytes(mended(path.read_bytes()))
    print(f"mended {path}")
sys.exit(bool(changed))
