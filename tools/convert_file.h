/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file of a conversion: opening it without ever leaving the tree, plain bytes to a sealed file and back, everything else that belongs
 * to a file.
 */
#ifndef TDFS_CONVERT_FILE_H
#define TDFS_CONVERT_FILE_H

#include "container.h"
#include "convert.h"

#define TEMP_ROOM 32

/** beneath_open() - the directory @path (relative, "" = the root itself) below @root: never through a symlink, a mount point (@one_fs), or
 * out of the tree Paths longer than PATH_MAX are walked in pieces.  Return: a descriptor or -errno (-EXDEV outside or another file system,
 * -ELOOP a symlink) */
int beneath_open(int root, const char *path, bool one_fs) MUST_CHECK;

/** content_open() - a file in @dir, to be read: never through a symlink or waiting for a pipe's writer, and its atime stays what it is
 * where we may ask for that (ours, or as root).  Return: as openat(2) */
int content_open(int dir, const char *name) MUST_CHECK;

/* Buffers of one worker, made once. */
struct sealer {
	const struct volume *v;
	struct secret *hash_key; /* of fingerprints, the same in all processes of a run */
	uint8_t *plain, *stored, *tags;
	size_t plain_room, stored_room, tags_room;
	struct tail_template *sample; /* how long a tail of this volume is; made when first asked for */
};
int sealer_init(struct sealer *s, const struct volume *v) MUST_CHECK;
void sealer_free(struct sealer *s);

/* What is sealed: a plain file, or what a sealed one holds, which then stays the same file (id, times) in its next generation. */
struct seal_from {
	int fd;
	const struct io *io;       /* of a sealed one */
	const struct container *c; /* unlocked; NULL: a plain file */
	const char *policy;        /* base64 */
};

/** seal_fd() - all of @from, whose file is like @st, into the empty @out as a native file of the volume; nothing is synced
 * The record of what was plain carries size, mtime and ctime of @st: the stamp by which an interrupted run is told apart from a file of the
 * user.
 * @ret_hash: content hash (fingerprints chained over segments of *ret_s bytes), or NULL if nobody wants it
 * Return: 0; -ESTALE the file has another length than @st says; -ENOSPC, -errno */
int seal_fd(struct sealer *s, const struct seal_from *from, const struct stat *st, int out, uint8_t *ret_hash, uint32_t *ret_s) MUST_CHECK;

/** reseal_fd() - the payload and data key of @from as they are, under another key access: all of it is read and checked first; as seal_fd()
 */
int reseal_fd(struct sealer *s, const struct seal_from *from, int out, uint8_t ret_hash[static HASH_LEN], uint32_t *ret_s) MUST_CHECK;

/** plain_hash() - content hash of a plain file of @size bytes, in units of @unit; 0; -ESTALE it is shorter; -errno */
int plain_hash(struct sealer *s, int fd, uint64_t size, uint32_t unit, uint8_t ret_hash[static HASH_LEN]) MUST_CHECK;

/** sealed_open() - open and unlock with the key unwrapped from the file itself; 0 or as container_open(), kas_unwrap(), container_unlock()
 */
int sealed_open(const struct volume *v, const struct io *io, int fd, struct container **ret) MUST_CHECK;
/** sealed_read() - every segment, checked; to @out (-1: nowhere), hash of the plain bytes if it is wanted; 0; -EBADMSG; -errno of reading
 * or writing */
int sealed_read(struct sealer *s, const struct io *io, int fd, const struct container *c, int out, uint8_t *ret_hash) MUST_CHECK;
/* A small file is read once and then taken from memory: opening a container and reading it are two looks at the same bytes. */
struct whole {
	struct io disk;
	const uint8_t *buf; /* the sealer's, until it seals again */
	uint64_t len;
};
/** whole_read() - @ret_io: to be used in place of @disk for this file, while @ret lives; a large file is read from the disk as ever; 0 or
 * -errno */
int whole_read(struct sealer *s, const struct io *disk, int fd, uint64_t file_len, struct whole *ret, struct io *ret_io) MUST_CHECK;
/** sealed_hash() - open, unlock, read all: what a verification does; 0 or as both */
int sealed_hash(struct sealer *s, const struct io *disk, int fd, uint64_t file_len, uint8_t ret_hash[static HASH_LEN]) MUST_CHECK;

/* What a file that stands where one is needed turns out to be. */
enum sibling {
	SIBLING_OTHER,      /* not ours */
	SIBLING_SEALED,     /* a sealed file of this volume, by its header's MAC */
	SIBLING_TORN,       /* was made by us, as its authenticated hint says, and is not whole */
	SIBLING_UNFINISHED, /* NEW: created in a mount, never completed */
	SIBLING_DAMAGED,    /* ours, but its header's MAC is wrong */
};
/** sibling_look() - @ret_rec: filled in for all but SIBLING_OTHER and _DAMAGED (TORN: size and ctime only); 0 or -errno */
int sibling_look(struct sealer *s, int fd, uint64_t len, enum sibling *ret, struct record *ret_rec) MUST_CHECK;

/** stage_mark() / stage_marked() - on a plain file that `out` has written: not durable yet.  Authenticated; removed when it is */
int stage_mark(const struct volume *v, int fd, const struct record *of) MUST_CHECK;
/** stage_marked() - @s: of @fd; @mtime: what it was given.  One that somebody has written to since is not ours any more */
bool stage_marked(const struct volume *v, int fd, const struct stat *s, const struct timespec *mtime);

/** meta_copy() - owner, mode, xattrs, ACLs, capability, flags, project id, times: in an order in which none undoes another
 * @strict: owner must be kept too (in place); else as cp -a does without the right to.  @flags: the original may have flags or a project
 * id.  @to_st: of @to as it is; NULL: not known.  @acl_dir: the directory has a default ACL, which @to has got from it
 * @what: on failure which of them.  Return: 0; -errno */
int meta_copy(int from, const struct stat *st, int to, const struct stat *to_st, bool strict, bool flags, bool acl_dir,
	      const char **what) MUST_CHECK;
/** meta_inherits() - does a new file in @dir get flags or a project id that its original may not have?  Then meta_flags_copy() is for
 * when it has its name: a file of another project cannot be linked into such a folder
 * @ret_append: names can be made in it and not removed */
bool meta_inherits(int dir, bool *ret_append);
int meta_flags_copy(int from, int to, bool strict) MUST_CHECK;
/** meta_flags() - "immutable", "append-only" or NULL; @ret_any: has it flags or a project id that are to be kept? */
const char *meta_flags(int fd, bool *ret_any);

/** temp_open() - a file without a name in @dir (with @mode's permissions at once: nobody can open it), or with one in @temp_dir (then
 * @ret_name tells); -errno */
int temp_open(int dir, int temp_dir, mode_t mode, char ret_name[static TEMP_ROOM]) MUST_CHECK;
/** temp_link() - give it its name; 0; -EEXIST; -errno */
int temp_link(int fd, int temp_dir, const char *temp_name, int dir, const char *name) MUST_CHECK;
void temp_drop(int temp_dir, const char *temp_name);

#endif
