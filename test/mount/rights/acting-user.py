"""Does file system calls as a user. Arguments: uid, gid, supplementary groups with commas between (or "-").

Each line of the input is [folders, call, names, arguments] in JSON: the call is done in every folder in turn, with the names in it, and the
answer is a line with what each has returned: a value, or the name of an error.
"""
import ctypes, errno, json, os, stat, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
uid, gid, groups = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.setgroups([] if groups == '-' else [int(group) for group in groups.split(',')])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
os.umask(0o22)


def opened(path, flags, mode, data):
    # Nobody waits at the other end of a pipe.
    fd = os.open(path, flags | os.O_NONBLOCK, mode)
    try:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            os.write(fd, data.encode())
        if flags & os.O_ACCMODE != os.O_WRONLY:
            return os.pread(fd, 100, 0).decode()
    finally:
        os.close(fd)


def cut(path, size):
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)


def rename_with(source, target, flags):
    if libc.renameat2(-100, source.encode(), -100, target.encode(), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def access_list(entries):
    """Of [tag, rights, id]: as the kernel takes them, sorted."""
    packed = [struct.pack('<HHI', tag, rights, who) for tag, rights, who in entries]
    return struct.pack('<I', 2) + b''.join(packed)


def attributes(path):
    found = os.lstat(path)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return [stat.S_IFMT(found.st_mode), names]


def state(path):
    """Of all that is there, what decides who may do what with it, and what is in it."""
    found, told = os.lstat(path), []
    link = os.readlink(path) if stat.S_ISLNK(found.st_mode) else ''
    size = '' if stat.S_ISDIR(found.st_mode) else found.st_size
    kept = {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in sorted(os.listxattr(path, follow_symlinks=False))}
    told.append(f'{found.st_mode:o} {found.st_uid}:{found.st_gid} x{found.st_nlink} {size} {link} {kept}')
    if stat.S_ISDIR(found.st_mode):
        for name in sorted(os.listdir(path)):
            told += [f'{name}/{line}' for line in state(os.path.join(path, name))]
    return told


def times(path, kind):
    if kind == 'now':
        os.utime(path, follow_symlinks=False)
    else:
        os.utime(path, ns=(10 ** 18, 10 ** 18 + 1), follow_symlinks=False)


calls = {
    'open': opened,
    'cut': cut,
    'list': lambda path: sorted(os.listdir(path)),
    'makeFolder': os.mkdir,
    'makeNode': os.mknod,
    'link': lambda source, target: os.link(source, target, follow_symlinks=False),
    'remove': os.unlink,
    'removeFolder': os.rmdir,
    'rename': os.rename,
    'renameWith': rename_with,
    'changeMode': os.chmod,
    'changeOwner': os.chown,
    'changeOwnerOfLink': os.lchown,
    'state': state,
    'times': times,
    'truncate': os.truncate,
    'readLink': os.readlink,
    'access': lambda path, mode: os.access(path, mode),
    'attributes': attributes,
    'attribute': lambda path, name: os.getxattr(path, name).hex(),
    'setAttribute': lambda path, name, value, flags: os.setxattr(path, name, value.encode(), flags),
    'removeAttribute': os.removexattr,
    'setAccessList': lambda path, name, entries: os.setxattr(path, name, access_list(entries)),
}


def answer(folder, call, names, arguments):
    paths = [os.path.join(folder, name) for name in names] or [folder]
    try:
        if call == 'umask':
            os.umask(*arguments)
            return None
        if call == 'symlink':
            return os.symlink(arguments[0], paths[0])
        return calls[call](*paths, *arguments)
    except OSError as error:
        return errno.errorcode[error.errno]


for line in sys.stdin:
    folders, call, names, arguments = json.loads(line)
    print(json.dumps([answer(folder, call, names, arguments) for folder in folders]), flush=True)
