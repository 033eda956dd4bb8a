/* SPDX-License-Identifier: Apache-2.0 */
/* Between commit.c and commit_crc.c; nobody else includes this. */
#ifndef TDFS_COMMIT_I_H
#define TDFS_COMMIT_I_H

#include "inode_i.h"

/* Encrypted for this commit; becomes the file's state only when the COMMIT stands in the log. */
struct staged {
	uint64_t no;
	uint32_t len, crc;
	uint8_t tag[AEAD_TAG];
	struct redo_loc loc;
};

struct commit {
	struct inode *f;
	struct base base;
	struct staged *staged;
	uint8_t *buf; /* ciphertext of one batch */
	struct redo_rec *recs;
	struct redo_place *places;
	uint8_t *tags;
	uint8_t root[MAC_LEN];
	uint32_t crc;
	bool crc_anew;   /* what is replaced cannot be taken out of the CRC: it is damaged */
	bool crc_unsure; /* and not everything could be read for a new one */
	uint64_t lsn;
	bool is_seal;
};

/* The CRC-32 of the payload with this commit, step by step: what stays of the old one, each segment replaced, what is new behind it. */
int commit_crc_start(struct commit *c);
int commit_crc_replace(struct commit *c, const struct staged *g);
int commit_crc_finish(struct commit *c);

#endif
