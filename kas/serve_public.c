/* SPDX-License-Identifier: Apache-2.0 */
/* The calls that give no keys out, and the table of all calls with their messages' fields.  Source: OpenTDF's protocol definitions. */
#include <stdio.h>
#include <strings.h>

#include "aead.h"
#include "encode.h"
#include "report.h"
#include "serve_i.h"

#define FQNS_MAX 256

/* --- messages --- */

#define FIELD(n, member, type)                                  \
	{                                                       \
		.number = (n), .name = (member), .kind = (type) \
	}
#define TEXT(n, member) FIELD(n, member, PROTO_STRING)
#define INNER(n, member, what)                                                            \
	{                                                                                 \
		.number = (n), .name = (member), .kind = PROTO_MESSAGE, .message = (what) \
	}
#define LIST(n, member, what)                                                                               \
	{                                                                                                   \
		.number = (n), .name = (member), .kind = PROTO_MESSAGE, .repeated = true, .message = (what) \
	}
#define MAP(n, member, what)                                                          \
	{                                                                             \
		.number = (n), .name = (member), .kind = PROTO_MAP, .message = (what) \
	}
#define TABLE(table, ...) static const struct proto_field table[] = {__VA_ARGS__, {0}}

static const struct proto_field none[] = {{0}};
TABLE(public_key_request, TEXT(1, "algorithm"), TEXT(2, "fmt"), TEXT(3, "v"));
TABLE(public_key_response, TEXT(1, "publicKey"), TEXT(2, "kid"));
TABLE(rewrap_request, TEXT(1, "signedRequestToken"));
TABLE(object_result, FIELD(1, "metadata", PROTO_VALUES), TEXT(2, "keyAccessObjectId"), TEXT(3, "status"),
      FIELD(4, "kasWrappedKey", PROTO_BYTES), TEXT(5, "error"));
TABLE(policy_result, TEXT(1, "policyId"), LIST(2, "results", object_result));
TABLE(rewrap_response, FIELD(2, "entityWrappedKey", PROTO_BYTES), TEXT(3, "sessionPublicKey"), LIST(5, "responses", policy_result));
TABLE(configuration_response, FIELD(1, "configuration", PROTO_STRUCT));
TABLE(server, TEXT(1, "id"), TEXT(2, "uri"));
TABLE(servers_response, LIST(1, "keyAccessServers", server), INNER(10, "pagination", none));
TABLE(fqns_request, {.number = 1, .name = "fqns", .kind = PROTO_STRING, .repeated = true});
TABLE(mapping, FIELD(1, "rule", PROTO_NUMBER));
TABLE(mappings_response, MAP(1, "fqnKeyMappings", mapping));
TABLE(name_space, TEXT(1, "id"), TEXT(2, "name"), TEXT(3, "fqn"));
TABLE(attribute, TEXT(1, "id"), INNER(2, "namespace", name_space), TEXT(3, "name"), FIELD(4, "rule", PROTO_NUMBER), TEXT(7, "fqn"));
TABLE(attribute_value, TEXT(1, "id"), TEXT(3, "value"), TEXT(6, "fqn"));
TABLE(pair, INNER(1, "attribute", attribute), INNER(2, "value", attribute_value));
TABLE(values_response, MAP(1, "fqnAttributeValues", pair));
TABLE(health_response, FIELD(1, "status", PROTO_NUMBER));

/* --- calls --- */

static enum serve_code give(struct call *c, json_t *message, json_t **ret)
{
	*ret = message;
	return message ? CODE_OK : call_fail(c, CODE_UNAVAILABLE, "out of memory");
}

static enum serve_code public_key(struct serve *s, struct call *c, const json_t *request, json_t **ret)
{
	const char *algorithm = json_string_value(json_object_get(request, "algorithm")),
		   *v = json_string_value(json_object_get(request, "v")), *kid;
	CLEANUP_FREE char *pem = NULL;
	json_t *answer;
	int err;

	if (c->codec == CODEC_BARE && !algorithm)
		algorithm = c->argument(c->ctx, "algorithm");
	err = kas_public(s->kas, algorithm ? algorithm : "", &pem, &kid);
	if (err)
		return call_fail(c, CODE_NOT_FOUND, "no key for the algorithm \"%.60s\"", algorithm ? algorithm : "");
	answer = json_pack("{s:s}", "publicKey", pem);
	if (answer && !(v && strcmp(v, "1") == 0))
		json_object_set_new(answer, "kid", json_string(kid));
	return give(c, answer, ret);
}

/* The oldest form: the key and nothing around it.  For clients that wrap with RSA. */
static enum serve_code public_key_text(struct serve *s, struct call *c, const json_t *request, json_t **ret)
{
	json_t *message = NULL;
	enum serve_code code = public_key(s, c, request, &message);

	if (code == CODE_OK)
		code = give(c, json_incref(json_object_get(message, "publicKey")), ret);
	json_decref(message);
	return code;
}

static json_t *identity_provider(const struct serve *s)
{
	static const char *const members[] = {"issuer",
					      "authorization_endpoint",
					      "token_endpoint",
					      "jwks_uri",
					      "userinfo_endpoint",
					      "device_authorization_endpoint",
					      "end_session_endpoint"};
	json_t *doc = jwks_discovery(s->jwks), *idp = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		if (json_is_string(json_object_get(doc, members[i])))
			json_object_set(idp, members[i], json_object_get(doc, members[i]));
	json_decref(doc);
	if (!json_object_get(idp, "issuer"))
		json_object_set_new(idp, "issuer", json_string(s->config->issuer));
	return idp;
}

static json_t *base_key(const struct serve *s)
{
	CLEANUP_FREE char *pem = NULL;
	const char *kid;

	if (!*s->config->base_key || kas_public(s->kas, s->config->base_key, &pem, &kid))
		return json_object();
	return json_pack("{s:s, s:{s:s, s:s, s:s}}", "kas_uri", s->config->url, "public_key", "algorithm", s->config->base_key, "kid", kid,
			 "pem", pem);
}

static json_t *configuration(struct serve *s)
{
	json_t *doc = json_pack("{s:o, s:{s:s}, s:b}", "base_key", base_key(s), "health", "endpoint", "/healthz", "supports_dpop",
				s->jwks != NULL),
	       *algs;

	if (!doc || !s->jwks)
		return doc;
	algs = json_pack("[s, s, s, s]", "ES256", "ES384", "RS256", "PS256");
	json_object_set_new(doc, "dpop_signing_alg_values_supported", algs);
	json_object_set_new(doc, "platform_issuer", json_string(s->config->issuer));
	json_object_set_new(doc, "idp", identity_provider(s));
	return doc;
}

static enum serve_code well_known(struct serve *s, struct call *c, const json_t *request, json_t **ret)
{
	json_t *doc = configuration(s);

	return give(c, c->codec == CODEC_BARE || !doc ? doc : json_pack("{s:o}", "configuration", doc), ret);
}

static enum serve_code list_servers(struct serve *s, struct call *c, const json_t *request, json_t **ret)
{
	char uri[1024];

	snprintf(uri, sizeof(uri), "%s/kas", s->config->url);
	return give(
	    c,
	    json_pack("{s:[{s:s, s:s}], s:{}}", "keyAccessServers", "id", "00000000-0000-4000-8000-000000000001", "uri", uri, "pagination"),
	    ret);
}

/* The platform numbers everything; here a thing's name is what tells it apart. */
static json_t *id_of(const char *name)
{
	uint8_t hash[32];
	char id[37];

	if (sha256(&(struct part){name, strlen(name)}, 1, hash))
		return NULL;
	uuid_format(hash, id);
	return json_string(id);
}

static json_t *pair_of(const char *fqn, int rule)
{
	/* access_rule() has found both, in any case */
	const char *v = strcasestr(fqn, "/value/"), *a = strcasestr(fqn, "/attr/");
	json_t *def = json_stringn(fqn, (size_t)(v - fqn)), *ns = json_stringn(fqn, (size_t)(a - fqn));
	json_t *name = json_stringn(a + 6, (size_t)(v - a - 6)), *host = json_string(strstr(json_string_value(ns), "//") + 2);

	return json_pack("{s:{s:o, s:{s:o, s:o, s:o}, s:o, s:i, s:o}, s:{s:o, s:s, s:s}}", "attribute", "id", id_of(json_string_value(def)),
			 "namespace", "id", id_of(json_string_value(ns)), "name", host, "fqn", ns, "name", name, "rule", rule, "fqn", def,
			 "value", "id", id_of(fqn), "value", v + 7, "fqn", fqn);
}

/* For writers: which keys an attribute's files are for.  None of its own: the writer takes the base key or the key it was told. */
static enum serve_code by_fqns(struct serve *s, struct call *c, const json_t *request, json_t **ret, const char *name, bool pairs)
{
	const json_t *fqns = json_object_get(request, "fqns");
	json_t *map = json_object(), *each;
	size_t i;

	if (json_array_size(fqns) > FQNS_MAX) {
		json_decref(map);
		return call_fail(c, CODE_INVALID_ARGUMENT, "more than %d attributes", FQNS_MAX);
	}
	json_array_foreach((json_t *)fqns, i, each)
	{
		const char *fqn = json_string_value(each);
		int rule = fqn && s->access ? access_rule(s->access, fqn) : 0;

		if (!rule) {
			json_decref(map);
			return call_fail(c, CODE_NOT_FOUND, "no rule of this KAS speaks of the attribute %.150s", fqn ? fqn : "");
		}
		json_object_set_new(map, fqn, pairs ? pair_of(fqn, rule) : json_pack("{s:i}", "rule", rule));
	}
	return give(c, json_pack("{s:o}", name, map), ret);
}

static enum serve_code key_mappings(struct serve *s, struct call *c, const json_t *request, json_t **ret)
{
	return by_fqns(s, c, request, ret, "fqnKeyMappings", false);
}

static enum serve_code attribute_values(struct serve *s, struct call *c, const json_t *request, json_t **ret)
{
	return by_fqns(s, c, request, ret, "fqnAttributeValues", true);
}

static enum serve_code health_check(struct serve *s, struct call *c, const json_t *request, json_t **ret)
{
	int64_t age;
	bool good = !s->jwks || jwks_keys(s->jwks, &age);

	if (c->codec == CODEC_BARE && !good)
		return call_fail(c, CODE_UNAVAILABLE, "NOT_SERVING: the issuer's keys are not there");
	if (c->codec == CODEC_BARE)
		return give(c, json_pack("{s:s}", "status", "SERVING"), ret);
	return give(c, json_pack("{s:i}", "status", good ? 1 : 2), ret);
}

const struct route serve_routes[] = {
    {"/kas.AccessService/Rewrap", false, true, true, false, SERVE_BODY_MAX, rewrap_request, rewrap_response, rewrap_run},
    {"/kas.AccessService/PublicKey", true, true, false, false, SERVE_PUBLIC_MAX, public_key_request, public_key_response, public_key},
    {"/wellknownconfiguration.WellKnownService/GetWellKnownConfiguration", true, true, false, false, SERVE_PUBLIC_MAX, none,
     configuration_response, well_known},
    {"/policy.kasregistry.KeyAccessServerRegistryService/ListKeyAccessServers", true, true, false, false, SERVE_PUBLIC_MAX, none,
     servers_response, list_servers},
    {"/policy.attributes.AttributesService/GetKeyMappingsByFqns", true, true, true, false, SERVE_SMALL_MAX, fqns_request,
     mappings_response, key_mappings},
    {"/policy.attributes.AttributesService/GetAttributeValuesByFqns", true, true, true, false, SERVE_SMALL_MAX, fqns_request,
     values_response, attribute_values},
    {"/grpc.health.v1.Health/Check", true, true, false, false, SERVE_PUBLIC_MAX, none, health_response, health_check},
    {"/healthz", true, false, false, true, 0, none, none, health_check},
    {"/.well-known/opentdf-configuration", true, false, false, true, 0, none, none, well_known},
    {"/kas_public_key", true, false, false, true, 0, none, none, public_key_text},
    {"/v2/kas_public_key", true, false, false, true, 0, none, none, public_key},
    {"/v2/rewrap", false, true, true, true, SERVE_BODY_MAX, none, none, rewrap_run},
    {VOLUME_KEY_PATH, false, true, true, true, SERVE_SMALL_MAX, none, none, volume_key_run},
    {0},
};
