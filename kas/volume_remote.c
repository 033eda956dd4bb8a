/* SPDX-License-Identifier: Apache-2.0 */
/* The list of remote KASes in volume.json: reading and writing it. */
#include "volume_remote.h"

#include <jansson.h>

#include <errno.h>

#include "report.h"
#include "url.h"
#include "volume_file.h"

#define TEXT_MAX 1024
#define PEM_MAX 4096
#define SPLIT_MAX 15

/* Members that are nothing but text. */
static const struct {
	const char *name;
	size_t off;
	bool needed, path;
} texts[] = {
    {"url", offsetof(struct volume_remote, url), true, false},
    {"issuer", offsetof(struct volume_remote, issuer), false, false},
    {"audience", offsetof(struct volume_remote, audience), false, false},
    {"client_id", offsetof(struct volume_remote, client_id), false, false},
    {"secret_file", offsetof(struct volume_remote, secret_file), false, true},
    {"token_file", offsetof(struct volume_remote, token_file), false, true},
    {"session_file", offsetof(struct volume_remote, session_file), false, true},
    {"ca_file", offsetof(struct volume_remote, ca_file), false, true},
    {"spki_pin", offsetof(struct volume_remote, spki_pin), false, false},
    {"allow", offsetof(struct volume_remote, allow), false, false},
};
static const struct {
	const char *name;
	size_t off, max;
} key_texts[] = {
    {"algorithm", offsetof(struct volume_remote, algorithm), 32},
    {"kid", offsetof(struct volume_remote, kid), VOLUME_REMOTE_KID_MAX},
    {"pem", offsetof(struct volume_remote, pem), PEM_MAX},
};

static char **text_at(const struct volume_remote *r, size_t off)
{
	return (char **)((char *)r + off);
}

void volume_remote_clear(struct volume_remote *r)
{
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		free(*text_at(r, texts[i].off));
	for (size_t i = 0; i < ARRAY_SIZE(key_texts); i++)
		free(*text_at(r, key_texts[i].off));
	*r = (struct volume_remote){0};
}

void volume_remotes_free(struct volume_remote *r, size_t n)
{
	for (size_t i = 0; i < n; i++)
		volume_remote_clear(&r[i]);
	free(r);
}

static int copy_text(const struct volume_remote *from, struct volume_remote *to, size_t off)
{
	const char *s = *text_at(from, off);

	*text_at(to, off) = s ? strdup(s) : NULL;
	return s && !*text_at(to, off) ? -ENOMEM : 0;
}

int volume_remote_copy(const struct volume_remote *r, struct volume_remote *ret)
{
	struct volume_remote c = {.split = r->split};
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		err |= copy_text(r, &c, texts[i].off);
	for (size_t i = 0; i < ARRAY_SIZE(key_texts); i++)
		err |= copy_text(r, &c, key_texts[i].off);
	if (err) {
		volume_remote_clear(&c);
		return -ENOMEM;
	}
	*ret = c;
	return 0;
}

struct volume_remote *volume_remote_find(const struct volume *v, const char *url)
{
	for (size_t i = 0; i < v->n_remotes; i++)
		if (strcmp(v->remotes[i].url, url) == 0)
			return &v->remotes[i];
	return NULL;
}

struct volume_remote *volume_remote_at(const struct volume *v, const char *url)
{
	struct url a, b;

	for (size_t i = 0; i < v->n_remotes && !url_parse(url, false, &a); i++)
		if (!url_parse(v->remotes[i].url, false, &b) && url_same_origin(&a, &b))
			return &v->remotes[i];
	return NULL;
}

/* --- reading --- */

static int parse_text(const json_t *o, const char *name, size_t max, bool needed, char **ret)
{
	const json_t *j = json_object_get(o, name);
	const char *s = json_string_value(j);

	if (!j && !needed)
		return 0;
	if (!s || !*s || strlen(s) > max || strlen(s) != json_string_length(j))
		return fail(-EPROTO, "\"%s\" of a remote KAS is missing, no text or longer than %zu", name, max);
	*ret = strdup(s);
	return *ret ? 0 : -ENOMEM;
}

/* What we do not know we must not ignore. */
static int check_members(json_t *o, bool with_texts, const char *const *more, size_t n_more)
{
	const char *key;
	json_t *value;

	json_object_foreach(o, key, value)
	{
		bool known = false;

		for (size_t i = 0; i < n_more; i++)
			known |= strcmp(key, more[i]) == 0;
		for (size_t i = 0; i < ARRAY_SIZE(texts) && with_texts; i++)
			known |= strcmp(key, texts[i].name) == 0;
		if (!known)
			return fail(
			    -ENOTSUP,
			    "what is said of a remote KAS has a member \"%.40s\" that this version does not know: it is damaged, or made by a later tdfs",
			    key);
	}
	return json_is_object(o) ? 0 : fail(-EPROTO, "what is said of a remote KAS is no object");
}

static int parse_split(const json_t *o, const char *name, int *ret)
{
	const json_t *j = json_object_get(o, name);

	if (!json_is_integer(j) || json_integer_value(j) < -1 || json_integer_value(j) > SPLIT_MAX)
		return fail(-EPROTO, "\"%s\" of \"remotes\" is not -1 to %d", name, SPLIT_MAX);
	*ret = (int)json_integer_value(j);
	return 0;
}

static int parse_key(json_t *key, struct volume_remote *r)
{
	static const char *const names[] = {"algorithm", "kid", "pem"};
	int err = key ? check_members(key, false, names, ARRAY_SIZE(names)) : 0;

	for (size_t i = 0; i < ARRAY_SIZE(key_texts) && key && !err; i++)
		err = parse_text(key, key_texts[i].name, key_texts[i].max, true, text_at(r, key_texts[i].off));
	return err;
}

static int parse_texts(const json_t *o, struct volume_remote *r)
{
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(texts) && !err; i++)
		err = parse_text(o, texts[i].name, TEXT_MAX, texts[i].needed, text_at(r, texts[i].off));
	return err;
}

int volume_remote_parse(json_t *o, struct volume_remote *r)
{
	int err = check_members(o, true, NULL, 0);

	return err ? err : parse_texts(o, r);
}

int volume_remote_entry_parse(json_t *o, struct volume_remote *r)
{
	static const char *const names[] = {"split", "key"};
	int err = check_members(o, true, names, ARRAY_SIZE(names));

	if (!err)
		err = parse_texts(o, r);
	if (!err)
		err = parse_split(o, "split", &r->split);
	if (!err)
		err = parse_key(json_object_get(o, "key"), r);
	if (!err && r->split >= 0 && !r->pem)
		err = fail(-EPROTO, "new files are made for the remote KAS %.100s, but no key of it is pinned", r->url);
	return err;
}

int volume_remotes_valid(const struct volume *v)
{
	unsigned seen = v->kas_split >= 0 ? 1u << v->kas_split : 0;

	for (size_t i = 0; i < v->n_remotes; i++) {
		if (v->remotes[i].split >= 0)
			seen |= 1u << v->remotes[i].split;
		if (volume_remote_find(v, v->remotes[i].url) != &v->remotes[i])
			return fail(-EPROTO, "the remote KAS %.100s is there twice", v->remotes[i].url);
	}
	return seen && !(seen & (seen + 1)) ? 0 : fail(-EPROTO, "the splits of new files' keys do not count from 0");
}

int volume_remotes_parse(json_t *o, struct volume *v)
{
	static const char *const names[] = {"embedded", "list"};
	json_t *list = json_object_get(o, "list"), *each;
	size_t i, n = json_array_size(list);
	int err = o ? check_members(o, false, names, 2) : 0;

	if (!o || err)
		return err;
	if (n < 1 || n > VOLUME_REMOTES_MAX)
		return fail(-EPROTO, "%zu remote KASes: 1 to %d are right", n, VOLUME_REMOTES_MAX);
	err = parse_split(o, "embedded", &v->kas_split);
	if (err)
		return err;
	v->remotes = calloc(n, sizeof(*v->remotes));
	if (!v->remotes)
		return -ENOMEM;
	json_array_foreach(list, i, each)
	{
		v->n_remotes++;
		err = volume_remote_entry_parse(each, &v->remotes[i]);
		if (err)
			return err;
	}
	return volume_remotes_valid(v);
}

/* --- writing --- */

json_t *volume_remote_json(const struct volume_remote *r)
{
	json_t *j = json_object();
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (*text_at(r, texts[i].off))
			err |= json_object_set_new(j, texts[i].name, json_string(*text_at(r, texts[i].off)));
	if (!err)
		return j;
	json_decref(j);
	return NULL;
}

json_t *volume_remote_entry_json(const struct volume_remote *r)
{
	json_t *j = volume_remote_json(r), *key;
	int err = json_object_set_new(j, "split", json_integer(r->split));

	if (r->pem) {
		key = json_pack("{s:s, s:s, s:s}", "algorithm", r->algorithm, "kid", r->kid, "pem", r->pem);
		err |= json_object_set_new(j, "key", key);
	}
	if (!err)
		return j;
	json_decref(j);
	return NULL;
}

int volume_remotes_put(const struct volume *v, FILE *f)
{
	if (!v->n_remotes)
		return 0;
	fprintf(f, ",\n\"remotes\":{\"embedded\":%d,\"list\":[\n", v->kas_split);
	for (size_t i = 0; i < v->n_remotes; i++) {
		json_t *j = volume_remote_entry_json(&v->remotes[i]);
		CLEANUP_FREE char *text = j ? json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

		json_decref(j);
		if (!text)
			return -EINVAL;
		fprintf(f, "%s%s", i ? ",\n" : "", text);
	}
	fputs("]}", f);
	return 0;
}

int volume_remote_check(const struct volume *v, const struct volume_remote *r)
{
	size_t len = v->path ? strlen(v->path) : 0;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		const char *s = *text_at(r, texts[i].off);

		if (!s)
			continue;
		if (!*s || strlen(s) > TEXT_MAX)
			return fail(-EINVAL, "\"%s\" of the KAS is empty or longer than %d", texts[i].name, TEXT_MAX);
		if (!texts[i].path)
			continue;
		if (*s != '/' && strncmp(s, "~/", 2))
			return fail(-EINVAL, "%s: give it with its full path, or as ~/...", s);
		if (v->path && strncmp(s, v->path, len) == 0 && (s[len] == '/' || !s[len]))
			return fail(-EINVAL, "%s: lies in the store: who may write there could change who is trusted", s);
	}
	return 0;
}
