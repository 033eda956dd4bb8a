/* SPDX-License-Identifier: Apache-2.0 */
#include "manifest_json.h"

#include <errno.h>

#include "encode.h"
#include "report.h"

#define KA_MAX 16
#define TEXT_MAX ((size_t)64 << 10)
#define WRAPPED_TEXT_MAX ((size_t)16 << 10)

/* asked before jansson, which recurses and builds a tree */
static int json_bounds(struct part text, const char *what)
{
	const char *t = text.p;
	unsigned depth = 0;
	size_t values = 0;
	bool quoted = false;

	for (size_t i = 0; i < text.len; i++) {
		char c = t[i];

		if (quoted) {
			if (c == '\\')
				i++;
			else if (c == '"')
				quoted = false;
		} else if (c == '"') {
			quoted = true;
		} else if (c == '[' || c == '{') {
			values++;
			if (++depth > JSON_DEPTH_MAX)
				return fail(-EPROTO, "%s: nested deeper than %d", what, JSON_DEPTH_MAX);
		} else if ((c == ']' || c == '}') && depth) {
			depth--;
		} else if (c == ',') {
			values++;
		}
	}
	return values <= JSON_VALUES_MAX ? 0 : fail(-EPROTO, "%s: more than %d values", what, JSON_VALUES_MAX);
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static size_t skip_space(const char *t, size_t len, size_t i)
{
	while (i < len && is_space(t[i]))
		i++;
	return i;
}

/* @i at the opening quote; the position behind the closing one, or @len */
static size_t skip_string(const char *t, size_t len, size_t i)
{
	for (i++; i < len; i++) {
		if (t[i] == '\\')
			i++;
		else if (t[i] == '"')
			return i + 1;
	}
	return len;
}

/* the position behind the value at @i, or @len */
static size_t skip_value(const char *t, size_t len, size_t i)
{
	unsigned depth = 0;

	while (i < len) {
		char c = t[i];

		if (c == '"') {
			i = skip_string(t, len, i);
		} else if (c == '[' || c == '{') {
			depth++;
			i++;
		} else if (c == ']' || c == '}') {
			if (!depth)
				return i;
			depth--;
			i++;
		} else if (!depth && (c == ',' || is_space(c))) {
			return i;
		} else {
			i++;
			continue; /* inside a number or a word */
		}
		if (!depth)
			return i;
	}
	return len;
}

int json_find(struct part object, const char *key, struct part *ret)
{
	const char *t = object.p;
	size_t len = object.len, key_len = strlen(key), i = skip_space(t, len, 0);

	if (i == len || t[i] != '{')
		return -EPROTO;
	i = skip_space(t, len, i + 1);
	while (i < len && t[i] == '"') {
		size_t name = i + 1, name_end, end;

		i = skip_string(t, len, i);
		name_end = i - 1;
		i = skip_space(t, len, i);
		if (i == len || t[i] != ':')
			return -EPROTO;
		i = skip_space(t, len, i + 1);
		end = skip_value(t, len, i);
		if (name_end >= name && name_end - name == key_len && !memcmp(t + name, key, key_len)) {
			*ret = (struct part){t + i, end - i};
			return 0;
		}
		i = skip_space(t, len, end);
		if (i == len || t[i] != ',')
			break;
		i = skip_space(t, len, i + 1);
	}
	return i < len && t[i] == '}' ? -ENOENT : -EPROTO;
}

int json_next(struct part array, size_t *pos, struct part *ret)
{
	const char *t = array.p;
	size_t len = array.len, i = *pos, end;

	if (!i) {
		if (!len || t[0] != '[')
			return -EPROTO;
		i = skip_space(t, len, 1);
		if (i + 1 == len && t[i] == ']')
			return 0;
	} else {
		i = skip_space(t, len, i);
		if (i + 1 == len && t[i] == ']')
			return 0;
		if (i == len || t[i] != ',')
			return -EPROTO;
		i = skip_space(t, len, i + 1);
	}
	end = skip_value(t, len, i);
	if (end == i || end == len)
		return -EPROTO;
	*ret = (struct part){t + i, end - i};
	*pos = end;
	return 1;
}

json_t *json_load(struct part text, const char *what)
{
	json_error_t e;
	json_t *j;

	if (json_bounds(text, what))
		return NULL;
	j = json_loadb(text.p, text.len, JSON_REJECT_DUPLICATES, &e);
	if (!j) {
		/* without the piece of the file that jansson quotes: it may hold anything */
		char *quote = strstr(e.text, " near ");

		if (quote)
			*quote = 0;
		fail(-EPROTO, "%s: no valid JSON at byte %d: %s", what, e.position, e.text);
	}
	return j;
}

const char *printable(const char *text, char buf[static PRINTABLE_LEN])
{
	size_t i;

	for (i = 0; text[i] && i < PRINTABLE_LEN - 1; i++)
		buf[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
	buf[i] = 0;
	return buf;
}

const json_t *json_member(const json_t *obj, const char *key)
{
	const json_t *v = json_object_get(obj, key);

	return json_is_null(v) ? NULL : v;
}

int json_text(const json_t *obj, const char *key, bool needed, size_t max, char **ret)
{
	const json_t *v = json_member(obj, key);
	char *copy;

	if (!v && needed)
		return fail(-EPROTO, "the manifest's %s is missing", key);
	if (v && !json_is_string(v))
		return fail(-EPROTO, "the manifest's %s is not a string", key);
	if (v && json_string_length(v) > max)
		return fail(-EPROTO, "the manifest's %s is longer than %zu bytes", key, max);
	copy = strdup(v ? json_string_value(v) : "");
	if (!copy)
		return -ENOMEM;
	*ret = copy;
	return 0;
}

/* an object {alg, hash} (4.x), or a bare string (older writers) */
static int binding_parse(const json_t *obj, struct key_access *ka)
{
	const json_t *b = json_object_get(obj, "policyBinding");
	const json_t *alg;

	if (!json_is_object(b))
		return json_text(obj, "policyBinding", true, TEXT_MAX, &ka->binding);
	alg = json_object_get(b, "alg");
	if (alg && (!json_is_string(alg) || strcmp(json_string_value(alg), "HS256") != 0))
		return fail(-EPROTO, "the manifest's policyBinding.alg is not HS256");
	return json_text(b, "hash", true, TEXT_MAX, &ka->binding);
}

static int wrapped_parse(const json_t *obj, struct key_access *ka)
{
	const json_t *w = json_member(obj, "wrappedKey");
	const char *text = json_string_value(w);
	size_t len = json_string_length(w);
	int err;

	if (!w && ka->type == WRAP_OTHER) /* "remote" has none; another object may open the file */
		text = "";
	if (!text || len > WRAPPED_TEXT_MAX)
		return fail(-EPROTO, "the manifest's wrappedKey is not a string of at most %zu bytes", WRAPPED_TEXT_MAX);
	ka->wrapped = malloc(len + 1);
	if (!ka->wrapped)
		return -ENOMEM;
	err = base64_decode(text, len, true, ka->wrapped, len, &ka->wrapped_len);
	return err ? fail(-EPROTO, "the manifest's wrappedKey is not base64") : 0;
}

static int object_parse(const json_t *obj, struct key_access *ka)
{
	const struct {
		const char *key;
		bool needed;
		char **to;
	} texts[] = {
	    {"type", true, &ka->type_name}, {"url", true, &ka->url},  {"protocol", false, &ka->protocol},
	    {"kid", false, &ka->kid},       {"sid", false, &ka->sid}, {"ephemeralPublicKey", false, &ka->ephemeral_pem},
	};
	int err = 0;

	if (!json_is_object(obj))
		return fail(-EPROTO, "an element of the manifest's keyAccess is not an object");
	for (size_t i = 0; !err && i < ARRAY_SIZE(texts); i++)
		err = json_text(obj, texts[i].key, texts[i].needed, TEXT_MAX, texts[i].to);
	if (err)
		return err;
	ka->type = !strcmp(ka->type_name, "wrapped") ? WRAP_RSA : !strcmp(ka->type_name, "ec-wrapped") ? WRAP_EC : WRAP_OTHER;
	err = binding_parse(obj, ka);
	return err ? err : wrapped_parse(obj, ka);
}

static void json_cleanup(json_t **j)
{
	json_decref(*j);
}

int manifest_key_access(struct part array, struct manifest *m)
{
	json_t *j CLEANUP(json_cleanup) = json_load(array, "the manifest's keyAccess");
	size_t n = json_array_size(j);
	int err;

	if (!j)
		return -EPROTO;
	if (!json_is_array(j) || !n || n > KA_MAX)
		return fail(-EPROTO, "the manifest's keyAccess is not an array of 1 to %d objects", KA_MAX);
	m->ka = calloc(n, sizeof(*m->ka));
	if (!m->ka)
		return -ENOMEM;
	for (m->n_ka = 0; m->n_ka < n;) {
		err = object_parse(json_array_get(j, m->n_ka), &m->ka[m->n_ka]);
		m->n_ka++; /* counted even if half filled: manifest_free() cleans up */
		if (err)
			return err;
	}
	return 0;
}

int manifest_of_keys(const char *key_access, const char *policy, struct manifest **ret)
{
	struct manifest *m CLEANUP(manifest_cleanup) = calloc(1, sizeof(*m));
	int err = m ? manifest_key_access((struct part){key_access, strlen(key_access)}, m) : -ENOMEM;

	if (err)
		return err;
	m->policy = strdup(policy);
	m->key_access_text = strdup(key_access);
	if (!m->policy || !m->key_access_text)
		return -ENOMEM;
	*ret = STEAL(m);
	return 0;
}
