"""Works in a folder whose path is longer than 4,096 bytes, name by name, under a mount and behind it; says what each step answered."""
import errno
import json
import os
import sys

STEPS, NAME = 25, "d" * 200


def descend(top, make):
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(STEPS):
        if make:
            os.mkdir(NAME, dir_fd=fd)
        below = os.open(NAME, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def write(folder, name, contents):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=folder)
    os.write(fd, contents)
    os.close(fd)


def read(folder, name):
    fd = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(fd, 100).decode("latin1")
    finally:
        os.close(fd)


def answer(action):
    try:
        return action()
    except OSError as error:
        return errno.errorcode[error.errno]


def main(mountpoint, behind, plugin):
    below = descend(behind, True)
    write(below, "old", b"behind")
    with open(plugin, "rb") as file:
        write(below, "disk.raw", file.read())
    folder = descend(mountpoint, False)
    write(folder, "new", b"through")
    os.mkdir("sub", dir_fd=folder)
    os.rename("new", "sub/moved", src_dir_fd=folder, dst_dir_fd=folder)
    os.link("old", "linked", src_dir_fd=folder, dst_dir_fd=folder)
    os.symlink("old", "symbolic", dir_fd=folder)
    os.chmod("old", 0o600, dir_fd=folder)
    os.truncate(os.open("sub/moved", os.O_RDWR, dir_fd=folder), 4)
    print(
        json.dumps(
            {
                "names": sorted(os.listdir(folder)),
                "old": read(folder, "old"),
                "linked": read(folder, "linked"),
                "moved": read(below, "sub/moved"),
                "mode": oct(os.stat("old", dir_fd=below).st_mode),
                "disk": answer(lambda: read(folder, "disk.raw")),
                "absent": answer(lambda: read(folder, "disk-flat.raw")),
            }
        )
    )
    for name in ["sub/moved", "linked", "symbolic", "old", "disk.raw"]:
        print(name, answer(lambda: os.unlink(name, dir_fd=folder)), file=sys.stderr)
    os.rmdir("sub", dir_fd=folder)


main(*sys.argv[1:])
