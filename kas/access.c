/* SPDX-License-Identifier: Apache-2.0 */
#include "access_i.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "json_in.h"
#include "report.h"

int access_policy(const char *text, size_t len, json_t **ret)
{
	json_t *policy;

	if (len > ACCESS_POLICY_MAX)
		return fail(-EPROTO, "a policy of %zu bytes", len);
	policy = json_in(text, len, JSON_PART_NODES);
	if (!json_is_object(policy)) {
		json_decref(policy);
		return fail(-EPROTO, "the policy is not a JSON object");
	}
	*ret = policy;
	return 0;
}

/* A claim by its name, or by a path with dots ("realm_access.roles"). */
static const json_t *claim_get(const json_t *claims, const char *path)
{
	const json_t *v = json_object_get(claims, path);
	char part[128];

	while (!v && strchr(path, '.')) {
		size_t n = strcspn(path, ".");

		if (n >= sizeof(part))
			return NULL;
		memcpy(part, path, n);
		part[n] = '\0';
		claims = json_object_get(claims, part);
		path += n + 1;
		v = json_object_get(claims, path);
	}
	return v;
}

/* Does the claim, a string or a list of strings, hold this one? */
static bool claim_has(const json_t *claim, const char *want, bool any_case)
{
	const char *s = json_string_value(claim);
	json_t *each;
	size_t i;

	if (s)
		return (any_case ? strcasecmp(s, want) : strcmp(s, want)) == 0;
	json_array_foreach((json_t *)claim, i, each) if (json_is_string(each) && claim_has(each, want, any_case)) return true;
	return false;
}

static bool value_held(const struct definition *d, size_t i, const json_t *claims)
{
	const json_t *claim = claim_get(claims, d->claim);
	const struct value *v = &d->values[i];
	json_t *each;
	size_t k;

	if (!v->claims)
		return claim_has(claim, v->name, true);
	json_array_foreach(v->claims, k, each) if (claim_has(claim, json_string_value(each), false)) return true;
	return false;
}

/* One attribute of the policy: its definition and value.  -EACCES with the reason. */
static int attribute_find(const struct access *a, const char *text, const struct definition **ret_d, size_t *ret_value, char *reason)
{
	char fqn[ACCESS_FQN_MAX], *value;
	size_t n = text ? strlen(text) : 0;

	if (!n || n >= sizeof(fqn)) {
		snprintf(reason, ACCESS_REASON, "policy malformed: an attribute without a name");
		return -EACCES;
	}
	for (size_t i = 0; i <= n; i++)
		fqn[i] = (char)tolower((unsigned char)text[i]);
	value = strstr(fqn, "/value/");
	for (size_t i = 0; value && i < a->n_defs; i++) {
		const struct definition *d = &a->defs[i];

		if (strlen(d->fqn) != (size_t)(value - fqn) || memcmp(d->fqn, fqn, (size_t)(value - fqn)))
			continue;
		for (size_t k = 0; k < d->n_values; k++)
			if (strcmp(d->values[k].name, value + 7) == 0) {
				*ret_d = d;
				*ret_value = k;
				return 0;
			}
	}
	snprintf(reason, ACCESS_REASON, "no rule for %.120s", fqn);
	return -EACCES;
}

/* What the policy asks for of one definition, all its values seen. */
struct demand {
	const struct definition *d;
	size_t highest; /* value */
	bool any, all;  /* of the values seen the caller has one, has every one */
};

static bool demand_met(const struct demand *m, const json_t *claims)
{
	switch (m->d->rule) {
	case RULE_ANY_OF:
		return m->any;
	case RULE_ALL_OF:
		return m->all;
	case RULE_HIERARCHY:
		for (size_t i = 0; i <= m->highest; i++)
			if (value_held(m->d, i, claims))
				return true;
		return false;
	}
	return false;
}

static int check_attributes(const struct access *a, const json_t *list, const json_t *claims, char *reason)
{
	struct demand demands[ACCESS_ATTRIBUTES_MAX];
	size_t n = 0, i;
	json_t *each;

	if (json_array_size(list) > ACCESS_ATTRIBUTES_MAX) {
		snprintf(reason, ACCESS_REASON, "policy has %zu attributes: %d are checked", json_array_size(list), ACCESS_ATTRIBUTES_MAX);
		return -EACCES;
	}
	json_array_foreach(list, i, each)
	{
		const struct definition *d = NULL;
		size_t value = 0, k = 0;
		bool held;

		if (attribute_find(a, json_string_value(json_object_get(each, "attribute")), &d, &value, reason))
			return -EACCES;
		while (k < n && demands[k].d != d)
			k++;
		if (k == n)
			demands[n++] = (struct demand){d, value, false, true};
		held = value_held(d, value, claims);
		demands[k].any |= held;
		demands[k].all &= held;
		demands[k].highest = MIN(demands[k].highest, value);
	}
	for (i = 0; i < n; i++)
		if (!demand_met(&demands[i], claims)) {
			snprintf(reason, ACCESS_REASON, "attribute %.120s", demands[i].d->fqn);
			return -EACCES;
		}
	return 0;
}

static int check_dissem(const struct access *a, const json_t *list, const json_t *claims, char *reason)
{
	json_t *each;
	size_t i;

	if (json_array_size(list) > ACCESS_DISSEM_MAX) {
		snprintf(reason, ACCESS_REASON, "dissem has %zu names: %d are checked", json_array_size(list), ACCESS_DISSEM_MAX);
		return -EACCES;
	}
	for (size_t p = 0; p < a->n_people; p++) {
		const json_t *claim = claim_get(claims, a->people[p]), *verified = json_object_get(claims, "email_verified");

		/* an address that the issuer has not seen to be his may be anybody's (OpenID Connect Core 5.7) */
		if (strcmp(a->people[p], "email") == 0 && verified && !json_is_true(verified))
			continue;

		/* the case of an address does not matter, that of a name may */
		json_array_foreach((json_t *)list, i, each)
		{
			const char *who = json_string_value(each);

			if (who && *who && claim_has(claim, who, strchr(who, '@') != NULL))
				return 0;
		}
	}
	snprintf(reason, ACCESS_REASON, "not in dissem");
	return -EACCES;
}

/* The list of this name in the policy's body; absent and null are an empty one. */
static int body_list(const json_t *body, const char *name, const json_t **ret, char *reason)
{
	const json_t *list = json_object_get(body, name);

	if (list && !json_is_null(list) && !json_is_array(list)) {
		snprintf(reason, ACCESS_REASON, "policy malformed: %s", name);
		return -EACCES;
	}
	*ret = json_is_array(list) ? list : NULL;
	return 0;
}

/* "2027-01-01T00:00:00Z" and no other form */
static int check_expiry(const json_t *policy, int64_t now, char *reason)
{
	const json_t *v = json_object_get(policy, "tdfs.expiry");
	const char *text = json_string_value(v), *end;
	struct tm tm = {0};

	if (!v)
		return 0;
	end = json_string_length(v) == 20 ? strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm) : NULL;
	if (end && !*end && now < timegm(&tm))
		return 0;
	snprintf(reason, ACCESS_REASON, "tdfs.expiry %.40s", end && !*end ? text : "malformed");
	return -EACCES;
}

int access_check(const struct access *a, const json_t *policy, const json_t *claims, int64_t now, char ret_reason[static ACCESS_REASON])
{
	const json_t *body = json_object_get(policy, "body"), *attributes = NULL, *dissem = NULL;

	if (body && !json_is_null(body) && !json_is_object(body)) {
		snprintf(ret_reason, ACCESS_REASON, "policy malformed: body");
		return -EACCES;
	}
	if (check_expiry(policy, now, ret_reason) || body_list(body, "dataAttributes", &attributes, ret_reason) ||
	    body_list(body, "dissem", &dissem, ret_reason))
		return -EACCES;
	if (!json_array_size(attributes) && !json_array_size(dissem)) {
		snprintf(ret_reason, ACCESS_REASON, "unrestricted");
		return a->unrestricted ? 0 : -EACCES;
	}
	if (json_array_size(dissem) && check_dissem(a, dissem, claims, ret_reason))
		return -EACCES;
	if (json_array_size(attributes) && check_attributes(a, attributes, claims, ret_reason))
		return -EACCES;
	snprintf(ret_reason, ACCESS_REASON, "%s",
		 json_array_size(attributes) ? (json_array_size(dissem) ? "attributes and dissem" : "attributes") : "dissem");
	return 0;
}

int access_rule(const struct access *a, const char *fqn)
{
	static const int numbers[] = {[RULE_ALL_OF] = 1, [RULE_ANY_OF] = 2, [RULE_HIERARCHY] = 3};
	const struct definition *d;
	char reason[ACCESS_REASON];
	size_t value;

	return attribute_find(a, fqn, &d, &value, reason) ? 0 : numbers[d->rule];
}
