# SPDX-License-Identifier: Apache-2.0
"""The part of `platform` that runs cases: against.py DIRECTORY ALGORITHM=STORE...; the rest is in PLATFORM_*."""
import os, sys

sys.dont_write_bytecode = True
from cases import *
from partners import *

env = {k[len("PLATFORM_"):].lower(): v for k, v in os.environ.items() if k.startswith("PLATFORM_")}
work, stores = sys.argv[1], dict(a.split("=", 1) for a in sys.argv[2:])
partners = all_partners(print, env["partners"].split(",") if env["partners"] else None)
if not partners:
    print("no partner could be had")
    sys.exit(77)
secrets = {"alice": work + "/secret", "bob": work + "/other"}
names = {"alice": env["id"], "bob": env["other"]}
target = Target(env["url"], {names[k]: v for k, v in secrets.items() if names[k]}, env["url"], env["ca"] or None)
table = Table(partners)
suite = Suite(table, target, os.environ["TDFS_BIN"], work + "/tmp", work + "/pass", env["id"])
try:
    kept = {}
    for alg, store in stores.items():
        files = suite.make_files(store)
        for p in partners:
            suite.reads(p, alg.split(":")[0].upper(), files)
        kept[alg] = files
    alg, store = next(iter(stores.items()))
    for p in partners:
        suite.written(p, store)
        suite.adopted(p, store)
        if env["attribute"]:
            suite.policies(p, env["attribute"], store, other=env["other"] or None)
        suite.tampered(p, *kept[alg]["overwritten and appended"])
        suite.forms(p, kept[alg])
finally:
    table.show()
sys.exit(table.bad > 0)
