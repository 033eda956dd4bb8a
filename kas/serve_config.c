/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration file of `tdfs kas serve`: one JSON object; PROTOCOL.md ("Configuration") has it. */
#include <jansson.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>

#include "access.h"
#include "io.h"
#include "report.h"
#include "serve_i.h"
#include "url.h"

#define CONFIG_MAX ((size_t)1 << 20)

void serve_config_free(struct serve_config *c)
{
	if (!c)
		return;
	free(c->issuer);
	free(c->audience);
	free(c->url);
	free(c->jwks_uri);
	free(c->jwks_file);
	free(c->ca_file);
	free(c->allow);
	secret_free(c->volume_key);
	free(c->base_key);
	access_free(c->access);
	json_decref(c->cors);
	free(c);
}

static void config_cleanup(struct serve_config **c)
{
	serve_config_free(*c);
}

/* A text member; absent: NULL. */
static int take_text(const json_t *doc, const char *name, char **ret)
{
	const json_t *v = json_object_get(doc, name);

	if (!v)
		return 0;
	if (!json_string_length(v) || json_string_length(v) > 1000)
		return fail(-EPROTO, "\"%s\" must be a text of 1 to 1000 bytes", name);
	*ret = strdup(json_string_value(v));
	return *ret ? 0 : -ENOMEM;
}

static int take_number(const json_t *limits, const char *name, double min, double max, double *ret)
{
	const json_t *v = json_object_get(limits, name);
	double d = json_number_value(v);

	if (!v)
		return 0;
	if (!json_is_number(v) || !(d >= min) || !(d <= max))
		return fail(-EPROTO, "limits: \"%s\" must be a number from %.0f to %.0f", name, min, max);
	*ret = d;
	return 0;
}

static int check_members(const json_t *o, const char *where, const char *const *known, size_t n)
{
	const char *name;
	json_t *v;

	if (o && !json_is_object(o))
		return fail(-EPROTO, "%smust be an object", where);
	json_object_foreach((json_t *)o, name, v)
	{
		size_t i = 0;

		while (i < n && strcmp(name, known[i]))
			i++;
		if (i == n)
			return fail(-EPROTO, "%sthere is no \"%.80s\"", where, name);
	}
	return 0;
}

static int take_limits(const json_t *limits, struct serve_config *c)
{
	static const char *const known[] = {"failures", "keys", "connections", "idle", "receive", "send"};
	double n[4] = {c->connections, c->idle, c->receive, c->send};
	int err = check_members(limits, "limits: ", known, ARRAY_SIZE(known));

	if (!err)
		err = take_number(limits, "failures", 0.1, 1e6, &c->failures);
	if (!err)
		err = take_number(limits, "keys", 1, 1e9, &c->keys);
	if (!err)
		err = take_number(limits, "connections", 8, 65536, &n[0]);
	for (size_t i = 1; !err && i < 4; i++)
		err = take_number(limits, known[2 + i], 1, 3600, &n[i]);
	if (err)
		return err;
	c->connections = (unsigned)n[0];
	c->idle = (unsigned)n[1];
	c->receive = (unsigned)n[2];
	c->send = (unsigned)n[3];
	return 0;
}

static int take_dpop(const json_t *doc, struct serve_config *c)
{
	const json_t *v = json_object_get(doc, "dpop"), *nonce = json_object_get(doc, "dpop_nonce");
	const char *word = json_string_value(v);

	if (v && (!word || (strcmp(word, "optional") && strcmp(word, "required"))))
		return fail(-EPROTO, "\"dpop\" must be \"optional\" or \"required\"");
	if (nonce && !json_is_boolean(nonce))
		return fail(-EPROTO, "\"dpop_nonce\" must be true or false");
	c->dpop_required = word && *word == 'r';
	c->dpop_nonce = json_is_true(nonce);
	return 0;
}

/* A header that the proxy passes on as the client wrote it would let everybody be somebody else: so just the one that is named. */
static int take_proxies(const json_t *doc, struct serve_config *c)
{
	const json_t *v = json_object_get(doc, "proxies"), *h = json_object_get(doc, "proxy_header");
	const char *name = h ? json_string_value(h) : "X-Forwarded-For";

	if (v && (!json_string_length(v) || address_list_parse(json_string_value(v), &c->proxies)))
		return fail(-EPROTO, "\"proxies\": %s", json_string_length(v) ? fail_text() : "must be a text with addresses");
	if (!name || (strcasecmp(name, "X-Forwarded-For") && strcasecmp(name, "Forwarded")) || (h && !v))
		return fail(-EPROTO, "\"proxy_header\" must be \"X-Forwarded-For\" or \"Forwarded\", and goes with \"proxies\"");
	c->proxy_header = strcasecmp(name, "Forwarded") ? "X-Forwarded-For" : "Forwarded";
	return 0;
}

/* An https URL, or one of this machine. */
static int check_url(const char *name, const char *text)
{
	struct url u;
	int err = text ? url_parse(text, false, &u) : 0;

	if (!text)
		return 0;
	return err ? fail(err, "\"%s\": %s", name, fail_text()) : 0;
}

static int take_all(const json_t *doc, struct serve_config *c)
{
	static const char *const known[] = {"issuer",       "audience",   "url",      "jwks_uri", "jwks_file",
					    "ca_file",      "allow",      "base_key", "dpop",     "people",
					    "unrestricted", "attributes", "limits",   "dpop_nonce", "proxies",  "proxy_header", "cors"};
	struct {
		const char *name;
		char **to;
	} texts[] = {{"issuer", &c->issuer},       {"audience", &c->audience}, {"url", &c->url},    {"jwks_uri", &c->jwks_uri},
		     {"jwks_file", &c->jwks_file}, {"ca_file", &c->ca_file},   {"allow", &c->allow}};
	const json_t *base = json_object_get(doc, "base_key");
	int err = check_members(doc, "", known, ARRAY_SIZE(known));
	struct address_list list;
	size_t n;

	for (size_t i = 0; !err && i < ARRAY_SIZE(texts); i++)
		err = take_text(doc, texts[i].name, texts[i].to);
	for (size_t i = 0; !err && i < 3; i++)
		if (!*texts[i].to)
			err = fail(-EPROTO, "\"%s\" is missing", texts[i].name);
	if (!err && base && !json_is_string(base))
		err = fail(-EPROTO, "\"base_key\" must be an algorithm such as \"ec:secp256r1\", or \"\"");
	if (err)
		return err;
	for (n = strlen(c->url); n && c->url[n - 1] == '/'; n--)
		c->url[n - 1] = '\0';
	c->base_key = strdup(base ? json_string_value(base) : "ec:secp256r1");
	if (!c->base_key)
		return -ENOMEM;
	err = check_url("issuer", c->issuer);
	if (!err)
		err = check_url("url", c->url);
	if (!err)
		err = check_url("jwks_uri", c->jwks_uri);
	if (!err && c->allow && address_list_parse(c->allow, &list))
		err = fail(-EPROTO, "\"allow\": %s", fail_text());
	if (!err)
		err = take_dpop(doc, c);
	if (!err)
		err = take_proxies(doc, c);
	if (!err)
		err = take_limits(json_object_get(doc, "limits"), c);
	if (!err)
		err = cors_check(json_object_get(doc, "cors"));
	if (!err)
		c->cors = json_incref(json_object_get(doc, "cors"));
	return err ? err : access_parse(doc, &c->access);
}

/* What says whom to believe is nothing that somebody else can write.  As root: whoever root leaves it to. */
static int check_owner(const char *path)
{
	struct stat st;

	if (!path)
		return 0;
	if (stat(path, &st))
		return fail(-errno, "%s: %s", path, strerror(errno));
	if (st.st_mode & (S_IWGRP | S_IWOTH) || (geteuid() && st.st_uid && st.st_uid != geteuid()))
		return fail(-EPERM, "%s: says whom to believe, and others may write it (user %u, mode %04o): chmod go-w it", path,
			    (unsigned)st.st_uid, (unsigned)st.st_mode & 07777);
	return 0;
}

static int load(const char *path, struct serve_config *c)
{
	CLEANUP_FREE char *text = NULL;
	struct io io = io_posix(AT_FDCWD);
	json_error_t e;
	json_t *doc;
	size_t len;
	int err = check_owner(path);

	if (err)
		return err;
	err = io_read_file(&io, AT_FDCWD, path, CONFIG_MAX, &text, &len);
	if (err)
		return fail(err, "%s: %s", path, strerror(-err));
	doc = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);
	if (!json_is_object(doc))
		err = fail(-EPROTO, "%s: line %d: %s", path, e.line, doc ? "not an object" : e.text);
	else if ((err = take_all(doc, c)))
		err = fail(err, "%s: %s", path, fail_text());
	json_decref(doc);
	if (!err)
		err = check_owner(c->jwks_file);
	return err ? err : check_owner(c->ca_file);
}

int serve_config_load(const char *path, struct serve_config **ret)
{
	CLEANUP(config_cleanup) struct serve_config *c = calloc(1, sizeof(*c));
	int err = 0;

	if (!c)
		return -ENOMEM;
	*c = (struct serve_config){
	    .failures = 10, .keys = 20000, .connections = 4096, .idle = 30, .receive = 20, .send = 20, .audit = "-", .listen_fd = -1};
	if (path) {
		err = load(path, c);
	} else {
		c->url = strdup("http://localhost");
		c->base_key = strdup("ec:secp256r1");
		err = c->url && c->base_key ? 0 : -ENOMEM;
	}
	if (!err)
		*ret = STEAL(c);
	return err;
}
