# SPDX-License-Identifier: Apache-2.0
"""live-stress.py STORE MNT FILES ROUND CONVERT...: plain files appear in the store, writers append records to them by path through the mount, and CONVERT runs
below it again and again.  Then every record whose write and close returned 0 must stand in its file exactly once.  Prints: records, files, lost; exit 1 if any was lost."""
import ctypes, mmap, os, random, subprocess, sys, time
from multiprocessing import Process, Queue, Value

store, mnt, n_files, per_round, convert = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]
WRITERS = 4


def append(p, rec):
    fd = os.open(p, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, rec)
    finally:
        os.close(fd)


def append_slowly(p, rec):  # a handle that stays open for a while, and two writes
    fd = os.open(p, os.O_RDWR | os.O_APPEND)
    try:
        os.write(fd, rec[:5])
        time.sleep(random.random() / 200)
        os.write(fd, rec[5:])
    finally:
        os.close(fd)


def append_mapped(p, rec):  # by a shared mapping that outlives the descriptor
    fd = os.open(p, os.O_RDWR)
    try:
        size = os.fstat(fd).st_size
        os.ftruncate(fd, size + len(rec))
        m = mmap.mmap(fd, size + len(rec))
    finally:
        os.close(fd)
    time.sleep(random.random() / 200)
    m[size:] = rec
    m.close()


def writer(k, rnd, stop, out, errors):
    ctypes.CDLL(None).prctl(1, 9)  # never outlive the case
    r = random.Random(f"{k}/{rnd}")
    done = []
    n = 0
    while not stop.value:
        n += 1
        mine = r.random() < 0.2  # files that only this writer touches: two halves of a record, and mappings
        i = r.randrange(per_round // (10 * WRITERS) or 1) * WRITERS + k if mine else r.randrange(per_round)
        name = f"r{rnd}/{'m' if mine else 'f'}{i}"
        rec = b"%d.%d.%d\n" % (k, rnd, n)
        try:
            (r.choice((append_slowly, append_mapped)) if mine else append)(f"{mnt}/{name}", rec)
            done.append((name, rec))
            if r.random() < 0.02:
                os.chmod(f"{mnt}/{name}", r.choice((0o600, 0o640, 0o644)))
        except OSError as e:
            errors.put(f"{name}: {e}")
            break
        if r.random() < 0.5:  # else they take the time that the converter needs to meet them
            time.sleep(0.001)
    out.put(done)


def make(rnd):  # as somebody's tree that was there before: nothing through the mount
    d = f"{store}/r{rnd}"
    os.mkdir(d + ".new")
    names = [f"f{i}" for i in range(per_round)] + [f"m{i}" for i in range((per_round // (10 * WRITERS) or 1) * WRITERS)]
    for x in names:
        with open(f"{d}.new/{x}", "wb") as f:
            f.write(b"begin %s\n" % x.encode())
    os.rename(d + ".new", d)
    return names


records = files = lost = runs = 0
rnd = 0
while files < n_files:
    rnd += 1
    names = make(rnd)
    stop, out, errors = Value("b", 0), Queue(), Queue()
    ps = [Process(target=writer, args=(k, rnd, stop, out, errors)) for k in range(WRITERS)]
    for p in ps:
        p.start()
    for again in range(200):
        runs += 1
        rc = subprocess.run(convert, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if rc.returncode not in (0, 75):
            sys.exit(f"FAIL: the converter ended with {rc.returncode}: {rc.stderr}")
        left = sum(os.path.exists(f"{store}/r{rnd}/{x}") for x in names)
        if again == 1 or left < len(names) // 20:
            break
    stop.value = 1
    done = [x for p in ps for x in out.get()]
    for p in ps:
        p.join()
    if not errors.empty():
        sys.exit(f"FAIL: a writer got an error: {errors.get()}")
    rc = subprocess.run(convert, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if rc.returncode:
        sys.exit(f"FAIL: the last run ended with {rc.returncode}: {rc.stderr}")
    want = {}
    for name, rec in done:
        want.setdefault(name, []).append(rec)
    for x in names:
        name = f"r{rnd}/{x}"
        with open(f"{mnt}/{name}", "rb") as f:
            lines = f.read().splitlines(True)
        if not lines or lines[0] != b"begin %s\n" % x.encode():
            print(f"{name}: begins with {lines[:1]}")
            lost += 1
        have = {}
        for line in lines:
            have[line] = have.get(line, 0) + 1
        for rec in want.get(name, ()):
            if have.get(rec) != 1:
                lost += 1
                if lost < 10:
                    print(f"{name}: {rec} stands there {have.get(rec, 0)} times")
    records += len(done)
    files += len(names)
print(f"{records} records, {files} files converted in {runs} runs and {rnd} rounds, {lost} lost")
sys.exit(lost > 0)
