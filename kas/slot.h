/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key slots: ways to the volume key.  Each slot wraps VK with AES-256-GCM under a key made from its secret.
 *
 * A passphrase is turned into that key by a child process (kdf.h): slot_make() and slot_open() fork for it, so they belong before threads start.
 */
#ifndef TDFS_SLOT_H
#define TDFS_SLOT_H

#include "aead.h"
#include "manifest.h"

enum slot_kind {
	SLOT_PASSPHRASE,
	SLOT_RECOVERY,
	SLOT_KEYFILE,
	SLOT_KAS, /* slot_kas.h */
	SLOT_KEY, /* no slot: a credential that is the volume key itself */
};

#define SLOT_MAX 16
#define SLOT_LABEL_MAX 63
#define SLOT_ACCESS_MAX ((size_t)8 << 10) /* text of a KAS slot's key access object */
#define RECOVERY_TEXT 72 /* room for a recovery key as text, NUL included */
#define SCRYPT_LOGN_MIN 15
#define SCRYPT_LOGN_MAX 20

struct slot {
	uint8_t id; /* 0..SLOT_MAX - 1, never reused while the slot exists */
	enum slot_kind kind;
	char label[SLOT_LABEL_MAX + 1];
	uint8_t salt[32];
	unsigned log_n, r, p; /* passphrase only; refused outside 15..20, 8, 1..4 before any memory is taken */
	int64_t created;      /* seconds */
	uint8_t wrapped[SECRET_LEN + AEAD_OVERHEAD];
	struct manifest *kas; /* SLOT_KAS only: its one key access object and the policy; owned */
};
/** slot_clear() - free what it holds; slots_free(): of an array, and that */
void slot_clear(struct slot *s);
void slots_free(struct slot *s, size_t n);

/* What somebody offers to open a slot with.  Bytes are wiped by credential_free(). */
struct credential {
	enum slot_kind kind;
	uint8_t *bytes; /* passphrase without the newline; the whole key file; recovery key text; volume key */
	size_t len;
};
void credential_free(struct credential *c);

/** slot_make() - wrap @vk; fills everything but id and label
 * @log_n: 0 = calibrate: the largest in 15..18 that takes at most about a second here.
 * 0, -EINVAL (empty passphrase, key file under 16 bytes, @log_n), -EPROTO bad recovery key, -ENOMEM, -EINTR, -EIO */
int slot_make(struct slot *s, const struct credential *c, const struct secret *vk, unsigned log_n) MUST_CHECK;
/** slot_open() - 0; -EKEYREJECTED this credential does not open this slot; -EPROTO KDF bounds; -ENOMEM; -EINTR; -EIO */
int slot_open(const struct slot *s, const struct credential *c, struct secret **ret_vk) MUST_CHECK;

/** recovery_new() - a fresh recovery key: 160 random bits and a checksum as groups of letters and digits a person can type (no 0 O 1 I) */
int recovery_new(char ret[static RECOVERY_TEXT]) MUST_CHECK;
/** recovery_check() - is this well typed (case, spaces and dashes do not matter)?  0 or -EPROTO (fail() says which group) */
int recovery_check(const char *text, size_t len) MUST_CHECK;

#endif
