/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The general parser.  The segments are cut out of the text and handed to jansson one at a time, so that a manifest with a million of them
 * takes no more memory than its hashes.
 */
#include "manifest.h"

#include <errno.h>

#include "encode.h"
#include "manifest_json.h"
#include "manifest_native.h"
#include "report.h"

#define TEXT_LIMIT ((size_t)64 << 20)
#define REST_LIMIT ((size_t)8 << 20) /* without the segments */
#define POLICY_MAX ((size_t)1 << 20)
#define MIME_MAX 1024
#define SEG_PLAIN_MAX ((json_int_t)128 << 20) /* a segment is read into memory whole */

static void json_cleanup(json_t **j)
{
	json_decref(*j);
}

/* member @key must be the string @want */
static int expect(const json_t *obj, const char *key, const char *want)
{
	const json_t *v = json_object_get(obj, key);
	char text[PRINTABLE_LEN];

	if (json_is_string(v) && json_string_length(v) == strlen(want) && !strcmp(json_string_value(v), want))
		return 0;
	if (!json_is_string(v))
		return fail(-EPROTO, "the manifest's %s is missing or no string", key);
	return fail(-ENOTSUP, "the manifest's %s is \"%s\", not \"%s\"", key, printable(json_string_value(v), text), want);
}

static int size_member(const json_t *obj, const char *key, bool needed, uint32_t dflt, uint32_t *ret)
{
	const json_t *v = json_member(obj, key);

	if (!v && !needed) {
		*ret = dflt;
		return 0;
	}
	if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > SEG_PLAIN_MAX + AEAD_OVERHEAD)
		return fail(-EPROTO, "the manifest's %s is not a whole number from 0 to %lld", key,
			    (long long)(SEG_PLAIN_MAX + AEAD_OVERHEAD));
	*ret = (uint32_t)json_integer_value(v);
	return 0;
}

static int payload_parse(const json_t *top, struct manifest *m)
{
	const json_t *p = json_object_get(top, "payload");
	const char *protocol = json_string_value(json_object_get(p, "protocol"));
	int err;

	if (!json_is_object(p))
		return fail(-EPROTO, "the manifest's payload is not an object");
	err = expect(p, "type", "reference");
	if (err)
		return err;
	if (!protocol || strcmp(protocol, "zipstream") != 0) {
		err = expect(p, "protocol", "zip");
		if (err)
			return err;
	}
	if (!json_is_true(json_object_get(p, "isEncrypted")))
		return fail(-EPROTO, "the manifest's payload.isEncrypted is not true");
	return json_text(p, "mimeType", false, MIME_MAX, &m->mime_type);
}

static int root_parse(const json_t *ii, struct manifest *m)
{
	const json_t *root = json_object_get(ii, "rootSignature");
	const json_t *sig = json_object_get(root, "sig");
	char text[2 * MAC_LEN];
	size_t len;
	int err;

	if (!json_is_object(root))
		return fail(-EPROTO, "the manifest's rootSignature is not an object");
	err = expect(root, "alg", "HS256");
	if (err == -ENOTSUP) /* "GMAC", which the format knows, is the last segment's tag alone */
		return fail(err, "the manifest's rootSignature.alg is not HS256: nothing else protects the list of segments");
	if (err)
		return err;
	if (!json_is_string(sig) || base64_decode(json_string_value(sig), json_string_length(sig), true, text, sizeof(text), &len))
		return fail(-EPROTO, "the manifest's rootSignature.sig is not base64 of 32 bytes or of 64 hex digits");
	m->hex = len == 2 * MAC_LEN;
	if (!m->hex && len == MAC_LEN)
		memcpy(m->root_sig, text, MAC_LEN);
	else if (hex_decode(text, len, m->root_sig, MAC_LEN))
		return fail(-EPROTO, "the manifest's rootSignature.sig is not base64 of 32 bytes or of 64 hex digits");
	return 0;
}

static int integrity_parse(const json_t *ei, struct manifest *m)
{
	const json_t *ii = json_object_get(ei, "integrityInformation");
	const char *alg = json_string_value(json_object_get(ii, "segmentHashAlg"));
	uint32_t enc;
	int err;

	if (!json_is_object(ii))
		return fail(-EPROTO, "the manifest's integrityInformation is not an object");
	err = root_parse(ii, m);
	if (err)
		return err;
	m->seg_hs256 = alg && !strcmp(alg, "HS256");
	if (!m->seg_hs256 && json_member(ii, "segmentHashAlg")) {
		err = expect(ii, "segmentHashAlg", "GMAC");
		if (err)
			return err;
	}
	m->hash_len = m->seg_hs256 ? MAC_LEN : AEAD_TAG;
	err = size_member(ii, "segmentSizeDefault", true, 0, &m->seg_default);
	if (!err)
		err = size_member(ii, "encryptedSegmentSizeDefault", true, 0, &enc);
	if (err)
		return err;
	if (!m->seg_default)
		return fail(-EPROTO, "the manifest's segmentSizeDefault is 0");
	if (enc != m->seg_default + AEAD_OVERHEAD)
		return fail(-EPROTO, "the manifest's segmentSizeDefault (%u) and encryptedSegmentSizeDefault (%u) do not differ by %d",
			    (unsigned)m->seg_default, (unsigned)enc, AEAD_OVERHEAD);
	return 0;
}

static int encryption_parse(const json_t *top, struct manifest *m)
{
	const json_t *ei = json_object_get(top, "encryptionInformation");
	int err;

	if (!json_is_object(ei))
		return fail(-EPROTO, "the manifest's encryptionInformation is not an object");
	err = expect(ei, "type", "split");
	if (!err)
		err = expect(json_object_get(ei, "method"), "algorithm", "AES-256-GCM");
	if (!err)
		err = json_text(ei, "policy", true, POLICY_MAX, &m->policy);
	return err ? err : integrity_parse(ei, m);
}

static int hash_decode(const char *base64, size_t base64_len, const struct manifest *m, uint8_t *ret)
{
	char text[2 * MAC_LEN];
	size_t len;

	if (base64_decode(base64, base64_len, true, text, sizeof(text), &len))
		return -EPROTO;
	if (m->hex)
		return hex_decode(text, len, ret, m->hash_len);
	if (len != m->hash_len)
		return -EPROTO;
	memcpy(ret, text, len);
	return 0;
}

static bool take(struct part *t, const char *text, size_t len)
{
	if (t->len < len || memcmp(t->p, text, len) != 0)
		return false;
	*t = (struct part){(const char *)t->p + len, t->len - len};
	return true;
}
#define TAKE(t, literal) take(t, literal, sizeof(literal) - 1)

/* a number in its one spelling, bounded as size_member() does */
static bool take_size(struct part *t, uint32_t *ret)
{
	const char *c = t->p;
	uint64_t v = 0;
	size_t n = 0;

	while (n < t->len && c[n] >= '0' && c[n] <= '9' && n < 10)
		v = v * 10 + (uint64_t)(c[n++] - '0');
	if (!n || (c[0] == '0' && n > 1) || v > SEG_PLAIN_MAX + AEAD_OVERHEAD)
		return false;
	*ret = (uint32_t)v;
	*t = (struct part){c + n, t->len - n};
	return true;
}

/* The spelling that nearly all writers use, done without a tree; false: let jansson look at it, be it good or bad. */
static bool segment_fast(struct part t, const struct manifest *m, uint8_t *hash, uint32_t *plain, uint32_t *enc)
{
	const char *quote;
	size_t len;

	*plain = m->seg_default;
	*enc = m->seg_default + AEAD_OVERHEAD;
	if (!TAKE(&t, "{\"hash\":\""))
		return false;
	quote = memchr(t.p, '"', t.len);
	len = quote ? (size_t)(quote - (const char *)t.p) : 0;
	if (!quote || hash_decode(t.p, len, m, hash))
		return false;
	t = (struct part){quote + 1, t.len - len - 1};
	if (TAKE(&t, ",\"segmentSize\":") && !take_size(&t, plain))
		return false;
	if (TAKE(&t, ",\"encryptedSegmentSize\":") && !take_size(&t, enc))
		return false;
	return t.len == 1 && *(const char *)t.p == '}';
}

static int segment_slow(struct part text, uint64_t i, const struct manifest *m, uint8_t *hash, uint32_t *plain, uint32_t *enc)
{
	json_t *seg CLEANUP(json_cleanup) = json_load(text, "a segment of the manifest");
	const json_t *h = json_object_get(seg, "hash");
	int err;

	if (!json_is_object(seg))
		return seg ? fail(-EPROTO, "the manifest's segment %llu is not an object", (unsigned long long)i) : -EPROTO;
	if (!json_is_string(h) || hash_decode(json_string_value(h), json_string_length(h), m, hash))
		return fail(-EPROTO, "the hash of the manifest's segment %llu is not base64 of %zu bytes%s", (unsigned long long)i,
			    m->hash_len, m->hex ? " in hex" : "");
	err = size_member(seg, "segmentSize", false, m->seg_default, plain);
	return err ? err : size_member(seg, "encryptedSegmentSize", false, m->seg_default + AEAD_OVERHEAD, enc);
}

static int segment_parse(struct part text, uint64_t i, struct manifest *m)
{
	uint8_t *hash = m->hashes + i * m->hash_len;
	uint32_t plain, enc;
	int err;

	if (!segment_fast(text, m, hash, &plain, &enc)) {
		err = segment_slow(text, i, m, hash, &plain, &enc);
		if (err)
			return err;
	}
	if (enc != plain + AEAD_OVERHEAD)
		return fail(-EPROTO, "the sizes %u and %u of the manifest's segment %llu do not differ by %d", (unsigned)plain,
			    (unsigned)enc, (unsigned long long)i, AEAD_OVERHEAD);
	m->plain_start[i + 1] = m->plain_start[i] + plain;
	return 0;
}

/* every segment is seg_default but the last, which may be shorter */
static bool sizes_uniform(const struct manifest *m)
{
	for (uint64_t i = 0; i < m->n_segs; i++) {
		uint64_t plain = m->plain_start[i + 1] - m->plain_start[i];

		if (plain > m->seg_default || (plain != m->seg_default && i + 1 < m->n_segs))
			return false;
	}
	return true;
}

static int segments_parse(struct part array, struct manifest *m)
{
	struct part each;
	size_t pos = 0;
	uint64_t n = 0;
	int more, err;

	while ((more = json_next(array, &pos, &each)) > 0)
		n++;
	if (more < 0)
		return fail(-EPROTO, "the manifest's segments are not an array");
	/* n is bounded by the length of the text, so no product overflows; nor do the sums of sizes of at most 2^27 */
	m->hashes = malloc(n * m->hash_len + 1);
	m->plain_start = calloc(n + 1, sizeof(*m->plain_start));
	if (!m->hashes || !m->plain_start)
		return -ENOMEM;
	pos = 0;
	for (uint64_t i = 0; i < n && json_next(array, &pos, &each) > 0; i++) {
		err = segment_parse(each, i, m);
		if (err)
			return err;
	}
	m->n_segs = n;
	m->size = m->plain_start[n];
	if (sizes_uniform(m)) {
		free(m->plain_start);
		m->plain_start = NULL;
	}
	return 0;
}

/* the tree of the manifest with an empty segments array; @ret_segs, @ret_ka: where these stand in the text */
static int top_load(struct part text, struct part *ret_segs, struct part *ret_ka, json_t **ret)
{
	struct part ei, ii, segs, ka;
	char *rest CLEANUP_FREE = NULL;
	size_t before, after;
	json_t *top;

	if (json_find(text, "encryptionInformation", &ei) || json_find(ei, "integrityInformation", &ii) ||
	    json_find(ii, "segments", &segs) || json_find(ei, "keyAccess", &ka))
		return fail(-EPROTO, "the manifest has no encryptionInformation with keyAccess and integrityInformation.segments");
	if (segs.len < 2 || *(const char *)segs.p != '[')
		return fail(-EPROTO, "the manifest's segments are not an array");
	before = (size_t)((const char *)segs.p - (const char *)text.p);
	after = text.len - before - segs.len;
	if (before + after > REST_LIMIT)
		return fail(-EPROTO, "the manifest is larger than %zu bytes without its segments", REST_LIMIT);
	rest = malloc(before + 2 + after);
	if (!rest)
		return -ENOMEM;
	memcpy(rest, text.p, before);
	memcpy(rest + before, "[]", 2);
	memcpy(rest + before + 2, (const char *)segs.p + segs.len, after);
	top = json_load((struct part){rest, before + 2 + after}, "the manifest");
	if (!top)
		return -EPROTO;
	*ret_segs = segs;
	*ret_ka = ka;
	*ret = top;
	return 0;
}

static int manifest_parse_any(struct part text, struct manifest **ret)
{
	struct manifest *m CLEANUP(manifest_cleanup) = calloc(1, sizeof(*m));
	json_t *top CLEANUP(json_cleanup) = NULL;
	struct part segs, ka;
	int err;

	if (!m)
		return -ENOMEM;
	if (text.len >= 3 && !memcmp(text.p, "\xef\xbb\xbf", 3)) /* a byte order mark: JavaScript's and Python's readers pass over it */
		text = (struct part){(const char *)text.p + 3, text.len - 3};
	if (text.len > TEXT_LIMIT)
		return fail(-EPROTO, "the manifest is larger than %zu bytes", TEXT_LIMIT);
	err = top_load(text, &segs, &ka, &top);
	if (!err)
		err = json_text(top, "schemaVersion", false, MIME_MAX, &m->schema_version);
	if (!err)
		err = payload_parse(top, m);
	if (!err)
		err = encryption_parse(top, m);
	if (!err)
		err = manifest_key_access(ka, m);
	if (!err)
		err = segments_parse(segs, m);
	if (err)
		return err;
	m->key_access_text = strndup(ka.p, ka.len);
	if (!m->key_access_text)
		return -ENOMEM;
	*ret = STEAL(m);
	return 0;
}

int manifest_parse(const char *text, size_t len, bool native_only, struct manifest **ret)
{
	struct native_manifest n;
	int err = native_scan(text, len, &n);

	if (!err) {
		err = native_manifest_of(&n, ret);
		if (err)
			free(n.tags);
		return err;
	}
	if (err != -EPROTO)
		return err;
	if (native_only)
		return fail(err, "the manifest does not have the layout that tdfs writes");
	return manifest_parse_any((struct part){text, len}, ret);
}
