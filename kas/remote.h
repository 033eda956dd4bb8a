/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One remote KAS over HTTPS: who it is trusted to be, who we are to it, and the two things asked of it.  Source: OpenTDF KAS protocol
 * (Connect JSON; REST v2 for older servers); PROTOCOL.md has what is sent and how answers are read.
 *
 * A remote is a trust set: one origin, one issuer, one audience, one CA or pin.  Its tokens go to its own origin and to no other, and that
 * is decided before any name is resolved. Thread-safe.  Make it after the last fork().  A call blocks at most for the total time limit;
 * while the circuit breaker is open it fails at once.
 */
#ifndef TDFS_REMOTE_H
#define TDFS_REMOTE_H

#include "pubkey.h"

#define REMOTE_BULK_MAX 500 /* keys in one request */

struct remote; /* opaque */

/* How the access token is come by: exactly one of secret_file, token_file, session_file; none of them = public calls only. */
struct remote_config {
	const char *url;          /* as key access objects have it: https://HOST[:PORT][/PATH]; http only to a loopback address */
	const char *issuer;       /* OIDC issuer, exactly as its discovery document spells it; not needed for token_file */
	const char *audience;     /* asked for, and demanded of a token that says whom it is for; NULL: none */
	const char *client_id;    /* of OIDC; not needed for token_file */
	const char *secret_file;  /* client credentials: file (0600) with the client's secret */
	const char *token_file;   /* file (0600) with an access token that somebody else keeps fresh; read again when it changes */
	const char *session_file; /* what `tdfs login` left: refresh token and DPoP key (0600) */
	const char *ca_file;      /* PEM, for KAS and issuer, instead of the system's; NULL: the system's */
	const char *spki_pin;     /* of the KAS, besides the CA: "sha256//BASE64", several with ';' between; NULL: none */
	const char *allow;  /* private and link-local addresses that may be connected to: "10.0.0.0/8 192.168.1.7 fd00::/8"; NULL: none */
	unsigned total_ms;  /* of one call with all its tries; 0: 10 s */
	unsigned idle_ms;   /* without a byte of answer; 0: 5 s; rounded up to seconds */
	bool dpop_required; /* refuse to send a token that is not bound to our key */
	bool session_rsa;   /* ask for keys under an RSA key; default EC, RSA by itself when the KAS cannot do EC */
};

/** remote_new() - check and copy a configuration; no network, but the files named are looked at (0600, readable)
 * 0; -EINVAL URL, pin, address list or combination; -EPERM a secret that others can read; -ENOENT, -errno a file; -EPROTO not a session;
 * -ENOMEM.  fail() says which.  Free with remote_free(). */
int remote_new(const struct remote_config *c, struct remote **ret) MUST_CHECK;
/** remote_free() - no call may be running any more; NULL is fine */
void remote_free(struct remote *r);

/** remote_serves() - is this key access URL at exactly our origin (scheme, host, port)?  No network. */
bool remote_serves(const struct remote *r, const char *url);
/** remote_url() - as configured */
const char *remote_url(const struct remote *r);

/** remote_public_key() - the key to wrap new files for.  No token is sent.
 * @algorithm: "ec:secp256r1", "ec:secp384r1", "ec:secp521r1", "rsa:2048", "rsa:4096"; the answer is checked to be a key of that kind
 * @ret_pem: SPKI PEM; @ret_kid: not empty; both malloc'd
 * 0; -ENOENT the KAS has no such key; -ETIMEDOUT; -EIO; -EPROTO not such a key; -ENOMEM.  fail() says what. */
int remote_public_key(struct remote *r, const char *algorithm, char **ret_pem, char **ret_kid) MUST_CHECK;

/** remote_well_known() - the platform's configuration: a JSON object (platform_issuer, base_key...), as text, malloc'd.  No token is sent.
 * 0; -ENOENT; -ETIMEDOUT; -EIO; -EPROTO; -ENOMEM */
int remote_well_known(struct remote *r, char **ret) MUST_CHECK;

/** remote_base_key() - the key that the platform wants new files wrapped for, if it names one of this KAS (the same origin) that we can use
 * @ret_algorithm: as above; all three malloc'd.  No token is sent.  0; -ENOENT there is none such, else as remote_public_key() */
int remote_base_key(struct remote *r, char **ret_algorithm, char **ret_pem, char **ret_kid) MUST_CHECK;

#define REMOTE_MAPPED_MAX 16
#define REMOTE_ATTRIBUTES_MAX 64
struct remote_mapped { /* a key that files with some attributes are to be made for */
	char *url;                   /* of its KAS, as the platform spells it */
	char *algorithm, *kid, *pem; /* as remote_public_key(); all NULL: whichever key that KAS has, the platform names none */
	unsigned split;              /* of the same number: alternatives; of each number from 0 up one is needed */
};
void remote_mapped_clear(struct remote_mapped *m);
void remote_mapped_free(struct remote_mapped *m, size_t n);
/** remote_mappings() - does the platform know these attributes (https://NAMESPACE/attr/NAME/value/VALUE), and for which keys does it want files with them made?
 * A key of the value counts, else those of its definition, else of the namespace; rules make the splits (PROTOCOL.md).  A token is sent; at most two requests.
 * @ret: in the order of their splits; none: it has no wish.  0; -ENOENT it does not know one of them; -ENOTSUP a key of a kind that is not supported; -ENOSPC more than
 * REMOTE_MAPPED_MAX keys; -EACCES it does not tell us; -ETIMEDOUT, -EIO, -EPROTO it could not be asked; -ENOMEM.  fail() says which. */
int remote_mappings(struct remote *r, const char *const *fqns, size_t n, struct remote_mapped **ret, size_t *ret_n) MUST_CHECK;

/** remote_registry() - the KASes that the platform knows: [{"uri","name"?,"keys":[{"kid","algorithm"},...]},...] as JSON text, malloc'd.  A token is sent.
 * 0; -ENOENT it has no registry; -EFBIG more than 1,000; -EACCES, -ETIMEDOUT, -EIO, -EPROTO, -ENOMEM */
int remote_registry(struct remote *r, char **ret) MUST_CHECK;

struct remote_item {
	const struct key_access *ka; /* in: must be one that remote_serves() */
	const char *policy;          /* in: base64, as in the manifest */
	int err;                     /* out: as below */
	struct secret *share;        /* out: owned by the caller when err is 0, else NULL */
	char text[200];              /* out: why not */
};

/** remote_rewrap() - ask for the keys of some files
 * At most REMOTE_BULK_MAX per request; files with and without attributes apart; files that could spoil a request for others go alone; a
 * request that fails as a whole is split. The policy binding of every share is checked.
 * @ms: how long it may take, if that is less than the total time limit; 0: that limit.
 * Return: 0 = every item has its own err: 0; -EACCES
 * refused (by the KAS for this policy, or our login is no longer accepted); -ETIMEDOUT and -EIO it could not be asked or could not decide;
 * -EBADMSG key access object, policy or answer forged or damaged; -ENOTSUP a kind of key that it does not do.  -ENOMEM: nothing was asked.
 */
int remote_rewrap(struct remote *r, struct remote_item *items, size_t n, unsigned ms) MUST_CHECK;

enum remote_state { REMOTE_CLOSED, REMOTE_OPEN, REMOTE_HALF_OPEN }; /* of the breaker; closed = all is well */

struct remote_stats {
	enum remote_state state;
	unsigned retry_in_ms;      /* while open: until the next attempt */
	uint64_t requests;         /* HTTP requests to the KAS, tries and public calls included */
	uint64_t token_requests;   /* to the issuer */
	uint64_t keys, denied;     /* items that came back with 0, with -EACCES */
	uint64_t failures;         /* calls that ended in an outage */
	uint64_t fast_failures;    /* calls refused by the open breaker */
	uint32_t last_us, mean_us; /* answer times; mean = moving average over some 16 requests */
	uint32_t max_us;
	char last_error[200]; /* of the last outage, "" if none yet */
};
/** remote_stats() - never blocks on the network */
void remote_stats(struct remote *r, struct remote_stats *ret);

#endif
