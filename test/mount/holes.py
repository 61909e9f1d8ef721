"""Walks the holes of a file as the system tells them: they are whole pages, agree from wherever they are asked, and read as zeros."""
import errno
import json
import os
import random
import sys

PAGE = 4096


def seek(fd, offset, whence):
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        assert error.errno == errno.ENXIO, error
        return None


def main(path, seed):
    """Returns how many bytes are in holes."""
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    holes, at = [], 0
    while at < size:
        data = seek(fd, at, os.SEEK_DATA)
        data = size if data is None else data
        if data > at:
            holes.append((at, data))
        at = size if data == size else seek(fd, data, os.SEEK_HOLE)
    for start, end in holes:
        assert start % PAGE == 0 and (end % PAGE == 0 or end == size), (start, end)
        for part in range(start, end, 1 << 20):
            length = min(1 << 20, end - part)
            assert os.pread(fd, length, part) == bytes(length), ("no zeros", part)
    choice = random.Random(seed)
    for offset in [choice.randrange(size) for _ in range(200)] + [0, size - 1]:
        hole = next((hole for hole in holes if hole[0] <= offset < hole[1]), None)
        if hole is None:
            ends = [start for start, _ in holes if start > offset] + [size]
            assert seek(fd, offset, os.SEEK_DATA) == offset, offset
            assert seek(fd, offset, os.SEEK_HOLE) == ends[0], offset
        else:
            assert seek(fd, offset, os.SEEK_HOLE) == offset, offset
            assert seek(fd, offset, os.SEEK_DATA) == (None if hole[1] == size else hole[1]), offset
    assert seek(fd, size, os.SEEK_DATA) is None and seek(fd, size, os.SEEK_HOLE) is None
    return sum(end - start for start, end in holes)


print(json.dumps({os.path.basename(path): main(path, sys.argv[1]) for path in sys.argv[2:]}))
