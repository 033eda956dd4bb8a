/* SPDX-License-Identifier: Apache-2.0 */
#include "volume_file.h"

#include <jansson.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "encode.h"
#include "redo.h"
#include "report.h"
#include "slot_kas.h"

#define VERSION 1
#define URL_MAX 1024
#define MAC_HEX (2 * MAC_LEN)

static const char mac_before[] = "\"mac\":\"", text_end[] = "\"}\n";
static const char *const kind_names[] = {[SLOT_PASSPHRASE] = "passphrase", [SLOT_RECOVERY] = "recovery", [SLOT_KEYFILE] = "keyfile", [SLOT_KAS] = "kas"};

static void json_cleanup(json_t **j)
{
	json_decref(*j);
}
#define CLEANUP_JSON CLEANUP(json_cleanup)

/* Offset of the 64 hex digits; 0 if the text does not end as it must. */
static size_t mac_offset(const char *text, size_t len)
{
	const size_t before = sizeof(mac_before) - 1, behind = sizeof(text_end) - 1;
	size_t at = len - MAC_HEX - behind;

	if (len < before + MAC_HEX + behind || memcmp(text + at - before, mac_before, before) ||
	    memcmp(text + len - behind, text_end, behind))
		return 0;
	return at;
}

static int text_mac(const char *text, size_t covered, const struct secret *k_conf, char ret_hex[static MAC_HEX + 1])
{
	uint8_t mac[MAC_LEN];
	int err = hmac_sha256(k_conf->b, SECRET_LEN, &(struct part){text, covered}, 1, mac);

	if (!err)
		hex_encode(mac, sizeof(mac), ret_hex);
	return err;
}

int volume_text_check(const char *text, size_t len, const struct secret *k_conf)
{
	size_t at = mac_offset(text, len);
	char hex[MAC_HEX + 1];
	int err;

	if (!at)
		return fail(-EBADMSG, "its end is damaged");
	err = text_mac(text, at, k_conf, hex);
	if (err)
		return err;
	/* as text, so that not even the case of a digit may differ */
	return equal_ct(hex, text + at, MAC_HEX) ? 0 : fail(-EBADMSG, "damaged or changed: its MAC does not match");
}

/* Readers of single members: bounded, exact in type, -EPROTO with the member's name. */
static int get_int(const json_t *o, const char *name, int64_t min, int64_t max, int64_t *ret)
{
	json_t *j = json_object_get(o, name);
	int64_t v = json_integer_value(j);

	if (!json_is_integer(j) || v < min || v > max)
		return fail(-EPROTO, "\"%s\" is missing, no whole number or not in %" PRId64 "..%" PRId64, name, min, max);
	*ret = v;
	return 0;
}

static int get_text(const json_t *o, const char *name, size_t max, const char **ret)
{
	const char *s = json_string_value(json_object_get(o, name));

	if (!s || strlen(s) > max)
		return fail(-EPROTO, "\"%s\" is missing, no text or longer than %zu", name, max);
	*ret = s;
	return 0;
}

static int get_bytes(const json_t *o, const char *name, uint8_t *p, size_t len)
{
	const char *s = "";
	size_t n;
	int err = get_text(o, name, BASE64_LEN(len), &s);

	if (!err && (base64_decode(s, strlen(s), false, p, len, &n) || n != len))
		err = fail(-EPROTO, "\"%s\" is not the base64 of %zu bytes", name, len);
	return err;
}

static int dup_text(const json_t *o, const char *name, size_t max, char **ret)
{
	const char *s = "";
	int err = get_text(o, name, max, &s);

	if (err)
		return err;
	*ret = strdup(s);
	return *ret ? 0 : -ENOMEM;
}

/* Nothing but the @n members named: what we do not know we must not ignore. */
static int only_members(json_t *o, const char *where, const char *const *names, size_t n)
{
	const char *key;
	json_t *value;

	if (!json_is_object(o))
		return fail(-EPROTO, "%s is no JSON object", where);
	json_object_foreach(o, key, value)
	{
		bool known = false;

		for (size_t i = 0; i < n && !known; i++)
			known = strcmp(key, names[i]) == 0;
		if (!known)
			return fail(-ENOTSUP,
				    "%s has a member \"%.40s\" that this version does not know: it is damaged, or made by a later tdfs",
				    where, key);
	}
	return 0;
}

static int parse_uuid(const json_t *o, uint8_t id[static ID_LEN])
{
	char hex[37] = "", back[37] = "";
	const char *s = "";
	size_t n = 0;
	int err = get_text(o, "volume_id", 36, &s);

	if (err)
		return err;
	for (const char *c = s; *c; c++)
		if (*c != '-')
			hex[n++] = *c;
	if (hex_decode(hex, n, id, ID_LEN) == 0)
		uuid_format(id, back);
	return strcmp(s, back) == 0 ? 0 : fail(-EPROTO, "\"volume_id\" is no UUID");
}

static int parse_kas(json_t *o, struct volume *v)
{
	static const char *const names[] = {"kid", "url", "old"};
	json_t *kas = json_object_get(o, "kas");
	int err = only_members(kas, "\"kas\"", names, ARRAY_SIZE(names));

	if (!err)
		err = dup_text(kas, "kid", VOLUME_KID_MAX, &v->kas_kid);
	if (!err && !volume_kid_is_safe(v->kas_kid))
		err = fail(-EPROTO, "\"kid\" has characters that a file name here may not have");
	if (!err)
		err = dup_text(kas, "url", URL_MAX, &v->kas_url);
	return err ? err : volume_kas_old_parse(json_object_get(kas, "old"), v);
}

static int parse_kdf(json_t *o, struct slot *s)
{
	static const char *const names[] = {"log_n", "r", "p"};
	json_t *kdf = json_object_get(o, "scrypt");
	int64_t log_n = 0, r = 0, p = 0;
	int err = only_members(kdf, "\"scrypt\"", names, ARRAY_SIZE(names));

	if (!err)
		err = get_int(kdf, "log_n", SCRYPT_LOGN_MIN, SCRYPT_LOGN_MAX, &log_n);
	if (!err)
		err = get_int(kdf, "r", 8, 8, &r);
	if (!err)
		err = get_int(kdf, "p", 1, 4, &p);
	s->log_n = (unsigned)log_n;
	s->r = (unsigned)r;
	s->p = (unsigned)p;
	return err;
}

static int parse_slot(json_t *o, struct slot *s)
{
	static const char *const names[] = {"id", "kind", "label", "created", "salt", "wrapped", "scrypt", "kas"};
	int64_t id = 0;
	const char *kind = "", *label = "";
	size_t k = 0;
	int err = only_members(o, "a key slot", names, ARRAY_SIZE(names));

	if (!err)
		err = get_int(o, "id", 0, SLOT_MAX - 1, &id);
	if (!err)
		err = get_text(o, "kind", 32, &kind);
	if (!err)
		err = get_text(o, "label", SLOT_LABEL_MAX, &label);
	if (!err)
		err = get_int(o, "created", 0, INT64_MAX, &s->created);
	if (!err)
		err = get_bytes(o, "salt", s->salt, sizeof(s->salt));
	if (!err)
		err = get_bytes(o, "wrapped", s->wrapped, sizeof(s->wrapped));
	if (err)
		return err;
	while (k < ARRAY_SIZE(kind_names) && strcmp(kind, kind_names[k]))
		k++;
	if (k == ARRAY_SIZE(kind_names))
		return fail(-ENOTSUP, "a key slot of kind \"%.32s\", which this version does not know", kind);
	s->id = (uint8_t)id;
	s->kind = (enum slot_kind)k;
	snprintf(s->label, sizeof(s->label), "%s", label);
	if (json_object_get(o, "scrypt") && s->kind != SLOT_PASSPHRASE)
		return fail(-EPROTO, "key slot %u has scrypt numbers and no passphrase", s->id);
	if (json_object_get(o, "kas") && s->kind != SLOT_KAS)
		return fail(-EPROTO, "key slot %u is of no KAS and has something for one", s->id);
	return s->kind == SLOT_PASSPHRASE ? parse_kdf(o, s) : s->kind == SLOT_KAS ? slot_kas_parse(json_object_get(o, "kas"), s) : 0;
}

static int parse_slots(json_t *o, struct volume *v)
{
	json_t *list = json_object_get(o, "slots");
	size_t n = json_array_size(list);

	if (n < 1 || n > SLOT_MAX)
		return fail(-EPROTO, "%zu key slots: 1 to %d are right", n, SLOT_MAX);
	v->slots = calloc(n, sizeof(*v->slots));
	if (!v->slots)
		return -ENOMEM;
	v->n_slots = n;
	for (size_t i = 0; i < n; i++) {
		int err = parse_slot(json_array_get(list, i), &v->slots[i]);

		if (err)
			return err;
		for (size_t j = 0; j < i; j++)
			if (v->slots[j].id == v->slots[i].id)
				return fail(-EPROTO, "two key slots have the number %u", v->slots[i].id);
	}
	return 0;
}

static int parse_members(json_t *o, struct volume *v)
{
	static const char *const names[] = {"version",  "volume_id", "created", "names", "segment_size",
					    "log_half", "policy",    "kas",     "slots", "remotes", "policies", "plans", "mac"};
	int64_t version = 0, seg = 0, half = 0;
	int err = get_int(o, "version", 1, INT64_MAX, &version);

	if (!err && version > VERSION)
		return fail(-ENOTSUP, "it is of version %" PRId64 ", this tdfs knows %d: use a later tdfs", version, VERSION);
	if (!err)
		err = only_members(o, VOLUME_JSON, names, ARRAY_SIZE(names));
	if (!err)
		err = parse_uuid(o, v->id);
	if (!err)
		err = get_int(o, "created", 0, INT64_MAX, &v->created);
	if (!err)
		err = dup_text(o, "names", 32, &v->names);
	if (!err && strcmp(v->names, "plain"))
		return fail(-ENOTSUP, "names are stored in the form \"%s\", which this version does not know", v->names);
	if (!err)
		err = get_int(o, "segment_size", SEG_MIN, SEG_MAX, &seg);
	if (!err)
		err = get_int(o, "log_half", REDO_HALF_MIN, REDO_HALF_MAX, &half);
	if (!err)
		err = dup_text(o, "policy", VOLUME_POLICY_MAX, &v->policy);
	if (!err)
		err = parse_kas(o, v);
	if (!err)
		err = volume_remotes_parse(json_object_get(o, "remotes"), v);
	if (!err)
		err = volume_policies_parse(json_object_get(o, "policies"), v);
	if (!err)
		err = volume_plans_parse(json_object_get(o, "plans"), v);
	if (!err)
		err = parse_slots(o, v);
	v->segment_size = (uint32_t)seg;
	v->log_half = (uint64_t)half;
	return err;
}

int volume_text_parse(const char *text, size_t len, struct volume *v)
{
	CLEANUP_JSON json_t *o = NULL;
	json_error_t e;

	if (len > VOLUME_TEXT_MAX || !mac_offset(text, len))
		return fail(-EPROTO, "cut short, or not written by tdfs");
	o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
	if (!o)
		return fail(-EPROTO, "line %d: %s", e.line, e.text);
	return parse_members(o, v);
}

/* @s as a JSON string with its quotes */
static void put_quoted(FILE *f, const char *s, bool *bad)
{
	CLEANUP_JSON json_t *j = json_string(s);
	CLEANUP_FREE char *text = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL;

	*bad |= !text;
	fputs(text ? text : "", f);
}

static void put_slot(FILE *f, const struct slot *s, bool *bad)
{
	char salt[BASE64_LEN(sizeof(s->salt)) + 1], wrapped[BASE64_LEN(sizeof(s->wrapped)) + 1];

	base64_encode(s->salt, sizeof(s->salt), salt);
	base64_encode(s->wrapped, sizeof(s->wrapped), wrapped);
	fprintf(f, "{\"id\":%u,\"kind\":\"%s\",\"label\":", s->id, kind_names[s->kind]);
	put_quoted(f, s->label, bad);
	fprintf(f, ",\"created\":%" PRId64 ",\"salt\":\"%s\",\"wrapped\":\"%s\"", s->created, salt, wrapped);
	if (s->kind == SLOT_PASSPHRASE)
		fprintf(f, ",\"scrypt\":{\"log_n\":%u,\"r\":%u,\"p\":%u}", s->log_n, s->r, s->p);
	if (s->kind == SLOT_KAS) {
		fputs(",\"kas\":{\"access\":", f);
		put_quoted(f, s->kas->key_access_text, bad);
		fputs(",\"policy\":", f);
		put_quoted(f, s->kas->policy, bad);
		fputs("}", f);
	}
	fputs("}", f);
}

static void put_members(FILE *f, const struct volume *v, bool *bad)
{
	char id[37];

	uuid_format(v->id, id);
	fprintf(f, "{\"version\":%d,\n\"volume_id\":\"%s\",\n\"created\":%" PRId64 ",\n\"names\":", VERSION, id, v->created);
	put_quoted(f, v->names, bad);
	fprintf(f, ",\n\"segment_size\":%" PRIu32 ",\n\"log_half\":%" PRIu64 ",\n\"policy\":", v->segment_size, v->log_half);
	put_quoted(f, v->policy, bad);
	fputs(",\n\"kas\":{\"kid\":", f);
	put_quoted(f, v->kas_kid, bad);
	fputs(",\"url\":", f);
	put_quoted(f, v->kas_url, bad);
	for (size_t i = 0; i < v->n_kas_old; i++) {
		fputs(i ? "," : ",\"old\":[", f);
		put_quoted(f, v->kas_old[i], bad);
	}
	fputs(v->n_kas_old ? "]}" : "}", f);
	*bad |= volume_remotes_put(v, f) || volume_policies_put(v, f) || volume_plans_put(v, f);
	fputs(",\n\"slots\":[\n", f);
	for (size_t i = 0; i < v->n_slots; i++) {
		put_slot(f, &v->slots[i], bad);
		fputs(i + 1 < v->n_slots ? ",\n" : "],\n", f);
	}
	fputs(mac_before, f);
}

int volume_text_make(const struct volume *v, char **ret, size_t *ret_len)
{
	CLEANUP_FREE char *text = NULL;
	char hex[MAC_HEX + 1];
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	bool bad = false;
	char *whole;
	int err;

	if (!f)
		return -ENOMEM;
	put_members(f, v, &bad);
	if (fclose(f) || !text)
		return -ENOMEM;
	if (bad)
		return fail(-EINVAL, "a label or URL is not UTF-8");
	if (len + MAC_HEX + sizeof(text_end) > VOLUME_TEXT_MAX)
		return fail(-EFBIG, "volume.json would be too large");
	err = text_mac(text, len, v->k_conf, hex);
	if (err)
		return err;
	if (asprintf(&whole, "%s%s%s", text, hex, text_end) < 0)
		return -ENOMEM;
	*ret = whole;
	*ret_len = len + MAC_HEX + sizeof(text_end) - 1;
	return 0;
}

int volume_text_write(const struct volume *v)
{
	struct io io = io_posix(v->store_fd);
	CLEANUP_FREE char *text = NULL;
	size_t len;
	int err = volume_text_make(v, &text, &len);

	/* .bak first: while volume.json is being replaced the new state is already safe, and until then the old one counts */
	if (!err)
		err = io_replace(&io, v->dir_fd, VOLUME_BAK, text, len, 0600);
	if (!err)
		err = io_replace(&io, v->dir_fd, VOLUME_JSON, text, len, 0600);
	return err;
}
