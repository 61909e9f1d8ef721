"""Prints the SHA-256 of ranges of a virtual disk as libvhdi reads it. Argument: {"files": [file, parent...], "ranges": [...]}."""
import hashlib
import json
import sys

import pyvhdi

request = json.loads(sys.argv[1])
opened = []
for name in request["files"]:
    disk = pyvhdi.file()
    disk.open(name)
    if opened:
        opened[-1].set_parent(disk)
    opened.append(disk)

for wanted in request["ranges"]:
    digest = hashlib.sha256()
    at, end = wanted["offset"], wanted["offset"] + wanted["length"]
    opened[0].seek_offset(at, 0)
    while at < end:
        piece = opened[0].read_buffer(min(end - at, 4 << 20))
        if not piece:
            sys.exit("the disk ends at byte %d" % at)
        digest.update(piece)
        at += len(piece)
    print(digest.hexdigest())
