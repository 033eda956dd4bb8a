/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The content of one regular file: one object per (dev, ino) while it is open or dirty; all its opens and hard links share it.
 *
 * All functions lock for themselves and are thread-safe.  They block on the disk and, at open only, on the KAS.
 */
#ifndef TDFS_INODE_H
#define TDFS_INODE_H

#include "store.h"

/** inode_create() - make a new file: `name` in @dirfd, which must not exist (O_EXCL)
 * @mode: for the store file; @path: from the store's root as stored, for the log's hint
 * The file is NEW: it stays in memory up to 1 MiB.  Return: 0 with one reference; -EEXIST, -ENOSPC, -EROFS, -errno */
int inode_create(struct store *st, int dirfd, const char *name, mode_t mode, const char *path, struct inode **ret) MUST_CHECK;

/** inode_get() - the content object of an existing store file, loading it if it is not live
 * @write: the store file must be opened read-write (mode bits that forbid it are lifted for the moment and restored)
 * Return: 0 with one reference; -EBADMSG damaged; -EIO needs its log; -ENODATA NEW or VOID (only for reading: for @write it becomes an
 * empty NEW file); -EROFS a foreign file for writing; -ENOKEY, -EACCES, -ETIMEDOUT as the KAS says; -errno */
int inode_get(struct store *st, int dirfd, const char *name, bool write, const char *path, struct inode **ret) MUST_CHECK;

/** inode_find() - the live object of (dev, ino), with a reference, or NULL; never blocks */
struct inode *inode_find(struct store *st, dev_t dev, ino_t ino);

/** inode_put() - give a reference back; a dirty object lives on until it is sealed */
void inode_put(struct inode *f);

/** inode_was_read() - a user reads it: its atime moves as on the store's file system, which our own reading does not (open_store_file()) */
void inode_was_read(struct inode *f);
/** inode_read() - bytes read (short only at the end of the file), -EBADMSG, -EIO, -errno */
ssize_t inode_read(struct inode *f, void *buf, size_t len, uint64_t off) MUST_CHECK;
/** inode_key_ended() - its key may not be used any more: nothing of it may be shown; never blocks */
bool inode_key_ended(const struct inode *f);
/** inode_ino() - inode number of the store file */
ino_t inode_ino(const struct inode *f);
/** inode_size() - of a file with a sealed state, else 0 */
uint64_t inode_size(struct inode *f);
/** inode_write() - all of it or an error; a write beyond the end fills with zeros.  -ENOSPC, -EFBIG, -EIO after a lost fsync, -EROFS */
int inode_write(struct inode *f, const void *buf, size_t len, uint64_t off) MUST_CHECK;
/** inode_write_back() - the same for a page that the kernel writes back, whose writer was told long ago that it is written: where the disk
 * is full it is kept in memory as far as there is room
 * @ret_taken: reading it gives what was written, and no fsync returns 0 without it, whatever is returned here.  False with an error: the
 * file does not have it, while the kernel goes on showing it */
int inode_write_back(struct inode *f, const void *buf, size_t len, uint64_t off, bool *ret_taken) MUST_CHECK;
/** inode_append() - write at the end of the file as it is now (O_APPEND by several handles when the kernel does not cache writes) */
int inode_append(struct inode *f, const void *buf, size_t len) MUST_CHECK;
/** inode_truncate() - both ways; growing writes real zero segments; -ENOSPC found before anything is changed */
int inode_truncate(struct inode *f, uint64_t size) MUST_CHECK;
/** inode_allocate() - fallocate(2) modes 0, KEEP_SIZE, ZERO_RANGE and PUNCH_HOLE (real zeros); else -EOPNOTSUPP */
int inode_allocate(struct inode *f, int mode, uint64_t off, uint64_t len) MUST_CHECK;

/** inode_fsync() - everything written before is durable when this returns 0; an error stays an error until the last handle is closed */
int inode_fsync(struct inode *f, bool data_only) MUST_CHECK;
/** inode_flush() - seals a new small file at once; reports errors known so far */
int inode_flush(struct inode *f) MUST_CHECK;
/** inode_opened() / inode_closed() - count handles; a writable handle keeps the file from being sealed for being idle, the last close
 * clears a reported error: then true, and the file may be without what was written since the last fsync */
void inode_opened(struct inode *f, bool write);
bool inode_closed(struct inode *f, bool write);

/** inode_stat() - fix up size, blocks, mtime and ctime of the store file's stat to what the user must see */
void inode_stat(struct inode *f, struct stat *st);
/** inode_peek() - the same for a file that is not live: size hint, else first sector; O(1), no key, no JSON
 * @dirfd, @name: the store file, "": @dirfd itself; @st: its lstat.  Return: 0; -ESTALE it is another file by now; -ENODATA NEW or VOID
 * (size 0 is right); -EBADMSG, -EPROTO (st_size 0); foreign
 * files get their plain size by the manifest's own word only when cheap: the stored size less the container */
int inode_peek(struct store *st, int dirfd, const char *name, struct stat *s) MUST_CHECK;
/** inode_set_times() - kept until the seal, or set on the store file at once; @ts: atime and mtime with UTIME_OMIT/UTIME_NOW; @ctime: that
 * the kernel shows, NULL: now */
int inode_set_times(struct inode *f, const struct timespec ts[2], const struct timespec *ctime) MUST_CHECK;
/** inode_times_all_known() - the kernel has sent all times of what was written before @since (CLOCK_MONOTONIC ns): those that we know
 * count. Blocks on the store files.  Return: others have been written since, of which nothing is known */
bool inode_times_all_known(struct store *st, uint64_t since);
/** inode_changed() - metadata of the store file (mode, owner, xattr, name, links) changed through us: the next fsync syncs the file too;
 * @ctime: that the kernel shows, NULL: now */
void inode_changed(struct inode *f, const struct timespec *ctime);
/** inode_writable_fd() - borrowed descriptor of the store file (fchmod, xattrs, fstat) */
int inode_fd(struct inode *f);

/** inode_is_replaced() - it was cut to nothing and its new content is in memory alone: what is in the store is older than the cut */
bool inode_is_replaced(struct inode *f);
/** inode_before_rename() - before the file replaces another name: its content is committed and durable enough that a crash shows the old
 * target or this content, never less */
int inode_before_rename(struct inode *f) MUST_CHECK;
/** inode_renamed() - new path hint; the name is not durable yet */
void inode_renamed(struct inode *f, const char *path);
/** inode_unlinked() - its last name is gone (unlink, or replaced by rename): never sealed again; open handles go on */
void inode_unlinked(struct inode *f);
/** inode_origin() - "native", "foreign" or "plain" */
const char *inode_origin(const struct inode *f);
/** inode_policy() - the policy of its key, base64 as in its manifest, malloc'd; 0; -ENODATA it has none (a plain file, one that was never
 * completed); -ENOMEM */
int inode_policy(struct inode *f, char **ret) MUST_CHECK;
/** inode_peek_policy() - the same for a file that is not live, by its descriptor @fd: nothing is unlocked, so it is not known yet whether
 * the seal fits; -errno as container_open() */
int inode_peek_policy(struct store *st, int fd, char **ret) MUST_CHECK;
/** inode_id() - a number unique among live and past inodes of this process */
uint64_t inode_id(const struct inode *f);

#endif
