"""
Locks of byte ranges by several processes, step by step from a seed: of processes and of open file descriptions, through descriptors that are
opened, duplicated, inherited and closed, by processes that fork and end. Prints what came of each step: run on an ordinary folder and on another,
the two must be the same. At `pauses` it prints a line, and goes on when it gets one.
"""
import errno, fcntl, json, os, random, signal, socket, struct, sys, time

F_GETLK, F_SETLK, F_OFD_GETLK, F_OFD_SETLK = 5, 6, 36, 37
TYPES = [fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK]
FORMAT = '@hhqqi4x'


def serve(link, fds):
    """What one process does, until it is told to end."""
    while True:
        command, *args = json.loads(link.recv(4096) or '["exit"]')
        passed = []
        try:
            if command == 'open':
                fds[args[0]] = os.open(args[1], args[2])
                result = 'opened'
            elif command == 'dup':
                fds[args[0]] = os.dup(fds[args[1]])
                result = 'duplicated'
            elif command == 'close':
                os.close(fds.pop(args[0]))
                result = 'closed'
            elif command == 'lock':
                fd, how, kind, start, length = args
                answer = fcntl.fcntl(fds[fd], how, struct.pack(FORMAT, kind, os.SEEK_SET, start, length, 0))
                result = list(struct.unpack(FORMAT, answer)) if how in (F_GETLK, F_OFD_GETLK) else 'locked'
            elif command == 'fork':
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                if os.fork() == 0:
                    ours.close()
                    link.close()
                    return serve(theirs, fds)
                theirs.close()
                passed, result = [ours.fileno()], 'forked'
            elif command == 'exit':
                os._exit(0)
        except OSError as error:
            result = errno.errorcode[error.errno]
        text = json.dumps([os.getpid(), result]).encode()
        if passed:
            socket.send_fds(link, [text], passed)
            ours.close()
        else:
            link.send(text)


class Process:
    def __init__(self, link, fds):
        self.link, self.fds, self.pid = link, fds, None

    def ask(self, *command):
        self.link.send(json.dumps(command).encode())
        text, passed, _, _ = socket.recv_fds(self.link, 4096, 1)
        self.pid, result = json.loads(text)
        return result, passed


def start():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        serve(theirs, {})
    theirs.close()
    return Process(ours, {})


def main(folder, names, seed, steps, pauses):
    rng = random.Random(seed)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    files = [os.path.join(folder, name) for name in names]
    processes = [start() for _ in range(3)]
    outcomes, number = [], 0
    for step in range(steps):
        if step in pauses:
            print(f'pause {pauses.index(step)}', flush=True)
            sys.stdin.readline()
        process = rng.choice(processes)
        kind = rng.randrange(100)
        fds = process.fds
        if kind < 12 or not fds:
            number += 1
            path, flags = rng.randrange(len(files)), rng.choice([os.O_RDWR, os.O_RDWR, os.O_RDWR, os.O_RDONLY])
            outcomes.append(['open', process.ask('open', str(number), files[path], flags)[0]])
            fds[str(number)] = path
        elif kind < 15:
            number += 1
            old = rng.choice(list(fds))
            outcomes.append(['dup', process.ask('dup', str(number), old)[0]])
            fds[str(number)] = fds[old]
        elif kind < 22:
            fd = rng.choice(list(fds))
            del fds[fd]
            outcomes.append(['close', process.ask('close', fd)[0]])
        elif kind < 24 and len(processes) < 6:
            result, passed = process.ask('fork')
            outcomes.append(['fork', result])
            processes.append(Process(socket.socket(fileno=passed[0]), dict(fds)))
        elif kind < 26 and len(processes) > 2:
            processes.remove(process)
            process.link.send(b'["exit"]')
            process.link.recv(1)
            process.link.close()
            # Its descriptors are closed before it can be waited for.
            while process.pid is not None and os.path.exists(f'/proc/{process.pid}'): time.sleep(0.001)
            outcomes.append(['exit'])
        else:
            how = rng.choice([F_SETLK, F_SETLK, F_SETLK, F_GETLK, F_OFD_SETLK, F_OFD_SETLK, F_OFD_SETLK, F_OFD_GETLK])
            lock = rng.choice(TYPES[:2] if how in (F_GETLK, F_OFD_GETLK) else TYPES)
            start_at = rng.choice([rng.randrange(8), rng.randrange(40), 100 + rng.randrange(5), 2 ** 40])
            length = rng.choice([1, 1, 2, rng.randrange(1, 20), 0])
            result, _ = process.ask('lock', rng.choice(list(fds)), how, lock, start_at, length)
            if isinstance(result, list):
                result = result[:4] if result[0] != fcntl.F_UNLCK else ['free']
            outcomes.append(['lock', how, lock, start_at, length, result])
    for process in processes: process.link.close()
    print(json.dumps(outcomes))


if __name__ == '__main__':
    folder, names, seed, steps, pauses = sys.argv[1:6]
    main(folder, json.loads(names), seed, int(steps), json.loads(pauses))
