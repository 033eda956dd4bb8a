/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kas-tool OPTION=VALUE...: one remote KAS, driven by lines on standard input, a JSON line for each on standard output.
 *
 *   public ALGORITHM
 *   rewrap ec|rsa SPEC...        make files' keys, have them unwrapped, compare; SPEC = COUNT and a letter, see item_make()
 *   threads N ec|rsa SPEC...     the same from N threads at once
 *   stats | wellknown
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include <jansson.h>

#include "encode.h"
#include "http.h"
#include "remote.h"
#include "report.h"

#define ITEMS_MAX 4000

struct made {
	struct key_access ka;
	char kind;
	char *policy, *binding;
	struct secret *dek;
	uint8_t wrapped[WRAPPED_MAX];
};

struct job {
	struct remote *r;
	EVP_PKEY *kas;
	const char *url, *spec;
	bool rsa;
	json_t *result;
};

static void die(const char *what)
{
	fprintf(stderr, "kas-tool: %s: %s\n", what, fail_text());
	exit(1);
}

static char *policy_make(char kind)
{
	static const char *const values[][2] = {{"a", "ok"},    {"d", "deny"},   {"o", "oblige"},
						{"s", "spoil"}, {"g", "garble"}, {"i", "../x"}};
	CLEANUP_FREE char *text = NULL;
	json_t *list = json_array(), *j;
	uint8_t id[16];
	char uuid[37], fqn[100], *b64;

	if (random_bytes(id, sizeof(id)))
		die("random");
	uuid_format(id, uuid);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		if (kind == *values[i][0]) {
			snprintf(fqn, sizeof(fqn), "https://example.com/attr/test/value/%s", values[i][1]);
			json_array_append_new(list, json_pack("{s:s}", "attribute", fqn));
		}
	for (int n = 0; kind == 'm' && n < 21; n++)
		json_array_append_new(list, json_pack("{s:s}", "attribute", "https://example.com/attr/test/value/ok"));
	j = json_pack("{s:s,s:{s:o,s:[]}}", "uuid", uuid, "body", "dataAttributes", list, "dissem");
	text = kind == 'n' ? strdup("this is not JSON") : json_dumps(j, JSON_COMPACT);
	json_decref(j);
	b64 = malloc(BASE64_LEN(strlen(text)) + 1);
	base64_encode(text, strlen(text), b64);
	return b64;
}

/* p plain, a attributed, d denied, o obligation missing, s spoils the decision, g makes the whole request a 400, i malformed FQN, m 21
 * FQNs, n policy that is no JSON, b wrong binding, w damaged wrapped key, u unknown kid, f foreign URL, h a key type of the future */
static void item_make(const struct job *j, char kind, const struct secret *kek, char *ephemeral, struct made *m)
{
	static char none[] = "", foreign[] = "https://kas.evil.example/kas", ec[] = "ec-wrapped", rsa[] = "wrapped",
		    future[] = "future-wrapped", e1[] = "e1", r1[] = "r1", other[] = "zz";
	char *binding = calloc(1, 89);

	m->kind = kind;
	m->policy = policy_make(kind);
	m->dek = secret_random();
	if (!m->dek || policy_binding(m->policy, m->dek, binding))
		die("policy");
	m->ka = (struct key_access){.type = j->rsa ? WRAP_RSA : WRAP_EC,
				    .type_name = j->rsa ? rsa : ec,
				    .url = (char *)j->url,
				    .protocol = none,
				    .kid = j->rsa ? r1 : e1,
				    .sid = none};
	m->ka.ephemeral_pem = j->rsa ? none : ephemeral;
	m->ka.wrapped = m->wrapped;
	m->ka.wrapped_len = EC_WRAPPED_LEN;
	m->ka.binding = m->binding = binding;
	if (j->rsa ? rsa_wrap(j->kas, m->dek, m->wrapped, &m->ka.wrapped_len) : aead_seal(kek, m->dek->b, SECRET_LEN, m->wrapped))
		die("wrap");
	if (kind == 'b')
		binding[0] ^= 1;
	if (kind == 'w')
		m->wrapped[20] ^= 1;
	if (kind == 'u')
		m->ka.kid = other;
	if (kind == 'f')
		m->ka.url = foreign;
	if (kind == 'h')
		m->ka.type = WRAP_OTHER, m->ka.type_name = future;
}

static void count(json_t *all, const struct made *m, const struct remote_item *i)
{
	char kind[2] = {m->kind, 0}, what[24];
	json_t *row = json_object_get(all, kind);

	if (!row) {
		row = json_object();
		json_object_set_new(all, kind, row);
	}
	snprintf(what, sizeof(what), "%s",
		 i->err                                         ? strerrorname_np(-i->err)
		 : equal_ct(i->share->b, m->dek->b, SECRET_LEN) ? "ok"
								: "WRONG");
	json_object_set_new(row, what, json_integer(json_integer_value(json_object_get(row, what)) + 1));
	if (i->err && !*i->text)
		json_object_set_new(all, "untold", json_true());
	if (i->err)
		json_object_set_new(all, "text", json_string(i->text));
}

static void *rewrap(void *arg)
{
	struct job *j = arg;
	struct made *made = calloc(ITEMS_MAX, sizeof(*made));
	struct remote_item *items = calloc(ITEMS_MAX, sizeof(*items));
	CLEANUP_SECRET struct secret *kek = NULL;
	CLEANUP_FREE char *spec = strdup(j->spec), *ephemeral = NULL;
	char *save = NULL;
	json_t *all = json_object();
	size_t n = 0;
	int64_t t;

	if (!j->rsa && ec_kek_new(j->kas, &kek, &ephemeral))
		die("kek");
	for (char *w = strtok_r(spec, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		char *kind;
		unsigned long k = strtoul(w, &kind, 10);

		for (; k && n < ITEMS_MAX; k--, n++) {
			item_make(j, *kind, kek, ephemeral, &made[n]);
			items[n].ka = &made[n].ka;
			items[n].policy = made[n].policy;
		}
	}
	t = http_now();
	if (remote_rewrap(j->r, items, n, 0))
		die("rewrap");
	t = http_now() - t;
	for (size_t i = 0; i < n; i++) {
		count(all, &made[i], &items[i]);
		secret_free(items[i].share);
		secret_free(made[i].dek);
		free(made[i].policy);
		free(made[i].binding);
	}
	json_object_set_new(all, "ms", json_integer(t));
	j->result = all;
	free(made);
	free(items);
	return NULL;
}

static json_t *run(struct job *j, int threads, char *args)
{
	pthread_t id[64];
	struct job jobs[64];
	json_t *list = json_array();

	if (threads < 1 || threads > 64 || !args || !strchr(args, ' '))
		die("arguments");
	j->rsa = args[0] == 'r';
	j->spec = strchr(args, ' ') + 1;
	for (int i = 0; i < threads; i++) {
		jobs[i] = *j;
		pthread_create(&id[i], NULL, rewrap, &jobs[i]);
	}
	for (int i = 0; i < threads; i++) {
		pthread_join(id[i], NULL);
		json_array_append_new(list, jobs[i].result);
	}
	return list;
}

static json_t *stats(struct remote *r)
{
	struct remote_stats s;

	remote_stats(r, &s);
	return json_pack("{s:s,s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s}", "state",
			 s.state == REMOTE_CLOSED ? "closed"
			 : s.state == REMOTE_OPEN ? "open"
						  : "half",
			 "retry_in_ms", (int)s.retry_in_ms, "requests", (json_int_t)s.requests, "token_requests",
			 (json_int_t)s.token_requests, "keys", (json_int_t)s.keys, "denied", (json_int_t)s.denied, "failures",
			 (json_int_t)s.failures, "fast_failures", (json_int_t)s.fast_failures, "mean_us", (json_int_t)s.mean_us,
			 "last_error", s.last_error);
}

static json_t *public_key(struct remote *r, const char *algorithm)
{
	CLEANUP_FREE char *pem = NULL, *kid = NULL;
	int64_t t = http_now();
	int err = remote_public_key(r, algorithm, &pem, &kid);

	return json_pack("{s:s,s:s,s:s,s:I}", "err", err ? strerrorname_np(-err) : "ok", "kid", kid ? kid : "", "text",
			 err ? fail_text() : "", "ms", (json_int_t)(http_now() - t));
}

static json_t *command(struct job *j, char *line)
{
	char *args = strchr(line, ' '), *text = NULL;
	json_t *answer = NULL;
	int err;

	if (args)
		*args++ = 0;
	if (strcmp(line, "public") == 0 && args)
		return public_key(j->r, args);
	if (strcmp(line, "stats") == 0)
		return stats(j->r);
	if (strcmp(line, "threads") == 0 && args)
		return run(j, atoi(args), strchr(args, ' ') + 1);
	if (strcmp(line, "rewrap") == 0) {
		json_t *list = run(j, 1, args);

		answer = json_incref(json_array_get(list, 0));
		json_decref(list);
		return answer;
	}
	if (strcmp(line, "wellknown"))
		die(line);
	err = remote_well_known(j->r, &text);
	answer = err ? json_pack("{s:s,s:s}", "err", strerrorname_np(-err), "text", fail_text()) : json_loads(text, 0, NULL);
	free(text);
	return answer;
}

/* url=... issuer=... */
static void config_set(struct remote_config *c, const char *pem_file, char *arg, const char **ret_pem)
{
	struct {
		const char *name, **to;
	} texts[] = {{"url", &c->url},
		     {"issuer", &c->issuer},
		     {"audience", &c->audience},
		     {"client", &c->client_id},
		     {"secret", &c->secret_file},
		     {"token", &c->token_file},
		     {"session", &c->session_file},
		     {"ca", &c->ca_file},
		     {"pin", &c->spki_pin},
		     {"allow", &c->allow},
		     {"kas-key", ret_pem}};
	char *value = strchr(arg, '=');

	if (!value)
		die(arg);
	*value++ = 0;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (strcmp(texts[i].name, arg) == 0) {
			*texts[i].to = value;
			return;
		}
	if (strcmp(arg, "total") == 0)
		c->total_ms = (unsigned)atoi(value);
	else if (strcmp(arg, "idle") == 0)
		c->idle_ms = (unsigned)atoi(value);
	else if (strcmp(arg, "dpop") == 0)
		c->dpop_required = true;
	else if (strcmp(arg, "rsa") == 0)
		c->session_rsa = true;
	else
		die(arg);
}

static void say(json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT);

	puts(text);
	fflush(stdout);
	free(text);
	json_decref(j);
}

/* The keys that files are wrapped for come from the caller, so that wrapping works while the KAS does not. */
static EVP_PKEY *kas_key(const char *dir, bool rsa)
{
	char path[4096], pem[8192];
	EVP_PKEY *key = NULL;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s.pem", dir, rsa ? "rsa" : "ec");
	f = fopen(path, "r");
	n = f ? fread(pem, 1, sizeof(pem), f) : 0;
	if (!f || pubkey_public(pem, n, &key))
		die(path);
	fclose(f);
	return key;
}

int main(int argc, char **argv)
{
	struct remote_config c = {0};
	struct job j = {0};
	const char *keys = ".";
	EVP_PKEY *pair[2];
	char line[1000];
	int err;

	for (int i = 1; i < argc; i++)
		config_set(&c, NULL, argv[i], &keys);
	err = remote_new(&c, &j.r);
	say(json_pack("{s:s,s:s}", "err", err ? strerrorname_np(-err) : "ok", "text", err ? fail_text() : ""));
	if (err)
		return 1;
	j.url = c.url;
	pair[0] = kas_key(keys, false);
	pair[1] = kas_key(keys, true);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		j.kas = pair[strstr(line, " rsa ") != NULL];
		say(command(&j, line));
	}
	EVP_PKEY_free(pair[0]);
	EVP_PKEY_free(pair[1]);
	remote_free(j.r);
	return 0;
}
