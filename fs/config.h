/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mount options and exit codes.  Pure: parsing and validation only.
 */
#ifndef TDFS_CONFIG_H
#define TDFS_CONFIG_H

#include "defs.h"

/* One enum for every command; README has the table. */
enum exit_code {
	EXIT_TDFS_OK = 0,
	EXIT_TDFS_FAILED = 1,
	EXIT_TDFS_USAGE = 2,
	EXIT_TDFS_SOME = 3,    /* some files failed */
	EXIT_TDFS_SECRET = 4,  /* wrong secret */
	EXIT_TDFS_DAMAGED = 5, /* volume damaged */
	EXIT_TDFS_NEEDS_LOG = 6,
	EXIT_TDFS_KAS_REFUSED = 7,
	EXIT_TDFS_KAS_AWAY = 8,
	EXIT_TDFS_BUSY = 11, /* in use by another process */
	EXIT_TDFS_RETRY = 75,
	EXIT_TDFS_INTERRUPTED = 130,
};
/** exit_code_of() - the exit code for a -errno of this project (defs.h) */
enum exit_code exit_code_of(int err);

struct volume;

enum foreign_policy { FOREIGN_RO, FOREIGN_DENY };

struct config {
	char *store, *mountpoint; /* absolute */
	char *fsname;             /* -o fsname= or NULL: the store's path */
	char *kas_key;            /* -o kas_key=FILE: private keys that open TDFs made elsewhere; NULL: none */
	bool foreground, debug;
	bool read_only;
	bool allow_other, allow_root;
	bool dev, suid, exec; /* default: nodev, nosuid, exec */
	bool noatime;
	bool strict;    /* -o cache=strict: no write-back in the kernel */
	bool exclusive; /* -o cache=exclusive: nobody else touches the store: long attribute and entry timeouts */
	bool shared_storage;
	bool live_mark;
	bool nonempty; /* the mount point may hold something */
	bool sloppy;   /* mount(8) -s: unknown options are passed over */
	bool fake;     /* mount(8) -f: check all, mount nothing */
	bool quiet;    /* what went well is for the log only */
	enum foreign_policy foreign;
	size_t cache_bytes; /* -o segcache=SIZE */
	unsigned max_threads;
	/* before a volume is served, not read-only; an exit code, reported.  NULL: nothing to be done */
	int (*prepare)(struct volume *v);
	unsigned key_ttl_s; /* -o key_ttl=TIME: a key from a remote KAS is used for this long */
	unsigned grace_s;   /* -o offline_grace=TIME: and this much longer while that KAS cannot be asked */
	unsigned idle_s;    /* -o idle=TIME: unmount after that long without use; 0: never */
};

enum mount_option_kind {
	MOUNT_FLAG,    /* sets a bool of struct config */
	MOUNT_VALUE,   /* NAME=ARG */
	MOUNT_SECRET,  /* where the secret comes from: the caller's */
	MOUNT_WORD,    /* of mount(8), fstab and systemd, or always true here: nothing to do */
	MOUNT_REFUSED, /* would break what the mount promises */
};
/* The one table: parsed from, printed by `tdfs help options`, mount.tdfs(8) and the completions */
struct mount_option {
	enum mount_option_kind kind;
	const char *name;
	const char *arg;  /* what the help calls the value, or NULL */
	const char *help; /* NULL: not shown */
	size_t off;       /* MOUNT_FLAG */
	bool value;
};
const struct mount_option *config_options(size_t *ret_n);

/** config_init() - the defaults */
void config_init(struct config *c);
/** config_option_string() - one -o argument: comma separated; `\,` and `\\` stand for themselves, and a value may stand in "quotes"
 * @secret: takes a MOUNT_SECRET, @value NULL if it has none; 0 or -errno with fail()
 * Of an option given twice the last one counts, as in mount(8).  Unknown names (the nearest known one is told) and bad values are -EINVAL
 * with fail() */
int config_option_string(struct config *c, const char *opts, int (*secret)(void *arg, const char *name, const char *value),
			 void *arg) MUST_CHECK;
/** config_check() - contradictions between options, once all are read */
int config_check(const struct config *c) MUST_CHECK;
void config_free(struct config *c);

#endif
