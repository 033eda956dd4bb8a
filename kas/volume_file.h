/* SPDX-License-Identifier: Apache-2.0 */
/*
 * volume.json as text, and what the files of a volume have in common.  Private to kas/.
 */
#ifndef TDFS_VOLUME_FILE_H
#define TDFS_VOLUME_FILE_H

#include <stdio.h>
#include <sys/stat.h>

#include "io.h"
#include "volume.h"

#define VOLUME_JSON "volume.json"
#define VOLUME_BAK "volume.json.bak"
#define VOLUME_NEW_DIR ".tdfs.new"
#define VOLUME_KAS_DIR "kas"
#define VOLUME_LOCK "lock"
#define VOLUME_TEXT_MAX ((size_t)1 << 20)
#define VOLUME_KEY_MAX ((size_t)64 << 10) /* the sealed KAS key */
#define VOLUME_KID_MAX 64
#define VOLUME_KAS_OLD_MAX 16
#define VOLUME_POLICY_MAX ((size_t)64 << 10)

/** volume_text_parse() - fill in what volume.json says; nothing is authenticated yet, everything is bounded
 * @v: without any of these fields.  0; -EPROTO; -ENOTSUP a later version or an unknown member; -ENOMEM.  On failure @v may be partly
 * filled: volume_free() it. */
int volume_text_parse(const char *text, size_t len, struct volume *v) MUST_CHECK;
/** volume_text_check() - is the text, every byte of it, the one that was written with this key?  0, -EBADMSG, -EIO */
int volume_text_check(const char *text, size_t len, const struct secret *k_conf) MUST_CHECK;
/** volume_text_make() - the text with its MAC (v->k_conf), malloc'd; 0, -ENOMEM, -EIO, -EFBIG */
int volume_text_make(const struct volume *v, char **ret, size_t *ret_len) MUST_CHECK;
/** volume_text_write() - both copies, .bak first */
int volume_text_write(const struct volume *v) MUST_CHECK;

/** volume_policies_parse() - member "policies" or NULL; 0, -EPROTO, -ENOMEM.  volume_policies_put(): with a comma before it, or nothing; 0, -EINVAL not UTF-8 */
struct json_t;
int volume_policies_parse(struct json_t *list, struct volume *v) MUST_CHECK;
int volume_policies_put(const struct volume *v, FILE *f) MUST_CHECK;
void volume_policies_free(struct volume_policy *p, size_t n);

/** dir_lock() - flock() on a directory, given up with LOCK_UN or the descriptor; waits 10 s at most.  @what: the file in it that is to be changed, for messages.  0; -EBUSY; -errno */
int dir_lock(int dir, const char *what) MUST_CHECK;
/** volume_change_begin() - nobody else changes volume.json until volume_change_end(); @v has what stands on disk now; 0, -ENOKEY, -EBADMSG, -EBUSY somebody else has it for 10 s, -errno */
int volume_change_begin(struct volume *v, struct volume **ret) MUST_CHECK;
void volume_change_end(struct volume **v);
#define CLEANUP_CHANGE CLEANUP(volume_change_end)

/** volume_keys() - v->vk is there: derive the others; 0 or -ENOMEM */
int volume_keys(struct volume *v) MUST_CHECK;
/** volume_unlock() - VK by the first slot that opens, the derived keys, then the MAC of @text
 * 0; -EKEYREJECTED; -EBADMSG the MAC is wrong; -errno.  @v is parsed from @text and holds no key yet. */
int volume_unlock(struct volume *v, const struct credential *c, const char *text, size_t len) MUST_CHECK;
/** volume_kid_is_safe() - it is a file name too; volume_kas_old_parse() - the list of retired keys (NULL: none); 0, -EPROTO, -ENOMEM */
struct json_t;
bool volume_kid_is_safe(const char *kid);
int volume_kas_old_parse(const struct json_t *list, struct volume *v) MUST_CHECK;
/** volume_kas_make() - a fresh key, EC or RSA, sealed under @k_kas; both malloc'd; 0, -EIO, -ENOMEM */
int volume_kas_make(const struct secret *k_kas, bool rsa, char **ret_kid, uint8_t **ret_blob, size_t *ret_len) MUST_CHECK;
/** volume_kas_open() - add the key @kid that is sealed in @blob to v->kas; 0, -EBADMSG, -EPROTO, -ENOMEM, -EIO */
int volume_kas_open(struct volume *v, const char *kid, const uint8_t *blob, size_t len) MUST_CHECK;
/** volume_kas_read() - what kas/KID.key holds; 0; -EBADMSG it is missing; -errno */
int volume_kas_read(const struct volume *v, const char *kid, char **ret, size_t *ret_len) MUST_CHECK;
/** volume_kas_load() - all keys that volume.json names; 0 or as both */
int volume_kas_load(struct volume *v) MUST_CHECK;
/** volume_kas_name() - the kid that belongs to @key: "tdfs-" and 16 hex digits; 0, -EIO */
int volume_kas_name(EVP_PKEY *key, char ret[static 32]) MUST_CHECK;
/** volume_kas_file() - name of the key's file in kas/ */
void volume_kas_file(const char *kid, char ret[static VOLUME_KID_MAX + 8]);

/** volume_open_store() - STORE itself, to make a volume in: ours or root's, and nobody else may write; 0 or -errno.  @ret_path: absolute, malloc'd */
int volume_open_store(const char *store, int *ret_fd, char **ret_path) MUST_CHECK;
/** volume_check_owner() - ours or root's, and nobody else may write; @what: for the message; 0 or -EPERM */
int volume_check_owner(const struct stat *st, const char *path, const char *what) MUST_CHECK;
/** volume_open_dirs() - a struct volume with path, store_fd and dir_fd, .tdfs and everything in it checked for owner and mode; as volume_open() */
int volume_open_dirs(const char *store, struct volume **ret) MUST_CHECK;
/** volume_new() - empty, descriptors -1; NULL if out of memory */
struct volume *volume_new(void) MUST_CHECK;

#endif
