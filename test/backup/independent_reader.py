#!/usr/bin/env python3
"""A second reader of Veneer's image format, after native-notes/image-format.md. It shares no code with Veneer.

    independent_reader.py IMAGE          prints SHA-256 and size of the disk as of that image
    independent_reader.py IMAGE OUT      writes the disk there, sparse

Python's standard library, and libzstd through ctypes for zstd records. Slow, and careful: every checksum that the page names is checked.
Exit status: 0 read; 1 not sound, or not readable by this reader; 2 wrong usage.
"""

import ctypes
import ctypes.util
import hashlib
import os
import struct
import sys

BLOCK = 4096  # superblock and commit
LEAF_ENTRIES = 512
PAGE_REFERENCES = 256
ABSENT, DATA, ZERO, DISCARDED = 0, 1, 2, 3
NONE, ZSTD, LZ4 = 0, 1, 2


class Unsound(Exception):
    pass


def require(condition, what):
    if not condition:
        raise Unsound(what)


# CRC-32C, reflected polynomial 0x82F63B78, eight bytes at a time.
def _tables():
    first = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        first.append(byte)
    tables = [first]
    for _ in range(7):
        last = tables[-1]
        tables.append([(crc >> 8) ^ first[crc & 255] for crc in last])
    return tables


T0, T1, T2, T3, T4, T5, T6, T7 = _tables()


def crc32c(data):
    crc = 0xFFFFFFFF
    whole = len(data) // 8 * 8
    for low, high in struct.iter_unpack("<II", memoryview(data)[:whole]):
        low ^= crc
        crc = (
            T7[low & 255] ^ T6[low >> 8 & 255] ^ T5[low >> 16 & 255] ^ T4[low >> 24]
            ^ T3[high & 255] ^ T2[high >> 8 & 255] ^ T1[high >> 16 & 255] ^ T0[high >> 24]
        )
    for byte in data[whole:]:
        crc = (crc >> 8) ^ T0[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def check_own_crc32c(block, what):
    """The checksum in the last four bytes, of the block with those four bytes as zero."""
    require(crc32c(block[:-4] + bytes(4)) == struct.unpack_from("<I", block, BLOCK - 4)[0], what + ": checksum")


def inflate_zstd(stored, size):
    name = ctypes.util.find_library("zstd") or "libzstd.so.1"
    library = ctypes.CDLL(name)
    library.ZSTD_decompress.restype = ctypes.c_size_t
    library.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    target = ctypes.create_string_buffer(size)
    got = library.ZSTD_decompress(target, size, stored, len(stored))
    require(got == size, "a zstd frame inflates to another size")
    return target.raw


def inflate_lz4(stored, size):
    require(len(stored) >= 4 and struct.unpack_from("<I", stored)[0] == size, "lz4: the size in front is another")
    out = bytearray()
    at = 4

    def more(length):
        nonlocal at
        while length >= 15:
            byte = stored[at]
            at += 1
            length += byte
            if byte != 255:
                break
        return length

    while at < len(stored):
        token = stored[at]
        at += 1
        literals = more(token >> 4)
        out += stored[at : at + literals]
        at += literals
        if at >= len(stored):
            break  # the last sequence has no match
        distance = struct.unpack_from("<H", stored, at)[0]
        at += 2
        length = more(token & 15) + 4
        require(0 < distance <= len(out), "lz4: a match before the start")
        start = len(out) - distance
        for index in range(length):
            out.append(out[start + index])
        require(len(out) <= size, "lz4: inflates past the block size")
    require(len(out) == size, "lz4: inflates to another size")
    return bytes(out)


def inflate(codec, stored, size):
    if codec == NONE:
        require(len(stored) == size, "a raw record of another size")
        return stored
    if codec == ZSTD:
        return inflate_zstd(stored, size)
    require(codec == LZ4, "an unknown codec")
    return inflate_lz4(stored, size)


class Image:
    def __init__(self, path):
        self.path = path
        require(not path.endswith(".part"), "unfinished")
        self.file = open(path, "rb")
        self.file_size = os.fstat(self.file.fileno()).st_size
        require(self.file_size >= 2 * BLOCK, "too short")
        first = self.at(0, BLOCK)
        last = self.at(self.file_size - BLOCK, BLOCK)
        self.commit_hash = hashlib.sha256(last).digest()

        require(first[:8] == b"VENEERIM", "superblock: magic")
        check_own_crc32c(first, "superblock")
        major, _, self.kind, _, _, seal = struct.unpack_from("<HHBBBB", first, 8)
        require(major == 1, "superblock: version")
        require(seal == 0, "is sealed: this reader has no keys")
        self.chain_id, self.image_id, self.parent_id = first[16:32], first[32:48], first[48:64]
        self.sequence, self.block_size = struct.unpack_from("<II", first, 64)
        (self.disk_size,) = struct.unpack_from("<Q", first, 80)
        require(self.block_size in [1 << power for power in range(14, 21)], "superblock: block size")
        self.parent_name = first[96:352].split(b"\0")[0].decode("utf-8")

        require(last[:8] == b"VENEERCM", "commit: missing; truncated, or never finished")
        check_own_crc32c(last, "commit")
        require(struct.unpack_from("<H", last, 8)[0] == 1, "commit: version")
        require(struct.unpack_from("<I", last, 12)[0] == self.sequence, "commit: sequence")
        require(last[16:32] == self.chain_id and last[32:48] == self.image_id, "commit: of another image")
        size, root_offset, root_length = struct.unpack_from("<QQQ", last, 48)
        require(size == self.file_size, "commit: file size")
        require(last[192:224] == hashlib.sha256(first).digest(), "superblock: hash in the commit")
        self.parent_commit_hash = last[224:256]

        root = self.between(root_offset, root_length) if root_length else b""
        require(last[128:160] == hashlib.sha256(root).digest(), "root: hash in the commit")
        require(root_length % 16 == 0, "root: length")
        self.pages = {}
        for number, checksum, offset in struct.iter_unpack("<IIQ", root):
            require(number > max(self.pages, default=-1), "root: order")
            self.pages[number] = (offset, checksum)

    def at(self, offset, length):
        data = os.pread(self.file.fileno(), length, offset)
        require(len(data) == length, "ends early")
        return data

    def between(self, offset, length):
        """Bytes that must lie between superblock and commit."""
        require(BLOCK <= offset and offset + length <= self.file_size - BLOCK, "an offset outside the image's data")
        return self.at(offset, length)

    def leaves(self):
        """(leaf number, its 512 entries) for each leaf of the image, in order."""
        for page_number, (offset, checksum) in self.pages.items():
            page = self.between(offset, PAGE_REFERENCES * 16)
            require(crc32c(page) == checksum, "page: checksum")
            for index, (leaf_offset, leaf_checksum, _) in enumerate(struct.iter_unpack("<QII", page)):
                if leaf_offset == 0:
                    continue
                leaf = self.between(leaf_offset, LEAF_ENTRIES * 24)
                require(crc32c(leaf) == leaf_checksum, "leaf: checksum")
                yield page_number * PAGE_REFERENCES + index, list(struct.iter_unpack("<QIIIBBBx", leaf))

    def block(self, position, entry):
        offset, length, origin, checksum, _, codec, flags = entry
        require(flags == 0, "a sealed record")
        require(length <= self.block_size + 28, "a record longer than any")
        record = self.between(offset, 32 + length)
        require(crc32c(record[4:]) == checksum, "record: checksum")
        header = struct.unpack_from("<I4sQIIBB", record)
        require(header == (checksum, b"VREC", position, length, origin, codec, flags), "record: header")
        return inflate(codec, record[32:], self.block_size)


def open_chain(path):
    """The image and its parents, newest first."""
    images = [Image(path)]
    while images[-1].kind != 0:
        child = images[-1]
        parent = find_parent(child, os.path.dirname(os.path.abspath(path)))
        require(parent.chain_id == child.chain_id, "parent: of another chain")
        require(parent.sequence < child.sequence, "parent: not older")
        require(parent.block_size == child.block_size, "parent: another block size")
        require(parent.commit_hash == child.parent_commit_hash, "parent: other contents")
        images.append(parent)
    return images


def find_parent(child, folder):
    for name in [child.parent_name] + sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not os.path.isfile(path) or name.endswith(".part"):
            continue
        with open(path, "rb") as file:
            first = file.read(48)
        if first[:8] == b"VENEERIM" and first[32:48] == child.parent_id:
            return Image(path)
    raise Unsound("the parent is not in the folder")


def merge(images):
    """position -> (image, entry) for each block that is data; all others read as zeros."""
    decided = {}
    visible = images[0].disk_size
    for image in images:
        visible = min(visible, image.disk_size)
        block_count = -(-visible // image.block_size)
        for number, entries in image.leaves():
            for index, entry in enumerate(entries):
                position = number * LEAF_ENTRIES + index
                state = entry[4]
                require(state in (ABSENT, DATA, ZERO, DISCARDED), "an unknown state")
                if state != ABSENT and position < block_count:
                    decided.setdefault(position, (image, entry))
    return {position: found for position, found in decided.items() if found[1][4] == DATA}


def blocks(images):
    """(disk offset, bytes) for each block with data, in order; the last one may be cut by the disk's end."""
    size, block_size = images[0].disk_size, images[0].block_size
    for position, (image, entry) in sorted(merge(images).items(), key=lambda item: item[0]):
        offset = position * block_size
        yield offset, image.block(position, entry)[: size - offset]


def hash_disk(images):
    digest = hashlib.sha256()
    zeros = bytes(1 << 20)
    end = 0

    def zeros_to(offset):
        for at in range(end, offset, len(zeros)):
            digest.update(zeros[: offset - at])

    for offset, data in blocks(images):
        zeros_to(offset)
        digest.update(data)
        end = offset + len(data)
    zeros_to(images[0].disk_size)
    return digest.hexdigest()


def write_disk(images, path):
    with open(path, "wb") as out:
        for offset, data in blocks(images):
            out.seek(offset)
            out.write(data)
        out.truncate(images[0].disk_size)


def main(arguments):
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        images = open_chain(arguments[0])
        if len(arguments) == 1:
            print(hash_disk(images), images[0].disk_size)
        else:
            write_disk(images, arguments[1])
    except (Unsound, OSError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
