"""Random steps on names that are any bytes, half of them through a mount and half behind it; after each both sides must be equal.

Arguments: mountpoint, folder behind it, seed, steps. Prints what differs, and ends with 1 then.
"""
import os
import random
import stat
import sys
import time

mount, behind, seed, steps = os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]), sys.argv[3], int(sys.argv[4])
rng = random.Random(seed)
ODD = [b'\xe9', b'\xc3', b'\xed\xa0\x80', b'\xed\xb3\xa9', b'\xef\xbf\xbd', b'\xc3\xa9', b'e\xcc\x81', b'\xf0\x9f\x98\x80',
       b'\xf4\x90\x80\x80', b'\xc0\xaf', b'\xff', b'\xfe', b'\n', b'\t', b'\r', b' ', b'\x1b[31m', b'\x7f', b':', b',', b'\\', b'"',
       b"'", b'#', b'%2f', b'\xe2\x80\xae', b'\xc2\x9b', b'.', b'-', b'*', b'\xef\xbb\xbf']


def name():
    kind = rng.randrange(4)
    if kind == 0:
        made = bytes(rng.choice([b for b in range(1, 256) if b != 0x2f]) for _ in range(rng.randint(1, 12)))
    elif kind == 1:
        made = b''.join(rng.choice(ODD) for _ in range(rng.randint(1, 5)))
    elif kind == 2:
        # Pairs that differ by one byte that is no UTF-8.
        made = b'caf' + bytes([rng.choice([0xe8, 0xe9, 0xff])])
    else:
        made = bytes(rng.choice([b for b in range(1, 256) if b != 0x2f]) for _ in range(rng.choice([200, 240])))
    return b'x' + made if made in (b'.', b'..') else made


def tree(root):
    """Every path with what lstat, reading and readlink say of it."""
    found = {}
    for folder, folders, files in os.walk(root):
        assert sorted(folders + files) == sorted(os.listdir(folder)), folder
        for entry in folders + files:
            path = os.path.join(folder, entry)
            st = os.lstat(path)
            what = os.readlink(path) if stat.S_ISLNK(st.st_mode) else b''
            if stat.S_ISREG(st.st_mode):
                with open(path, 'rb') as file:
                    what = file.read()
            found[os.path.relpath(path, root)] = (stat.S_IFMT(st.st_mode), what)
    return found


def some(kind=None):
    paths = [p for p, (mode, _) in tree(behind).items() if kind is None or mode == kind]
    return rng.choice(paths) if paths else None


def folder():
    found = some(stat.S_IFDIR)
    return found if found is not None and rng.randrange(3) and len(found) < 900 else b''


def step(root):
    op = rng.randrange(9)
    new = os.path.join(folder(), name())
    if op < 2:
        with open(os.path.join(root, new), 'wb') as file:
            file.write(new)
    elif op == 2:
        os.mkdir(os.path.join(root, new))
    elif op == 3:
        os.symlink(name(), os.path.join(root, new))
    elif op == 4 and some() is not None:
        os.rename(os.path.join(root, some()), os.path.join(root, new))
    elif op == 5 and some(stat.S_IFREG) is not None:
        os.unlink(os.path.join(root, some(stat.S_IFREG)))
    elif op == 6 and some(stat.S_IFREG) is not None:
        os.link(os.path.join(root, some(stat.S_IFREG)), os.path.join(root, new))
    elif op == 7 and some(stat.S_IFREG) is not None:
        with open(os.path.join(root, some(stat.S_IFREG)), 'r+b') as file:
            file.write(bytes([rng.randrange(256)]) * rng.randrange(9000))
    elif op == 8 and some(stat.S_IFDIR) is not None:
        os.rmdir(os.path.join(root, some(stat.S_IFDIR)))


def settled():
    """The kernel may believe a name for 100 ms when it was changed behind the mount."""
    deadline = time.monotonic() + 5
    while True:
        try:
            ours, theirs = tree(mount), tree(behind)
            if ours == theirs:
                return True
        except OSError:
            ours = theirs = {}
        if time.monotonic() > deadline:
            print('under the mount only:', sorted(set(ours.items()) - set(theirs.items())))
            print('behind it only:', sorted(set(theirs.items()) - set(ours.items())))
            return False
        time.sleep(0.02)


done = 0
for number in range(steps):
    through = rng.randrange(4) > 0
    try:
        step(mount if through else behind)
        done += 1
    except (FileExistsError, IsADirectoryError, NotADirectoryError, FileNotFoundError):
        pass
    except OSError as error:
        # Not empty, into itself, an ordinary file in the way: as on any file system. Anything else is wrong.
        if error.errno not in (39, 22, 36, 40, 16):
            print('step', number, 'through' if through else 'behind', repr(error))
            sys.exit(1)
    if not settled():
        print('after step', number)
        sys.exit(1)
print(done, 'steps,', len(tree(behind)), 'names left')
