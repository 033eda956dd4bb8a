/* SPDX-License-Identifier: Apache-2.0 */
#include "manifest_native.h"

#include <errno.h>
#include <stdio.h>

#include "encode.h"
#include "manifest_json.h"
#include "report.h"

#define SCHEMA "4.3.0"
#define MIME "application/octet-stream"
#define HEAD                                                                                                                \
	"{\"schemaVersion\":\"" SCHEMA "\",\"payload\":{\"type\":\"reference\",\"url\":\"0.payload\",\"protocol\":\"zip\"," \
	"\"isEncrypted\":true,\"mimeType\":\"" MIME "\"},\"encryptionInformation\":{\"type\":\"split\",\"keyAccess\":"
#define METHOD ",\"method\":{\"algorithm\":\"AES-256-GCM\",\"isStreamable\":true,\"iv\":\"\"},\"policy\":\""
#define ROOT "\",\"integrityInformation\":{\"rootSignature\":{\"alg\":\"HS256\",\"sig\":\""
#define SIZES "\"},\"segmentHashAlg\":\"GMAC\",\"segmentSizeDefault\":%u,\"encryptedSegmentSizeDefault\":%u,\"segments\":["
#define SEG_HEAD "{\"hash\":\""
#define SEG_SIZES "\",\"segmentSize\":%u,\"encryptedSegmentSize\":%u}"
#define END "]}}}"

#define LEN(literal) (sizeof(literal) - 1)
#define ROOT_TEXT BASE64_LEN(MAC_LEN)
#define HASH_TEXT BASE64_LEN(AEAD_TAG)
#define SIZES_MAX (sizeof(SIZES) + 20)
#define KEY_TEXT_MAX 4096
#define SEG_SIZES_MAX (sizeof(SEG_SIZES) + 20)

static size_t seg_sizes(char buf[static SEG_SIZES_MAX], uint32_t plain)
{
	return (size_t)snprintf(buf, SEG_SIZES_MAX, SEG_SIZES, (unsigned)plain, (unsigned)plain + AEAD_OVERHEAD);
}

static size_t default_sizes(char buf[static SIZES_MAX], uint32_t s)
{
	return (size_t)snprintf(buf, SIZES_MAX, SIZES, (unsigned)s, (unsigned)s + AEAD_OVERHEAD);
}

uint64_t native_len(size_t key_access_len, size_t policy_len, uint32_t s, uint64_t size)
{
	char buf[MAX(SIZES_MAX, SEG_SIZES_MAX)];
	uint64_t n = seg_count(size, s);
	uint64_t len = LEN(HEAD) + key_access_len + LEN(METHOD) + policy_len + LEN(ROOT) + ROOT_TEXT + LEN(END);

	len += default_sizes(buf, s);
	len += n * (LEN(SEG_HEAD) + HASH_TEXT) + (n - 1); /* commas */
	len += (n - 1) * seg_sizes(buf, s);
	return len + seg_sizes(buf, seg_plain(size, s, n - 1));
}

static uint8_t *put(uint8_t *p, const void *text, size_t len)
{
	memcpy(p, text, len);
	return p + len;
}

static uint8_t *put_seg(uint8_t *p, const uint8_t *tag, const char *sizes, size_t sizes_len)
{
	char hash[HASH_TEXT + 1];

	p = put(p, SEG_HEAD, LEN(SEG_HEAD));
	base64_encode(tag, AEAD_TAG, hash);
	p = put(p, hash, HASH_TEXT);
	return put(p, sizes, sizes_len);
}

uint8_t *native_write(struct part key_access, struct part policy, uint32_t s, uint64_t size, const uint8_t *tags,
		      const uint8_t root[static MAC_LEN], uint8_t *ret)
{
	char sizes[MAX(SIZES_MAX, SEG_SIZES_MAX)], sig[ROOT_TEXT + 1];
	uint64_t n = seg_count(size, s);
	uint8_t *p = ret;
	size_t len;

	p = put(p, HEAD, LEN(HEAD));
	p = put(p, key_access.p, key_access.len);
	p = put(p, METHOD, LEN(METHOD));
	p = put(p, policy.p, policy.len);
	p = put(p, ROOT, LEN(ROOT));
	base64_encode(root, MAC_LEN, sig);
	p = put(p, sig, ROOT_TEXT);
	len = default_sizes(sizes, s);
	p = put(p, sizes, len);
	len = seg_sizes(sizes, s);
	for (uint64_t i = 0; i + 1 < n; i++) {
		p = put_seg(p, tags + i * AEAD_TAG, sizes, len);
		*p++ = ',';
	}
	len = seg_sizes(sizes, seg_plain(size, s, n - 1));
	p = put_seg(p, tags + (n - 1) * AEAD_TAG, sizes, len);
	return put(p, END, LEN(END));
}

/* what is left of the text */
struct scan {
	const char *p, *end;
};

#define TAKE(sc, literal) take(sc, literal, LEN(literal))
static bool take(struct scan *sc, const char *text, size_t len)
{
	if ((size_t)(sc->end - sc->p) < len || memcmp(sc->p, text, len) != 0)
		return false;
	sc->p += len;
	return true;
}

/* a number without sign or leading zeros, at most @max */
static bool take_number(struct scan *sc, uint32_t max, uint32_t *ret)
{
	const char *start = sc->p;
	uint64_t v = 0;

	while (sc->p < sc->end && *sc->p >= '0' && *sc->p <= '9') {
		v = v * 10 + (uint64_t)(*sc->p++ - '0');
		if (v > max)
			return false;
	}
	if (sc->p == start || (*start == '0' && sc->p != start + 1))
		return false;
	*ret = (uint32_t)v;
	return true;
}

static bool take_base64(struct scan *sc, size_t text_len, void *ret, size_t n)
{
	size_t got;

	if ((size_t)(sc->end - sc->p) < text_len || base64_decode(sc->p, text_len, false, ret, n, &got) || got != n)
		return false;
	sc->p += text_len;
	return true;
}

/* an array, up to the bracket that closes it; whether it is good JSON is asked later */
static bool take_array(struct scan *sc, struct part *ret)
{
	const char *start = sc->p;
	unsigned depth = 0;
	bool quoted = false;

	if (sc->p == sc->end || *sc->p != '[')
		return false;
	for (; sc->p < sc->end; sc->p++) {
		char c = *sc->p;

		if (quoted) {
			if (c == '\\')
				sc->p++;
			else if (c == '"')
				quoted = false;
		} else if (c == '"') {
			quoted = true;
		} else if (c == '[' || c == '{') {
			depth++;
		} else if ((c == ']' || c == '}') && !--depth) {
			sc->p++;
			*ret = (struct part){start, (size_t)(sc->p - start)};
			return true;
		}
	}
	sc->p = sc->end; /* an escape may have led one beyond */
	return false;
}

static bool is_base64(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/' || c == '=';
}

static bool take_policy(struct scan *sc, struct part *ret)
{
	const char *end = memchr(sc->p, '"', (size_t)(sc->end - sc->p));

	if (!end)
		return false;
	for (const char *c = sc->p; c < end; c++)
		if (!is_base64(*c))
			return false;
	*ret = (struct part){sc->p, (size_t)(end - sc->p)};
	sc->p = end;
	return true;
}

/* all segments and the end of the text */
static bool take_segs(struct scan *sc, struct native_manifest *n)
{
	char full[SEG_SIZES_MAX];
	size_t full_len = seg_sizes(full, n->s);
	const size_t stride = LEN(SEG_HEAD) + HASH_TEXT + full_len + 1;
	uint8_t *tag = n->tags;
	uint32_t plain, stored;

	full[full_len] = ',';
	while ((size_t)(sc->end - sc->p) >= stride && !memcmp(sc->p + stride - full_len - 1, full, full_len + 1)) {
		if (!TAKE(sc, SEG_HEAD) || !take_base64(sc, HASH_TEXT, tag, AEAD_TAG))
			return false;
		sc->p += full_len + 1;
		tag += AEAD_TAG;
		n->n_segs++;
	}
	if (!TAKE(sc, SEG_HEAD) || !take_base64(sc, HASH_TEXT, tag, AEAD_TAG) || !TAKE(sc, "\",\"segmentSize\":") ||
	    !take_number(sc, n->s, &plain) || !TAKE(sc, ",\"encryptedSegmentSize\":") || !take_number(sc, UINT32_MAX, &stored) ||
	    !TAKE(sc, "}" END))
		return false;
	n->size = n->n_segs * n->s + plain;
	n->n_segs++;
	return stored == plain + AEAD_OVERHEAD && (plain || n->n_segs == 1) && sc->p == sc->end;
}

int native_scan(const char *text, size_t len, struct native_manifest *ret)
{
	struct scan sc = {text, text + len};
	struct native_manifest n = {0};
	uint32_t enc;

	if (!TAKE(&sc, HEAD) || !take_array(&sc, &n.key_access) || !TAKE(&sc, METHOD) || !take_policy(&sc, &n.policy) || !TAKE(&sc, ROOT) ||
	    !take_base64(&sc, ROOT_TEXT, n.root, MAC_LEN) || !TAKE(&sc, "\"},\"segmentHashAlg\":\"GMAC\",\"segmentSizeDefault\":") ||
	    !take_number(&sc, SEG_MAX, &n.s) || n.s < SEG_MIN || !TAKE(&sc, ",\"encryptedSegmentSizeDefault\":") ||
	    !take_number(&sc, UINT32_MAX, &enc) || enc != n.s + AEAD_OVERHEAD || !TAKE(&sc, ",\"segments\":["))
		return -EPROTO;
	/* no more segments than fit into the rest; the shortest has one-digit and two-digit sizes */
	n.tags = malloc(((size_t)(sc.end - sc.p) / (LEN(SEG_HEAD) + HASH_TEXT + LEN(SEG_SIZES) - 4 + 3) + 1) * AEAD_TAG);
	if (!n.tags)
		return -ENOMEM;
	if (!take_segs(&sc, &n)) {
		free(n.tags);
		return -EPROTO;
	}
	*ret = n;
	return 0;
}

/* A string without escapes but the line ends of a PEM.  What else there may be in one is for the general parser. */
static bool take_text(struct scan *sc, char **ret)
{
	const char *from, *p;
	char *to;

	if (!TAKE(sc, "\""))
		return false;
	for (from = p = sc->p; p < sc->end && *p != '"'; p++) {
		if (*p < 0x20 || *p > 0x7e || (*p == '\\' && (++p == sc->end || *p != 'n')))
			return false;
	}
	if (p == sc->end || p - from > KEY_TEXT_MAX)
		return false;
	to = *ret = malloc((size_t)(p - from) + 1);
	if (!to)
		return false;
	for (; from < p; from++)
		*to++ = *from == '\\' ? (from++, '\n') : *from;
	*to = 0;
	sc->p = p + 1;
	return true;
}

static bool take_wrapped(struct scan *sc, struct key_access *ka)
{
	CLEANUP_FREE char *text = NULL;
	size_t len;

	if (!take_text(sc, &text))
		return false;
	len = strlen(text);
	ka->wrapped = malloc(len + 1);
	return ka->wrapped && !base64_decode(text, len, false, ka->wrapped, len, &ka->wrapped_len);
}

/* One key access object as kas_wrap() writes it for one key; false: something else, or no memory. */
static bool take_keys(struct part array, struct key_access *ka)
{
	struct scan sc = {array.p, (const char *)array.p + array.len};
	bool ec = TAKE(&sc, "[{\"type\":\"ec-wrapped\",\"url\":");

	if (!ec && !TAKE(&sc, "[{\"type\":\"wrapped\",\"url\":"))
		return false;
	ka->type = ec ? WRAP_EC : WRAP_RSA;
	ka->type_name = strdup(ec ? "ec-wrapped" : "wrapped");
	ka->protocol = strdup("kas");
	ka->sid = strdup("");
	if (!ka->type_name || !ka->protocol || !ka->sid || !take_text(&sc, &ka->url) || !TAKE(&sc, ",\"protocol\":\"kas\",\"kid\":") ||
	    !take_text(&sc, &ka->kid) || !TAKE(&sc, ",\"wrappedKey\":") || !take_wrapped(&sc, ka) ||
	    !TAKE(&sc, ",\"policyBinding\":{\"alg\":\"HS256\",\"hash\":") || !take_text(&sc, &ka->binding) ||
	    !TAKE(&sc, "},\"schemaVersion\":\"1.0\""))
		return false;
	if (ec ? !TAKE(&sc, ",\"ephemeralPublicKey\":") || !take_text(&sc, &ka->ephemeral_pem) : !(ka->ephemeral_pem = strdup("")))
		return false;
	return TAKE(&sc, "}]") && sc.p == sc.end;
}

int native_key_access(struct part array, struct manifest *m)
{
	m->ka = calloc(1, sizeof(*m->ka));
	if (!m->ka)
		return -ENOMEM;
	m->n_ka = 1;
	if (take_keys(array, m->ka))
		return 0;
	manifest_keys_free(m);
	return -ENOENT;
}

static char *dup_part(struct part t)
{
	return strndup(t.p ? t.p : "", t.len);
}

int native_manifest_of(struct native_manifest *n, struct manifest **ret)
{
	struct manifest *m CLEANUP(manifest_cleanup) = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	m->schema_version = strdup(SCHEMA);
	m->mime_type = strdup(MIME);
	m->policy = dup_part(n->policy);
	m->key_access_text = dup_part(n->key_access);
	if (!m->schema_version || !m->mime_type || !m->policy || !m->key_access_text)
		return -ENOMEM;
	err = native_key_access(n->key_access, m);
	if (err == -ENOENT)
		err = manifest_key_access(n->key_access, m);
	if (err)
		return err;
	memcpy(m->root_sig, n->root, MAC_LEN);
	m->hash_len = AEAD_TAG;
	m->hashes = STEAL(n->tags);
	m->n_segs = n->n_segs;
	m->seg_default = n->s;
	m->size = n->size;
	*ret = STEAL(m);
	return 0;
}
