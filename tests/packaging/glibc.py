"""Prints the newest version of glibc whose symbols a program needs. usage: glibc.py PROGRAM"""

import pathlib
import re
import sys

# The names of the versions stand in the program's string table, between zero bytes.
found = re.findall(rb"\0GLIBC_(\d+(?:\.\d+)+)(?=\0)", pathlib.Path(sys.argv[1]).read_bytes())
versions = sorted({tuple(map(int, version.split(b"."))) for version in found})
if not versions:
    sys.exit(f"{sys.argv[1]}: no versions of glibc were found")
print(".".join(map(str, versions[-1])))
