#!/usr/bin/env python3
"""A second reader of Veneer's image format, after native-notes/image-format.md. It shares no code with Veneer.

    independent_reader.py [KEY] IMAGE          prints SHA-256 and size of the disk as of that image
    independent_reader.py [KEY] IMAGE OUT      writes the disk there, sparse

KEY, of an encrypted chain, is --key-file FILE or --passphrase-file FILE.

Python's standard library, libzstd through ctypes for zstd records, and the package `cryptography` for AES-256-GCM, of encrypted chains alone.
Slow, and careful: every checksum that the page names is checked; with a key also every seal, every signature and all of the provenance.
Exit status: 0 read; 1 not sound, or not readable by this reader; 2 wrong usage.
"""

import ctypes
import ctypes.util
import hashlib
import hmac
import os
import struct
import sys

BLOCK = 4096  # superblock and commit
LEAF_ENTRIES = 512
PAGE_REFERENCES = 256
STATES_BYTES = LEAF_ENTRIES // 4
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


def hkdf_sha256(secret, salt, info):
    """RFC 5869, for the 32 bytes that one round gives."""
    extracted = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def open_gcm(key, sealed, bound):
    """Plain bytes of nonce (12), tag (16), ciphertext; None when the tag does not fit."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(sealed[:12], sealed[28:] + sealed[12:28], bound)
    except InvalidTag:
        return None


class Credential:
    def __init__(self, kind, path):
        with open(path, "rb") as file:
            self.secret = file.read()
        self.kind = kind  # 1 passphrase, 2 key file
        if kind == 1 and self.secret.endswith(b"\n"):
            self.secret = self.secret[:-1]

    def wrapping_key(self, slot):
        salt = slot[16:48]
        if self.kind == 2:
            return hkdf_sha256(self.secret, salt, b"veneer key file")
        r, p = struct.unpack_from("<II", slot, 4)
        return hashlib.scrypt(self.secret, salt=salt, n=1 << slot[1], r=r, p=p, maxmem=1 << 30, dklen=32)


class ChainKey:
    def __init__(self, chain_id, secret):
        self.chain_id = chain_id
        self.secret = secret

    def derive(self, use, context=b""):
        return hkdf_sha256(self.secret, self.chain_id, use + b"\0" + context)

    def check_commit(self, commit, what):
        signature = hmac.new(self.derive(b"veneer commit"), commit[:288], hashlib.sha256).digest()
        require(hmac.compare_digest(signature, commit[288:320]), what + ": signature of the commit")


class Source:
    """An image that blocks come from: superblock, commit and map, as its maker signed them."""

    def __init__(self, superblock, commit, map_bytes):
        self.superblock, self.commit, self.map_bytes = superblock, commit, map_bytes
        self.commit_hash = hashlib.sha256(commit).digest()
        self.image_id, self.parent_id = superblock[32:48], superblock[48:64]
        self.sequence = struct.unpack_from("<I", superblock, 64)[0]
        self.disk_size = struct.unpack_from("<Q", superblock, 80)[0]
        self.parent_commit_hash = commit[224:256]

    def check(self, key):
        what = "image %d of the chain" % self.sequence
        key.check_commit(self.commit, what)
        require(self.commit[192:224] == hashlib.sha256(self.superblock).digest(), what + ": superblock")
        require(self.commit[160:192] == hashlib.sha256(self.map_bytes).digest(), what + ": map")

    def states(self):
        """position -> state, of those that are not absent"""
        found, at = {}, 0
        while at < len(self.map_bytes):
            number, form = struct.unpack_from("<IB", self.map_bytes, at)
            at += 5
            require(form <= 4, "map: form")
            if form == 4:
                packed = self.map_bytes[at : at + STATES_BYTES]
                at += STATES_BYTES
            else:
                packed = bytes([form * 0b01010101]) * STATES_BYTES
            for index in range(LEAF_ENTRIES):
                state = packed[index // 4] >> (index % 4 * 2) & 3
                if state != ABSENT:
                    found[number * LEAF_ENTRIES + index] = state
        return found


class Image:
    def __init__(self, path):
        self.path = path
        require(not path.endswith(".veneer-part"), "unfinished")
        self.file = open(path, "rb")
        self.file_size = os.fstat(self.file.fileno()).st_size
        require(self.file_size >= 2 * BLOCK, "too short")
        first = self.at(0, BLOCK)
        last = self.at(self.file_size - BLOCK, BLOCK)
        self.commit_hash = hashlib.sha256(last).digest()

        require(first[:8] == b"VENEERIM", "superblock: magic")
        check_own_crc32c(first, "superblock")
        major, _, self.kind, _, _, seal = struct.unpack_from("<HHBBBB", first, 8)
        require(major in (1, 2), "superblock: version")
        require(seal in ((0,) if major == 1 else (0, 1)), "superblock: seal suite")
        require(self.kind != 3 or major == 2, "consolidated, in version 1")
        self.major, self.is_sealed = major, seal == 1
        self.data_offset = BLOCK * 3 if self.is_sealed else BLOCK
        self.key = None
        self.chain_id, self.image_id, self.parent_id = first[16:32], first[32:48], first[48:64]
        self.sequence, self.block_size = struct.unpack_from("<II", first, 64)
        (self.disk_size,) = struct.unpack_from("<Q", first, 80)
        self.visible_size = struct.unpack_from("<Q", first, 352)[0] if major == 2 else self.disk_size
        require(self.visible_size <= self.disk_size, "superblock: visible size")
        require(self.block_size in [1 << power for power in range(14, 21)], "superblock: block size")
        self.parent_name = first[96:352].split(b"\0")[0].decode("utf-8")

        require(last[:8] == b"VENEERCM", "commit: missing; truncated, or never finished")
        check_own_crc32c(last, "commit")
        require(struct.unpack_from("<H", last, 8)[0] == major, "commit: version")
        require(struct.unpack_from("<I", last, 12)[0] == self.sequence, "commit: sequence")
        require(last[16:32] == self.chain_id and last[32:48] == self.image_id, "commit: of another image")
        size, root_offset, root_length = struct.unpack_from("<QQQ", last, 48)
        require(size == self.file_size, "commit: file size")
        require(last[192:224] == hashlib.sha256(first).digest(), "superblock: hash in the commit")
        self.parent_commit_hash = last[224:256]
        self.lineage_hash = last[256:288] if self.kind == 3 else self.commit_hash
        self.has_parent = self.kind != 0 and not (self.kind == 3 and self.parent_id == bytes(16))
        self.first, self.last = first, last
        provenance_offset, provenance_length = struct.unpack_from("<QQ", last, 72)
        self.provenance = self.between(provenance_offset, provenance_length) if provenance_length else b""
        if provenance_length:
            require(last[160:192] == hashlib.sha256(self.provenance).digest(), "provenance: hash in the commit")

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
        require(self.data_offset <= offset and offset + length <= self.file_size - BLOCK, "an offset outside the image's data")
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

    def sources(self):
        """The images that its blocks come from, newest first."""
        if self.kind != 3:
            return [Source(self.first, self.last, self.provenance)]
        require(self.provenance[:4] == b"VPRV", "provenance: magic")
        (count,) = struct.unpack_from("<I", self.provenance, 4)
        at = 16 + 32 * count
        sources = []
        for index in range(count):
            image_id, sequence, length = struct.unpack_from("<16sI4xQ", self.provenance, 16 + 32 * index)
            end = at + 2 * BLOCK + length
            parts = self.provenance[at : at + BLOCK], self.provenance[at + BLOCK : at + 2 * BLOCK]
            source = Source(*parts, self.provenance[at + 2 * BLOCK : end])
            require(source.image_id == image_id and source.sequence == sequence, "provenance: table")
            sources.append(source)
            at = end
        require(at == len(self.provenance) and count > 0, "provenance: length")
        return sources

    def unlock(self, credential):
        """The chain key, from the sound key block of the higher generation."""
        blocks = []
        for offset in (BLOCK, 2 * BLOCK):
            block = self.at(offset, BLOCK)
            sound = block[:8] == b"VENEERKB" and block[16:32] == self.chain_id
            if sound and crc32c(block[:-4] + bytes(4)) == struct.unpack_from("<I", block, BLOCK - 4)[0]:
                blocks.append((struct.unpack_from("<Q", block, 8)[0], block))
        require(blocks, "no sound key block")
        block = max(blocks)[1]
        for at in range(256, 256 + 8 * 256, 256):
            slot = block[at : at + 256]
            if slot[0] == credential.kind:
                bound = b"veneer chain key\0" + self.chain_id
                secret = open_gcm(credential.wrapping_key(slot), slot[48:108], bound)
                if secret is not None:
                    return ChainKey(self.chain_id, secret)
        raise Unsound("the key opens none of its slots")

    def set_key(self, key):
        self.key = key
        self.block_keys = {
            source.sequence: key.derive(b"veneer block", source.image_id) for source in self.sources()
        }

    def unseal(self, position, entry, sealed):
        _, _, origin, _, _, codec, _ = entry
        require(self.key is not None, "is encrypted, and there is no key")
        require(origin in self.block_keys, "a record of an image that is none of the sources")
        bound = self.chain_id + struct.pack("<QIIB", position, origin, self.block_size, codec)
        plain = open_gcm(self.block_keys[origin], sealed, bound)
        require(plain is not None, "block %d: its seal does not hold" % position)
        return plain

    def block(self, position, entry):
        offset, length, origin, checksum, _, codec, flags = entry
        require(flags == (1 if self.is_sealed else 0), "sealed in a plain image, or not sealed in an encrypted one")
        require(length <= self.block_size + 28, "a record longer than any")
        record = self.between(offset, 32 + length)
        require(crc32c(record[4:]) == checksum, "record: checksum")
        header = struct.unpack_from("<I4sQIIBB", record)
        require(header == (checksum, b"VREC", position, length, origin, codec, flags), "record: header")
        stored = record[32:]
        return inflate(codec, self.unseal(position, entry, stored) if self.is_sealed else stored, self.block_size)


def open_chain(path, credential=None):
    """The image and its parents, newest first; proved, where there is a key."""
    images = [Image(path)]
    while images[-1].has_parent:
        child = images[-1]
        parent = find_parent(child, os.path.dirname(os.path.abspath(path)))
        require(parent.chain_id == child.chain_id, "parent: of another chain")
        require(parent.sequence < child.sequence, "parent: not older")
        require(parent.block_size == child.block_size, "parent: another block size")
        require(parent.lineage_hash == child.parent_commit_hash, "parent: other contents")
        require(parent.is_sealed == child.is_sealed, "parent: one is encrypted, the other is not")
        images.append(parent)
    if images[0].is_sealed and credential is not None:
        key = images[0].unlock(credential)
        for image in images:
            image.set_key(key)
        prove(images, key)
    return images


def prove(images, key):
    """Every image is one that the key's holder made, or holds what those that it was made from would."""
    line = []
    for image in images:
        sources = image.sources()
        for source in sources:
            source.check(key)
        line += sources
        newest, oldest = sources[0], sources[-1]
        for start, end in ((14, 15), (16, 48), (64, 96)):  # codec to times, but for kind and parent
            require(image.first[start:end] == newest.superblock[start:end], "superblock: not as signed")
        require(image.lineage_hash == newest.commit_hash, "stands for another commit")
        require(image.visible_size == min(source.disk_size for source in sources), "visible size: not as signed")
        parent = image.parent_id, image.parent_commit_hash
        require(parent == (oldest.parent_id, oldest.parent_commit_hash), "parent: not as signed")
        expected, visible = {}, newest.disk_size
        for source in sources:
            visible = min(visible, source.disk_size)
            for position, state in source.states().items():
                if position < -(-visible // image.block_size):
                    expected.setdefault(position, (state, source.sequence))
        found = {}
        for number, entries in image.leaves():
            for index, entry in enumerate(entries):
                if entry[4] != ABSENT:
                    found[number * LEAF_ENTRIES + index] = (entry[4], entry[2])
        for position in sorted(set(expected) | set(found)):
            state, origin = expected.get(position, (ABSENT, 0))
            got, got_origin = found.get(position, (ABSENT, 0))
            same = (got, got_origin) == (state, origin) if state == DATA else got == state
            dropped_zero = state in (ZERO, DISCARDED) and got == ABSENT and not image.has_parent
            require(same or dropped_zero, "block %d: is not the newest of the chain" % position)
    for child, parent in zip(line, line[1:]):
        require(child.parent_id == parent.image_id, "an image was left out")
        require(child.parent_commit_hash == parent.commit_hash, "an image was exchanged")
    require(line[-1].parent_id == bytes(16), "the oldest image was left out")


def find_parent(child, folder):
    for name in [child.parent_name] + sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if not os.path.isfile(path) or name.endswith(".veneer-part"):
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
        visible = min(visible, image.visible_size)
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
    credential = None
    if len(arguments) > 2 and arguments[0] in ("--key-file", "--passphrase-file"):
        credential = Credential(2 if arguments[0] == "--key-file" else 1, arguments[1])
        arguments = arguments[2:]
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        images = open_chain(arguments[0], credential)
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
