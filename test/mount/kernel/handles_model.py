"""
Files of a mount by their handles (name_to_handle_at), as an NFS server has them: whatever is created, renamed, replaced and deleted under the
mount and behind it, and whatever the kernel forgets, a handle opens the file that it was taken of, or ESTALE. A file's contents say which it is.
Prints what it did as JSON; a wrong file ends it with status 1.
"""
import ctypes, errno, json, os, random, sys

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_HANDLE_BYTES = -100, 128


class Handle(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('data', ctypes.c_ubyte * AT_HANDLE_BYTES)]


def handle_of(path):
    handle = Handle(bytes=AT_HANDLE_BYTES)
    if libc.name_to_handle_at(AT_FDCWD, os.fsencode(path), ctypes.byref(handle), ctypes.byref(ctypes.c_int()), 0) != 0:
        raise OSError(ctypes.get_errno(), 'name_to_handle_at', path)
    return handle


def open_handle(mount, handle, flags=os.O_RDONLY):
    fd = libc.open_by_handle_at(mount, ctypes.byref(handle), flags)
    if fd < 0: raise OSError(ctypes.get_errno(), 'open_by_handle_at')
    return fd


def contents(mount, handle):
    """What the file holds; None for ESTALE."""
    try:
        fd = open_handle(mount, handle)
    except OSError as error:
        if error.errno == errno.ESTALE: return None
        raise
    try:
        return os.read(fd, 100).decode()
    finally:
        os.close(fd)


def forget_all():
    os.sync()
    with open('/proc/sys/vm/drop_caches', 'w') as file: file.write('2')


def save(handles, path):
    with open(path, 'w') as file: json.dump([[bytes(handle).hex(), token] for handle, token in handles], file)


def load(path):
    with open(path) as file: return [(Handle.from_buffer_copy(bytes.fromhex(text)), token) for text, token in json.load(file)]


def check(mount, handle, token, counts, what):
    found = contents(mount, handle)
    if found is None: counts['stale'] += 1
    elif found == token: counts['found'] += 1
    else: sys.exit(f'{what}: the handle of "{token}" opens "{found}"')


def model(under, behind, seed, steps, pressure):
    rng = random.Random(seed)
    mount = os.open(under, os.O_RDONLY)
    folders = ['', 'a', 'b', 'b/c']
    for name in folders[1:]: os.mkdir(os.path.join(under, name))
    files, handles, made = {}, [], 0
    counts = {'found': 0, 'stale': 0}

    def place(): return os.path.join(rng.choice(folders), f'file {rng.randrange(60)}')
    for step in range(steps):
        kind, side = rng.randrange(100), under if rng.randrange(3) else behind
        name = rng.choice(list(files)) if files and rng.randrange(4) else place()
        if kind < 20:
            # Made anew: its inode number may be one that a deleted file had.
            if name in files and rng.randrange(2): name = place()
            if name in files: os.unlink(os.path.join(side, name))
            made += 1
            with open(os.path.join(side, name), 'x') as file: file.write(f'file {made}')
            files[name] = f'file {made}'
        elif kind < 24 and name in files:
            os.unlink(os.path.join(side, name))
            del files[name]
        elif kind < 34 and name in files:
            to = place()
            os.rename(os.path.join(side, name), os.path.join(side, to))
            token = files.pop(name)
            files[to] = token
        elif kind < 54 and name in files:
            try:
                handle = handle_of(os.path.join(under, name))
                # A name may be believed for a moment after it was changed behind the mount: what counts is what it is a handle of.
                token = contents(mount, handle)
                if token is not None: handles.append((handle, token))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESTALE): raise
        elif kind < 57 and pressure == 'drop' and step % 5 == 0:
            forget_all()
        elif kind < 58 and pressure == 'crowd':
            for index in range(200): os.path.exists(os.path.join(under, 'many', str(rng.randrange(1000))))
        elif handles:
            check(mount, *rng.choice(handles if rng.randrange(3) == 0 else handles[-30:]), counts, f'step {step}')
    for handle, token in handles: check(mount, handle, token, counts, 'at the end')
    return counts


if __name__ == '__main__':
    command, *rest = sys.argv[1:]
    if command == 'model':
        print(json.dumps(model(rest[0], rest[1], rest[2], int(rest[3]), rest[4])))
    elif command == 'take':
        handles = []
        for name in rest[2:]:
            handle = handle_of(os.path.join(rest[0], name))
            with open(os.path.join(rest[0], name), 'rb') as file: handles.append((handle, file.read(100).decode()))
        save(handles, rest[1])
    elif command == 'forget':
        forget_all()
    elif command == 'check':
        mount = os.open(rest[0], os.O_RDONLY)
        counts = {'found': 0, 'stale': 0}
        for handle, token in load(rest[1]): check(mount, handle, token, counts, 'a kept handle')
        print(json.dumps(counts))
