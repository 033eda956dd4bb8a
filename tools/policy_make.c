/* SPDX-License-Identifier: Apache-2.0 */
#include "policy_make.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "aead.h"
#include "encode.h"
#include "record.h"
#include "report.h"

#define LIST_MAX 20 /* attributes, people: platforms refuse more attributes */
#define WORD_MAX 253

static bool word_ok(const char *s, size_t len, const char *also)
{
	if (!len || len > WORD_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr(also, s[i]))
			return false;
	return true;
}

/* https://NAMESPACE/attr/NAME/value/VALUE, in lower case; NULL if it is none */
static char *fqn_of(const char *text)
{
	static const char *const between[] = {"https://", "/attr/", "/value/"};
	char *fqn = strdup(text), *at = fqn;

	for (char *c = fqn; c && *c; c++)
		*c = (char)tolower((unsigned char)*c);
	for (size_t i = 0; i < ARRAY_SIZE(between) && at; i++) {
		size_t len = strlen(between[i]), word;

		if (strncmp(at, between[i], len)) {
			at = NULL;
			break;
		}
		at += len;
		word = strcspn(at, "/");
		at = word_ok(at, word, i ? "-_" : ".-:") && (i || memchr(at, '.', word)) ? at + word : NULL;
	}
	if (at && !*at)
		return fqn;
	free(fqn);
	return NULL;
}

/* @add puts one word into @list; 0 or -EINVAL, fail() tells */
static int each_word(const char *words, json_t *list, int (*add)(json_t *list, const char *word))
{
	CLEANUP_FREE char *copy = words ? strdup(words) : NULL;
	char *at = copy, *word;
	int err = words && !copy ? -ENOMEM : 0;

	while (!err && (word = strsep(&at, ",")))
		err = json_array_size(list) < LIST_MAX ? add(list, word) : fail(-EINVAL, "more than %d in one policy", LIST_MAX);
	return err;
}

static int add_attribute(json_t *list, const char *word)
{
	CLEANUP_FREE char *fqn = fqn_of(word);
	json_t *j =
	    fqn ? json_pack("{s:s, s:s, s:b, s:s, s:s}", "attribute", fqn, "displayName", "", "isDefault", 0, "pubKey", "", "kasURL", "")
		: NULL;

	if (!fqn)
		return fail(-EINVAL, "\"%.100s\" is no attribute: https://NAMESPACE/attr/NAME/value/VALUE", word);
	return json_array_append_new(list, j) ? -ENOMEM : 0;
}

static int add_person(json_t *list, const char *word)
{
	if (!word_ok(word, strlen(word), "@.-_+:/"))
		return fail(-EINVAL, "\"%.100s\" is nobody's name: give it as the KAS knows it, as alice@example.org", word);
	return json_array_append_new(list, json_string(word)) ? -ENOMEM : 0;
}

/* 2027-01-01 or 2027-01-01T00:00:00Z, in the future */
static int expiry_of(const char *text, char ret[static 32])
{
	struct tm t = {0};
	char back[32];
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &t);
	time_t when;

	if (!end) {
		t = (struct tm){0};
		end = strptime(text, "%Y-%m-%d", &t);
	}
	when = end && !*end ? timegm(&t) : -1;
	if (when < 0)
		return fail(-EINVAL, "--expiry %.40s: give 2027-01-01, or 2027-01-01T12:00:00Z (UTC)", text);
	strftime(back, sizeof(back), "%Y-%m-%dT%H:%M:%SZ", &t);
	if (strncmp(back, text, strlen(text) == 10 ? 10 : sizeof(back)))
		return fail(-EINVAL, "--expiry %.40s: there is no such day", text);
	if (when <= time(NULL))
		return fail(-EINVAL, "--expiry %.40s: is over already", text);
	memcpy(ret, back, sizeof(back));
	return 0;
}

int policy_make(const struct policy_words *a, json_t **ret)
{
	json_t *attributes = json_array(), *dissem = json_array(), *j;
	char uuid[37], expiry[32] = "";
	uint8_t id[ID_LEN];
	int err = each_word(a->attributes, attributes, add_attribute);

	if (!err)
		err = each_word(a->dissem, dissem, add_person);
	if (!err && a->expiry)
		err = expiry_of(a->expiry, expiry);
	if (!err && a->owner && !word_ok(a->owner, strlen(a->owner), "@.-_+:/"))
		err = fail(-EINVAL, "--owner %.100s: is nobody's name", a->owner);
	if (!err)
		err = random_bytes(id, sizeof(id));
	if (err) {
		json_decref(attributes);
		json_decref(dissem);
		return err;
	}
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
	uuid_format(id, uuid);
	j = json_pack("{s:s, s:{s:o, s:o}}", "uuid", uuid, "body", "dataAttributes", attributes, "dissem", dissem);
	if (j && a->owner)
		json_object_set_new(j, POLICY_OWNER, json_string(a->owner));
	if (j && *expiry)
		json_object_set_new(j, POLICY_EXPIRY, json_string(expiry));
	*ret = j;
	return j ? 0 : -ENOMEM;
}

int policy_make_base64(const struct policy_words *w, char **ret)
{
	CLEANUP_FREE char *text = NULL;
	json_t *j = NULL;
	int err = policy_make(w, &j);

	if (err)
		return err;
	text = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	*ret = text ? malloc(BASE64_LEN(strlen(text)) + 1) : NULL;
	if (!*ret)
		return -ENOMEM;
	base64_encode(text, strlen(text), *ret);
	return 0;
}
