/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain files in a store that is being converted: whose a file is, and the content object that passes everything through to it.
 *
 * The engine's half: knows files, not names or nodes.  Thread-safe.
 */
#ifndef TDFS_PLAIN_FILE_H
#define TDFS_PLAIN_FILE_H

#include "inode.h"

/** plain_file_ours() - is the store file @name, which ends in `.tdf`, one of the volume's, by a MAC (whole or not), and not a plain one
 * that a user gave such a name?
 * @st: its lstat.  1, 0, -errno */
int plain_file_ours(struct store *st, int dirfd, const char *name, const struct stat *s) MUST_CHECK;
/** plain_file_get() - the content object of a plain file, like inode_get(); -ESTALE it is not the inode @ino */
int plain_file_get(struct store *st, int dirfd, const char *name, ino_t ino, bool write, struct inode **ret) MUST_CHECK;
/** plain_file_is() - is this a content object of a plain file? */
bool plain_file_is(const struct inode *f) MUST_CHECK;
/** plain_file_born() - a file just made by inode_create(): say whose it is before it has a header */
void plain_file_born(struct store *st, int fd, const uint8_t file_id[static ID_LEN]);

/* A plain file may bear a mark, should a sealed file of the same visible name ever lie beside it after a crash: which of the two counts. */
enum plain_mark { PLAIN_NO_MARK, PLAIN_WINS, PLAIN_GONE };
/** plain_file_open() - for reading, also if the mode forbids that; a descriptor or -errno */
int plain_file_open(struct store *st, int dirfd, const char *name) MUST_CHECK;
int plain_mark_set(struct store *st, int fd, enum plain_mark m) MUST_CHECK;
enum plain_mark plain_mark_get(struct store *st, int fd);

/* What inode_*() of the same names do with a plain file */
ssize_t plain_read(struct inode *f, void *buf, size_t len, uint64_t off) MUST_CHECK;
int plain_write(struct inode *f, const void *buf, size_t len, uint64_t off, bool append) MUST_CHECK;
int plain_truncate(struct inode *f, uint64_t size) MUST_CHECK;
int plain_allocate(struct inode *f, int mode, uint64_t off, uint64_t len) MUST_CHECK;
int plain_fsync(struct inode *f, bool data_only) MUST_CHECK;
int plain_set_times(struct inode *f, const struct timespec ts[2]) MUST_CHECK;

#endif
