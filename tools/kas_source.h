/* SPDX-License-Identifier: Apache-2.0 */
/* Options that say which remote KAS is meant and who we are to it; and getting its public key, to be pinned. */
#ifndef TDFS_KAS_SOURCE_H
#define TDFS_KAS_SOURCE_H

#include "options.h"
#include "volume_remote.h"

struct kas_source { /* options; all may be NULL */
	const char *issuer, *client_id, *audience;
	const char *secret_file, *token_file, *session_file;
	const char *ca_file, *pin, *allow;
	const char *alg, *key_file, *kid;
	bool no_probe;
};

#define KAS_KEY_ROWS(st, member)                                                                                                         \
	{OPTION_TEXT, 0, "kas-alg", "ALG", offsetof(st, member.alg), OF_KAS "key type of new files: ec:secp256r1, rsa:2048 ..."},        \
	    {OPTION_TEXT,                                                                                                                \
	     0,                                                                                                                          \
	     "kas-public-key",                                                                                                           \
	     "FILE",                                                                                                                     \
	     offsetof(st, member.key_file),                                                                                              \
	     OF_KAS "its public key (PEM); then it is not asked for"},                                                                   \
	    {OPTION_TEXT, 0, "kas-kid", "KID", offsetof(st, member.kid), OF_KAS "what it calls that key"},                               \
	{                                                                                                                                \
		OPTION_FLAG, 0, "no-probe", NULL, offsetof(st, member.no_probe), OF_KAS "do not try whether it unwraps what it is given" \
	}
#define KAS_WHO_ROWS(st, member)                                                                                                             \
	{OPTION_TEXT, 0, "issuer", "URL", offsetof(st, member.issuer), OF_KAS "of OpenID Connect; else the one that the KAS names"},         \
	    {OPTION_TEXT, 0, "client-id", "ID", offsetof(st, member.client_id), OF_KAS "of this client there; alone: log in by tdfs login"}, \
	    {OPTION_TEXT, 0, "audience", "NAME", offsetof(st, member.audience), OF_KAS "whom tokens are for"},                               \
	    {OPTION_TEXT, 0, "client-secret", "FILE", offsetof(st, member.secret_file), OF_KAS "client credentials: first line of FILE"},    \
	    {OPTION_TEXT, 0, "token-file", "FILE", offsetof(st, member.token_file), OF_KAS "a token that somebody keeps fresh"},             \
	    {OPTION_TEXT,                                                                                                                    \
	     0,                                                                                                                              \
	     "session-file",                                                                                                                 \
	     "FILE",                                                                                                                         \
	     offsetof(st, member.session_file),                                                                                              \
	     OF_KAS "left by tdfs login, if not in its usual place"},                                                                        \
	    {OPTION_TEXT, 0, "kas-ca", "FILE", offsetof(st, member.ca_file), OF_KAS "trust this CA alone (PEM)"},                            \
	    {OPTION_TEXT, 0, "kas-pin", "PIN", offsetof(st, member.pin), OF_KAS "sha256//BASE64 of its certificate's public key"},           \
	{                                                                                                                                    \
		OPTION_TEXT, 0, "kas-allow", "NETS", offsetof(st, member.allow), OF_KAS "private addresses it may have, as 10.0.0.0/8"       \
	}
#define KAS_ROWS(st, member) KAS_WHO_ROWS(st, member), KAS_KEY_ROWS(st, member)

/** kas_options_help() - what the rows above mean, to standard output */
void kas_options_help(void);

/** kas_source_get() - what volume.json is to say of the KAS at @url, its public key included
 * Asks the KAS for the key (unless a file has it) and, where it says so, for its issuer; then has 32 random bytes wrapped and unwrapped
 * once, if we are known there: a KAS may hand out a key that it does not unwrap for. Files inside @store are refused.  Return: an exit
 * code, reported; 0: free with volume_remote_clear() */
int kas_source_get(const struct kas_source *s, const char *url, const char *store, struct volume_remote *ret) MUST_CHECK;
/** kas_source_conf() - the same without a key; asks the KAS for its issuer at most; an exit code, reported */
int kas_source_conf(const struct kas_source *s, const char *url, const char *store, struct volume_remote *ret) MUST_CHECK;
/** kas_source_key() - the key alone, into @r, whose old one is replaced; an exit code, reported */
int kas_source_key(const struct kas_source *s, struct volume_remote *r) MUST_CHECK;
/** kas_source_probe() - does it unwrap what is wrapped for this key?  0; -EBADMSG, -ENOTSUP it does not; else it could not be tried. fail()
 * tells */
int kas_source_probe(const struct volume_remote *conf) MUST_CHECK;
/** kas_source_confirm() - does it hand this key out as its own?  No token is sent.  0; -EBADMSG another one, or by another name; -ENOENT it has
 * none of that kind; else it could not be asked, as remote_public_key().  fail() tells */
int kas_source_confirm(const struct volume_remote *conf) MUST_CHECK;
/** kas_key_hash() - SHA-256 of a public key (SPKI PEM), as 16 hex digits, for people to compare */
int kas_key_hash(const char *pem, char ret[static 17]) MUST_CHECK;

#endif
