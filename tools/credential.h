/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a passphrase, key file or recovery key comes from: terminal, file, descriptor, program, systemd credential.
 *
 * Never from argv or the environment.  Whatever was read is in the caller's struct credential alone and wiped by credential_free().
 */
#ifndef TDFS_CREDENTIAL_H
#define TDFS_CREDENTIAL_H

#include "options.h"
#include "slot.h"

struct credential_source { /* options; all NULL: systemd credential if there is one, a KAS that is trusted for the store, else the terminal */
	const char *passfile, *passfd, *extpass, *keyfile;
	const char *kas_trust;  /* trust file: a KAS opens it, slot_kas.h */
	const char *kas_socket; /* of `tdfs kas serve --socket`, key_socket.h */
	bool recovery;
};

/* Option rows for `struct credential_source MEMBER` inside STRUCT. */
#define SECRET_ROWS(st, member)                                                       \
	{OPTION_TEXT, 0, "passfile", "FILE", offsetof(st, member.passfile), NULL},    \
	    {OPTION_TEXT, 0, "passfd", "N", offsetof(st, member.passfd), NULL},       \
	    {OPTION_TEXT, 0, "extpass", "CMD", offsetof(st, member.extpass), NULL},   \
	{                                                                             \
		OPTION_TEXT, 0, "keyfile", "FILE", offsetof(st, member.keyfile), NULL \
	}
#define CREDENTIAL_ROWS(st, member)                                                                             \
	SECRET_ROWS(st, member), {OPTION_TEXT, 0, "kas-trust", "FILE", offsetof(st, member.kas_trust), NULL},   \
	    {OPTION_TEXT, 0, "kas-socket", "PATH", offsetof(st, member.kas_socket), NULL},                      \
	{                                                                                                       \
		OPTION_FLAG, 0, "recovery", NULL, offsetof(st, member.recovery), NULL                           \
	}

/** credential_check() - contradictions (two sources, a descriptor that is no number); 0 or -EINVAL, fail() tells */
int credential_check(const struct credential_source *src) MUST_CHECK;

/** credential_get() - read the secret
 * @what: for the prompt: a store's path
 * @is_new: a secret to be set: asked for twice on a terminal
 * Blocks: the user.  Return: 0; -EINVAL contradictory options or an empty secret; -EPERM the file may be read by others; -EINTR
 * interrupted; -ENXIO no terminal to ask on; -EPROTO no well-typed recovery key; -EACCES, -ETIMEDOUT, -ENOKEY, -EKEYREJECTED of a KAS
 * or socket alone, as slot_kas_open(), key_socket_get(); -errno.  fail() tells.  Free with credential_free(). */
int credential_get(const struct credential_source *src, const char *what, bool is_new, struct credential *ret) MUST_CHECK;

#endif
