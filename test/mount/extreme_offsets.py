"""What a file answers at offsets and lengths where numbers end: one line of JSON for each call, with its result or the name of its error."""
import ctypes
import errno
import json
import os
import sys

libc = ctypes.CDLL(None, use_errno=True)
for name, types in {
    "fallocate": [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64],
    "lseek": [ctypes.c_int, ctypes.c_int64, ctypes.c_int],
    "ftruncate": [ctypes.c_int, ctypes.c_int64],
    "pread": [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64],
    "pwrite": [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64],
}.items():
    getattr(libc, name).argtypes = types
    getattr(libc, name).restype = ctypes.c_int if name in ("fallocate", "ftruncate") else ctypes.c_int64

SEEK_DATA, SEEK_HOLE = 3, 4
PUNCH, ZERO = 3, 17
HUGE = [2**52, 2**53 - 1, 2**53, 2**53 + 1, 2**60, 2**62, 2**63 - 4096, 2**63 - 1, -1, -4096, -(2**63)]


size = os.stat(sys.argv[1]).st_size


def call(name, *arguments):
    ctypes.set_errno(0)
    result = getattr(libc, name)(*arguments)
    numbers = [argument for argument in arguments if isinstance(argument, int)]
    shown = [f"size {number - size:+}" if abs(number - size) < 2 else number for number in numbers[1:]]
    answer = errno.errorcode[ctypes.get_errno()] if result < 0 else result
    print(json.dumps([name, shown, answer]))


def main(path):
    fd = os.open(path, os.O_RDWR)
    for offset in HUGE + [size, size + 1, size - 1]:
        call("lseek", fd, offset, SEEK_DATA)
        call("lseek", fd, offset, SEEK_HOLE)
    for offset in HUGE + [size]:
        call("pread", fd, ctypes.create_string_buffer(16), 16, offset)
    for offset in HUGE:
        call("pwrite", fd, b"x" * 16, 16, offset)
        call("ftruncate", fd, offset)
        for mode in [0, 1, PUNCH, ZERO]:
            call("fallocate", fd, mode, offset, 4096)
    for length in [0, -1, 2**53, 2**62, 2**63 - 1, -(2**63)]:
        for mode in [0, 1, PUNCH, ZERO]:
            call("fallocate", fd, mode, 0, length)
            call("fallocate", fd, mode, 4096, length)
    assert os.fstat(fd).st_size == size, "the size has changed"


main(sys.argv[1])
