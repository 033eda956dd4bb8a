/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of the server's configuration, read and checked. */
#include <ctype.h>
#include <errno.h>

#include "access_i.h"
#include "report.h"

#define RULES_MAX 1024
#define VALUES_MAX 1024

void access_free(struct access *a)
{
	if (!a)
		return;
	for (size_t i = 0; i < a->n_people; i++)
		free(a->people[i]);
	for (size_t i = 0; i < a->n_defs; i++) {
		struct definition *d = &a->defs[i];

		for (size_t j = 0; j < d->n_values; j++) {
			free(d->values[j].name);
			json_decref(d->values[j].claims);
		}
		free(d->values);
		free(d->fqn);
		free(d->claim);
	}
	free(a->defs);
	free(a);
}

static void access_cleanup(struct access **a)
{
	access_free(*a);
}

static char *lower(const char *s)
{
	char *copy = strdup(s);

	for (char *c = copy; c && *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return copy;
}

static bool strings_only(const json_t *list, size_t min, size_t max)
{
	json_t *each;
	size_t i;

	if (!json_is_array(list) || json_array_size(list) < min || json_array_size(list) > max)
		return false;
	json_array_foreach(list, i, each) if (!json_string_length(each)) return false;
	return true;
}

static int parse_values(struct definition *d, const json_t *values, const json_t *map)
{
	const char *name;
	json_t *each;
	size_t i;

	if (!strings_only(values, 1, VALUES_MAX))
		return fail(-EPROTO, "attributes: %s: \"values\" must be a list of names", d->fqn);
	if (map && !json_is_object(map))
		return fail(-EPROTO, "attributes: %s: \"map\" must be an object of lists", d->fqn);
	json_object_foreach((json_t *)map, name, each)
	{
		bool known = false;

		for (i = 0; i < json_array_size(values); i++)
			known |= strcmp(json_string_value(json_array_get(values, i)), name) == 0;
		if (!known || !strings_only(each, 0, VALUES_MAX))
			return fail(-EPROTO, "attributes: %s: \"map\": \"%.80s\" %s", d->fqn, name,
				    known ? "must be a list of claim values" : "is not one of \"values\"");
	}
	d->values = calloc(json_array_size(values), sizeof(*d->values));
	if (!d->values)
		return -ENOMEM;
	json_array_foreach(values, i, each)
	{
		struct value *v = &d->values[d->n_values++];

		v->name = lower(json_string_value(each));
		v->claims = json_incref(json_object_get(map, json_string_value(each)));
		if (!v->name)
			return -ENOMEM;
	}
	return 0;
}

/* https://namespace/attr/name, nothing behind it */
static bool is_definition(const char *fqn)
{
	const char *host = strncmp(fqn, "https://", 8) == 0 ? fqn + 8 : (strncmp(fqn, "http://", 7) == 0 ? fqn + 7 : ""),
		   *attr = strstr(host, "/attr/");

	return attr && attr != host && attr[6] && !strchr(attr + 6, '/') && memchr(host, '/', (size_t)(attr - host + 1)) == attr;
}

static int parse_definition(struct definition *d, const char *fqn, const json_t *rule)
{
	static const char *const rules[] = {"anyOf", "allOf", "hierarchy"};
	static const char *const members[] = {"rule", "claim", "values", "map"};
	const char *word = json_string_value(json_object_get(rule, "rule")), *claim = json_string_value(json_object_get(rule, "claim")),
		   *name;
	json_t *each;
	size_t i = 0;

	d->fqn = strlen(fqn) < ACCESS_FQN_MAX ? lower(fqn) : NULL;
	if (!d->fqn)
		return strlen(fqn) < ACCESS_FQN_MAX ? -ENOMEM : fail(-EPROTO, "attributes: a name of %zu bytes", strlen(fqn));
	if (!is_definition(d->fqn))
		return fail(-EPROTO, "attributes: %s is not of the form https://NAMESPACE/attr/NAME", d->fqn);
	while (i < ARRAY_SIZE(rules) && (!word || strcmp(word, rules[i])))
		i++;
	if (i == ARRAY_SIZE(rules))
		return fail(-EPROTO, "attributes: %s: \"rule\" must be anyOf, allOf or hierarchy", d->fqn);
	d->rule = (enum rule)i;
	if (!claim || !*claim)
		return fail(-EPROTO, "attributes: %s: \"claim\" must name a claim of the access tokens", d->fqn);
	json_object_foreach((json_t *)rule, name, each)
	{
		bool known = false;

		for (i = 0; i < ARRAY_SIZE(members); i++)
			known |= strcmp(name, members[i]) == 0;
		if (!known)
			return fail(-EPROTO, "attributes: %s: there is no \"%.80s\"", d->fqn, name);
	}
	d->claim = strdup(claim);
	return d->claim ? parse_values(d, json_object_get(rule, "values"), json_object_get(rule, "map")) : -ENOMEM;
}

static int parse_definitions(struct access *a, const json_t *rules)
{
	const char *fqn;
	json_t *each;
	int err = 0;

	if (!rules)
		return 0;
	if (!json_is_object(rules) || json_object_size(rules) > RULES_MAX)
		return fail(-EPROTO, "\"attributes\" must be an object of at most %d rules", RULES_MAX);
	a->defs = calloc(json_object_size(rules) + 1, sizeof(*a->defs));
	if (!a->defs)
		return -ENOMEM;
	json_object_foreach((json_t *)rules, fqn, each) if (!err)
	{
		err = parse_definition(&a->defs[a->n_defs++], fqn, each);
		for (size_t i = 0; !err && i + 1 < a->n_defs; i++)
			if (strcmp(a->defs[i].fqn, a->defs[a->n_defs - 1].fqn) == 0)
				err = fail(-EPROTO, "attributes: %s stands there twice", a->defs[i].fqn);
	}
	return err;
}

int access_parse(const json_t *rules, struct access **ret)
{
	const json_t *people = json_object_get(rules, "people"), *un = json_object_get(rules, "unrestricted");
	CLEANUP(access_cleanup) struct access *a = calloc(1, sizeof(*a));
	const char *word = json_string_value(un);
	int err;

	if (!a)
		return -ENOMEM;
	if (!word || (strcmp(word, "allow") && strcmp(word, "deny")))
		return fail(
		    -EPROTO,
		    "\"unrestricted\" must be \"allow\" (a file without attributes and dissemination list opens for everybody with a "
		    "token, as OpenTDF has it) or \"deny\"");
	a->unrestricted = *word == 'a';
	if (people && !strings_only(people, 1, ACCESS_PEOPLE_MAX))
		return fail(-EPROTO, "\"people\" must be a list of 1 to %d claims, such as [\"email\"]", ACCESS_PEOPLE_MAX);
	for (size_t i = 0; i < (people ? json_array_size(people) : 1); i++) {
		a->people[i] = strdup(people ? json_string_value(json_array_get(people, i)) : "sub");
		if (!a->people[i])
			return -ENOMEM;
		a->n_people++;
	}
	err = parse_definitions(a, json_object_get(rules, "attributes"));
	if (!err)
		*ret = STEAL(a);
	return err;
}
