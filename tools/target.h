/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a command is pointed at: a store (by its path or where it is mounted), the volume above a file, a KAS key file.
 */
#ifndef TDFS_TARGET_H
#define TDFS_TARGET_H

#include "container.h"
#include "credential.h"
#include "volume.h"

struct key_options { /* of commands that read or write single TDFs */
	struct credential_source cred;
	const char *volume, *kas_key;
	const char *kas_url, *kid; /* for writing with --kas-key; NULL: the default */
};
#define KEY_ROWS(st, member)                                                                                                    \
	{OPTION_TEXT, 0, "volume", "STORE", offsetof(st, member.volume), "the volume (else looked for upwards from the file)"}, \
	    {OPTION_TEXT, 0, "kas-key", "FILE", offsetof(st, member.kas_key), "KAS private key: PEM, or a JSON list of keys"},  \
	    CREDENTIAL_ROWS(st, member.cred)

/* A set of keys, and the volume they come from if they do. */
struct target {
	struct volume *vol;
	struct kas *kas; /* vol->kas, or own */
};

/** target_open() - get the keys for a file
 * @near: where to start looking for a volume; NULL: nowhere
 * Return: an exit code, reported; 0: free with target_close() */
int target_open(const struct key_options *opt, const char *near, struct target *ret) MUST_CHECK;
void target_close(struct target *t);
struct container_keys target_keys(const struct target *t);

/** target_container() - open a TDF and unlock it; 0 or -errno as container_open(), kas_unwrap(), container_unlock() */
int target_container(const struct target *t, const struct io *io, int fd, struct container **ret) MUST_CHECK;

/** volume_get() - open a volume with the credential asked for.  Return: an exit code, reported */
int volume_get(const char *store, const struct credential_source *cred, struct volume **ret) MUST_CHECK;
/** credential_complain() - report why credential_get() failed; the exit code */
int credential_complain(int err);
/** volume_complain() - report why a volume cannot be opened, with the next step; the exit code */
int volume_complain(int err, const char *store);
/** volume_hold() - volume_lock() for a command that changes the store.  Return: an exit code, reported */
int volume_hold(struct volume *v) MUST_CHECK;

/** volume_share() - the same for one of several processes that work off a plan */
int volume_share(struct volume *v) MUST_CHECK;

/** store_resolve() - STORE or where it is mounted -> the store's absolute path and the mount point (NULL if not mounted), both malloc'd
 * Return: 0; -ENOENT neither; -errno.  fail() tells */
int store_resolve(const char *arg, char **ret_store, char **ret_mountpoint) MUST_CHECK;
/** store_holder() - pid of the process that has the store's lock; 0 nobody; -1 somebody unknown */
pid_t store_holder(const char *store);
/** convert_holder() - likewise of the converter that works below a mount */
pid_t convert_holder(const char *store);
/** path_below() - does @path (`~/` is the home directory) lead, links followed, to something below the directory @dir?  Not if either is
 * missing */
bool path_below(const char *path, const char *dir);
/** path_absolute() - absolute and without links, malloc'd; the last part of a dead mount cannot be looked at, so only what is before it is;
 * NULL: errno */
char *path_absolute(const char *path) MUST_CHECK;
/** tdfs_dir() - STORE/.tdfs, malloc'd; NULL if out of memory */
char *tdfs_dir(const char *store) MUST_CHECK;

#endif
