/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key slots that a KAS opens (PROTOCOL.md "Key slots over a KAS"), and whom the user trusts to do so.
 *
 * Nothing in a store can say whom to ask, nor which volume has to come out: a share can be wrapped by anybody.  Both stand in a trust file
 * outside the store; what a slot says is compared with it before any name is resolved.
 */
#ifndef TDFS_SLOT_KAS_H
#define TDFS_SLOT_KAS_H

#include "slot.h"
#include "volume_remote.h"

#define VOLUME_CHECK_LEN 16
#define KAS_TRUST_MAX 256 /* entries of a file */

/** volume_check() - tells which volume a key is of, and nothing about it; 0 or -ENOMEM */
int volume_check(const struct secret *vk, uint8_t ret[static VOLUME_CHECK_LEN]) MUST_CHECK;

/** slot_kas_make() - a share wrapped for the pinned key of @to under @policy (base64), and @vk under that share; asks nobody
 * 0, -EPROTO its key, -ENOMEM, -EIO.  Free with slot_clear(). */
int slot_kas_make(struct slot *s, const struct volume_remote *to, const char *policy, const struct secret *vk) MUST_CHECK;

/** slot_kas_parse() - member "kas" of a slot; 0, -EPROTO, -ENOTSUP, -ENOMEM */
struct json_t;
int slot_kas_parse(const struct json_t *o, struct slot *s) MUST_CHECK;

struct kas_trust {
	char *store; /* its path, links resolved */
	uint8_t check[VOLUME_CHECK_LEN];
	struct volume_remote kas; /* without key and split */
};
struct kas_trusts {
	struct kas_trust *list;
	size_t n;
};
void kas_trusts_free(struct kas_trusts *t);
#define CLEANUP_TRUSTS CLEANUP(kas_trusts_free)

/** kas_trusts_load() - the entries for a store
 * @file: NULL: the user's file, then /etc/tdfs/kas.json; a missing one is empty
 * @store: links resolved
 * 0, also with none; -ENOENT @file; -EPERM others may write it, or it lies in the store; -EPROTO, -ENOTSUP, -ENOMEM, -errno.  fail() tells
 */
int kas_trusts_load(const char *file, const char *store, struct kas_trusts *ret) MUST_CHECK;
/** kas_trust_save() - add @t, or put it in the place of what stands there for this store and KAS; durable.  As kas_trusts_load(); -ENOSPC
 */
int kas_trust_save(const char *file, const struct kas_trust *t) MUST_CHECK;
/** kas_trust_path() - the user's file, malloc'd; -ENOENT no home directory */
int kas_trust_path(char **ret) MUST_CHECK;

/** slot_kas_any() - does one of the slots lead to a KAS that is trusted?  No network */
bool slot_kas_any(const struct volume *v, const struct kas_trusts *t);
/** slot_kas_open() - the volume key
 * @v: of volume_peek().  Blocks: the network, as remote_rewrap(), once for each KAS.
 * Return: 0; -EACCES refused; -ETIMEDOUT away; -ENOKEY no slot for a KAS that is trusted, or one that does not open; -EKEYREJECTED what
 * opens is another volume; -ENOMEM.  fail() tells.  Free with secret_free() */
int slot_kas_open(const struct volume *v, const struct kas_trusts *t, struct secret **ret) MUST_CHECK;

#endif
