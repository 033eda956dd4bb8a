# SPDX-License-Identifier: Apache-2.0
"""Fills STORE/clean and STORE/hostile with as many files each."""
import sys
from hostile import *
from t import S

n = int(sys.argv[1])
with open(S + "/good.tdf", "rb") as f:
    good = f.read()
hint = os.getxattr(S + "/good.tdf", "user.tdfs")
pay, man = parts(good)
text = json.dumps(man, separators=(",", ":")).encode()
SPACE = 60 << 20  # what the bombs inflate to
SEGMENT = b'{"hash":"AAAAAAAAAAAAAAAAAAAAAA=="},'
huge = lambda where, what, times: text.replace(where, where + what * times, 1)
kinds = {
    "junk": os.urandom(3000), "junk-64k": os.urandom(70000), "ends": b"PK\5\6" * 20000, "void": b"", "zeros": bytes(600), "record": flip(good, 63 + 72), "magic": good[:512], "cut": good[:-1], "head": bytes(512) + good[512:],
    "foreign": tdf(pay, man), "space": tdf(pay, text[:-1] + b" " * SPACE + b"}", deflated=True), "segments": tdf(pay, huge(b'"segments":[', SEGMENT, SPACE // len(SEGMENT)), deflated=True),
    "deep": tdf(pay, text[:-1] + b',"x":' + b"[" * (SPACE // 2) + b"]" * (SPACE // 2) + b"}", deflated=True), "quotes": tdf(pay, b'"' * SPACE, deflated=True), "policy": tdf(pay, huge(b'"policy":"', b"A" * 4, 1 << 20), deflated=True),
    "middle": tdf(pay, huge(b'"segments":[', SEGMENT, 200)), "8k": tdf(pay, text[:-1] + b" " * (8192 - len(text)) + b"}"), "8k-deep": tdf(pay, text[:-1] + b',"x":' + b"[" * 3000 + b"]" * 3000 + b"}"),
    "comment": zip_of([(b"0.payload", pay, {}), (b"0.manifest.json", text, {})], b"PK\5\6" * 16000), "entries": zip_of([(b"0.payload", pay, {}), (b"0.manifest.json", text, {})] + [(b"%d" % i, b"", {"extra": bytes(65000), "cextra": bytes(65000)}) for i in range(14)]),
}
assert len(kinds["space"]) < 200000 and len(kinds["segments"]) < 300000, "bombs are small at rest"
big = kinds.pop("entries"), kinds.pop("segments"), kinds.pop("quotes"), kinds.pop("deep"), kinds.pop("space"), kinds.pop("policy"), kinds.pop("comment")  # one file of each, many names
for d in ("clean", "hostile"):
    os.mkdir(f"{S}/{d}")
for k, raw in enumerate(big):
    with open(f"{S}/.bomb{k}", "wb") as f:
        f.write(raw)
with open(f"{S}/.bomb{len(big)}", "wb") as f:
    f.truncate(1 << 40)  # sparse
total = len(kinds) + len(big) + 1
for i in range(n):
    with open(f"{S}/clean/f{i}.tdf", "wb") as f:
        f.write(good)
    os.setxattr(f"{S}/clean/f{i}.tdf", "user.tdfs", hint)
    path, k = f"{S}/hostile/f{i}.tdf", i % total
    if k >= len(kinds):
        os.link(f"{S}/.bomb{k - len(kinds)}", path)
        continue
    with open(path, "wb") as f:
        f.write(list(kinds.values())[k])
    if i % 3 == 0:
        os.setxattr(path, "user.tdfs", hint if i % 2 else os.urandom(64))
print(f"{total} kinds")
