/* SPDX-License-Identifier: Apache-2.0 */
/* What a KAS, an issuer or a stranger sends: answers to a rewrap, tokens, JWKs, URLs.  The first byte says which. */
#include <string.h>

#include "fuzz.h"
#include "jose.h"
#include "oidc_int.h"
#include "remote_int.h"

static EVP_PKEY *client; /* made once: an answer cannot be for it but by chance, which is what is tried */

static void answer(char *text, size_t len)
{
	struct key_access ka = {.binding = (char *)"NDA="};
	struct remote_item items[2] = {{.ka = &ka, .policy = "e30="}, {.ka = &ka, .policy = "e30="}}, *list[2] = {&items[0], &items[1]};
	struct http_answer a = {.status = 200, .body = text, .len = len, .content_type = "application/json"};
	enum verdict v[2] = {VERDICT_KEY, VERDICT_KEY};
	char error[100];

	for (size_t n = 1; n <= 2; n++)
		if (!answer_take(&a, client, list, n, v))
			for (size_t i = 0; i < n; i++)
				CHECK(v[i] != VERDICT_KEY && !items[i].share && items[i].err < 0 &&
				      (items[i].err == -13) == (v[i] == VERDICT_DENIED));
	connect_error(&a, error, sizeof(error));
	for (const char *c = error; *c; c++)
		CHECK((unsigned char)*c >= ' ');
}

static void token(const char *text, size_t len)
{
	struct issuer is = {.name = (char *)"https://id.example.org", .audience = (char *)"tdfs"};
	struct token t = {0};
	struct jws j = {0};
	json_t *jwk = jwk_from_key(client);

	if (!jws_parse(text, len, &j)) {
		CHECK(jws_verify(&j, jwk, JOSE_ALL)); /* nobody else has that key */
		(void)!jws_verify(&j, json_object_get(j.header, "jwk"), JOSE_ALL);
		jws_free(&j);
	}
	if (!token_from_text(&is, text, client, &t)) {
		CHECK(t.fresh_until <= t.good_until && strlen(t.access) <= TOKEN_MAX);
		token_free(&t);
	}
	json_decref(jwk);
}

static void jwk(const char *text, size_t len)
{
	json_t *j = json_loadb(text, len, 0, NULL), *again;
	char a[JWK_THUMBPRINT_LEN + 1], b[JWK_THUMBPRINT_LEN + 1];
	EVP_PKEY *key;

	if (j && !jwk_to_key(j, &key)) {
		again = jwk_from_key(key);
		CHECK(again && !jwk_check(again) && !jwk_thumbprint(again, a) && strlen(a) == JWK_THUMBPRINT_LEN);
		(void)!jwk_thumbprint(j, b);
		json_decref(again);
		EVP_PKEY_free(key);
	}
	json_decref(j);
}

static void url(const char *text)
{
	struct address_list list;
	struct url u, v;
	char *back;

	if (!url_parse(text, true, &u)) {
		back = url_text(&u, NULL);
		CHECK(back && !url_parse(back, true, &v) && url_same_origin(&u, &v) && !strcmp(u.path, v.path));
		CHECK(!strpbrk(u.host, "@/\\%?# ") && u.port);
		free(back);
	}
	if (!address_list_parse(text, &list))
		for (size_t i = 0; i < list.n; i++)
			CHECK(list.net[i].bits <= 128);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	if (!client)
		client = pubkey_new_ec();
	CHECK(text && client);
	memcpy(text, data, size);
	text[size] = 0;
	if (size && *data % 4 == 0)
		answer(text + 1, size - 1);
	else if (size && *data % 4 == 1)
		token(text + 1, size - 1);
	else if (size && *data % 4 == 2)
		jwk(text + 1, size - 1);
	else if (size)
		url(text + 1);
	free(text);
	return 0;
}
