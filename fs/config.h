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

enum foreign_policy { FOREIGN_RO, FOREIGN_DENY };

struct config {
	char *store, *mountpoint; /* absolute */
	char *fsname;             /* -o fsname= or NULL: the store's path */
	bool foreground, debug;
	bool read_only;
	bool allow_other, allow_root;
	bool dev, suid, exec; /* default: nodev, nosuid, exec */
	bool noatime;
	bool strict;    /* -o cache=strict: no write-back in the kernel */
	bool exclusive; /* -o cache=exclusive: nobody else touches the store: long attribute and entry timeouts */
	bool shared_storage;
	bool live_mark;
	enum foreign_policy foreign;
	size_t cache_bytes; /* -o segcache=SIZE */
	unsigned max_threads;
	char *extra; /* options handed to libfuse as they are, comma separated, or NULL */
};

/** config_init() - the defaults */
void config_init(struct config *c);
/** config_option_string() - one -o argument: comma separated, `\,` and `\\` escaped; unknown names and contradictions are -EINVAL with
 * fail() naming the option and the nearest known one */
int config_option_string(struct config *c, const char *opts) MUST_CHECK;
/** config_check() - contradictions between options, once all are read */
int config_check(const struct config *c) MUST_CHECK;
void config_free(struct config *c);

#endif
