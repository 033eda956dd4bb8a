/* SPDX-License-Identifier: Apache-2.0 */
/* kas/volume_remote*.c, volume_policy.c: remote KASes and policies of directories in volume.json. */
#include "volume_setup.h"

#include "pubkey_vectors.h"
#include "volume_file.h"
#include "volume_remote.h"

#define URL_A "https://a.example.org/kas"
#define URL_B "https://b.example.org"

static char *pem_of(const char *private)
{
	EVP_PKEY *key = NULL;
	char *pem;

	assert_int_equal(pubkey_private(private, strlen(private), &key), 0);
	pem = pubkey_pem(key);
	assert_non_null(pem);
	EVP_PKEY_free(key);
	return pem;
}

static struct volume_remote remote_with(const char *url, char *pem)
{
	return (struct volume_remote){.url = (char *)url,
				      .issuer = (char *)"https://issuer.example.org/realms/\"x\"",
				      .client_id = (char *)"app",
				      .token_file = (char *)"/nowhere/token",
				      .algorithm = pem ? (char *)"ec:secp256r1" : NULL,
				      .kid = pem ? (char *)"e1" : NULL,
				      .pem = pem};
}

static size_t objects_of(struct volume *v, struct manifest **ret)
{
	struct secret *dek = secret_random();
	char *text = NULL;

	assert_int_equal(kas_wrap(v->kas, dek, v->policy, &text), 0);
	assert_int_equal(manifest_of_keys(text, v->policy, ret), 0);
	free(text);
	secret_free(dek);
	return (*ret)->n_ka;
}

static void test_create(void **state)
{
	char *pem = pem_of(ec_vectors[0].pkcs8);
	struct volume_remote r = remote_with(URL_A, pem);
	struct volume_params par = {.log_half = REDO_HALF_MIN, .no_recovery = true, .remote = &r};
	const char *store = in_dir(base, "with-kas");
	struct manifest *m;
	struct volume *v;

	assert_int_equal(volume_create(store, &par, &key_file), 0);
	v = must_open(store, &key_file);
	assert_int_equal(v->n_remotes, 1);
	assert_int_equal(v->kas_split, -1);
	assert_string_equal(v->remotes[0].url, URL_A);
	assert_string_equal(v->remotes[0].issuer, r.issuer);
	assert_string_equal(v->remotes[0].token_file, "/nowhere/token");
	assert_null(v->remotes[0].secret_file);
	assert_string_equal(v->remotes[0].pem, pem);
	assert_int_equal(v->remotes[0].split, 0);
	/* new files need nothing but the pinned key; opening the volume needed no token */
	assert_int_equal(objects_of(v, &m), 1);
	assert_string_equal(m->ka[0].url, URL_A);
	assert_string_equal(m->ka[0].kid, "e1");
	assert_true(kas_is_remote(v->kas));
	assert_int_not_equal(kas_wrap_until(v->kas, v->policy), 0);
	assert_int_not_equal(volume_remotes_check(v), 0); /* there is no token file */
	assert_non_null(strstr(fail_text(), URL_A));
	manifest_free(m);
	volume_free(v);
	free(pem);
}

static void test_change(void **state)
{
	char *store = copy_of("change"), *pem = pem_of(ec_vectors[0].pkcs8), *rsa = pem_of(rsa_pkcs8);
	struct volume_remote a = remote_with(URL_A, pem), b = remote_with(URL_B, NULL);
	const char *any[] = {URL_A ",embedded"}, *all[] = {"embedded", URL_A, URL_B}, *twice[] = {URL_A, URL_A},
		   *other[] = {"https://c.example.org"}, *unpinned[] = {URL_B}, *own[] = {"embedded"};
	struct volume *v = must_open(store, &key_file), *second = must_open(store, &key_file);
	struct manifest *m;

	assert_false(kas_is_remote(v->kas));
	assert_int_equal(volume_remotes_wrap(v, own, 1), -EINVAL); /* nothing to choose from */
	assert_int_equal(volume_remote_add(v, &a), 0);
	assert_int_equal(v->remotes[0].split, -1);
	assert_int_equal(volume_remote_add(second, &a), -EEXIST); /* who opened it before sees what stands there now */
	assert_int_equal(volume_remote_add(second, &b), 0);
	assert_int_equal(volume_remotes_wrap(v, twice, 2), -EINVAL);
	assert_int_equal(volume_remotes_wrap(v, other, 1), -ENOENT);
	assert_int_equal(volume_remotes_wrap(v, unpinned, 1), -EINVAL);
	assert_int_equal(volume_remotes_wrap(v, any, 1), 0);
	assert_int_equal(volume_remote_pin(v, URL_B, "rsa:2048", "r1", rsa), 0);
	volume_free(second);
	volume_free(v);

	v = must_open(store, &key_file);
	assert_int_equal(v->n_remotes, 2);
	assert_int_equal(objects_of(v, &m), 2);
	assert_string_equal(m->ka[0].sid, m->ka[1].sid);
	assert_int_equal(kas_wrap_until(v->kas, v->policy), 0);
	manifest_free(m);
	assert_int_equal(volume_remotes_wrap(v, all, 3), 0);
	assert_int_equal(volume_remote_remove(v, URL_B), -EBUSY);
	assert_int_equal(volume_kas_rotate(v), 0); /* other changes leave all this alone */
	volume_free(v);

	v = must_open(store, &key_file);
	assert_int_equal(objects_of(v, &m), 3);
	assert_string_equal(m->ka[0].sid, "s1");
	assert_string_equal(m->ka[0].kid, v->kas_kid);
	assert_string_equal(m->ka[2].sid, "s3");
	assert_int_equal(m->ka[2].type, WRAP_RSA);
	manifest_free(m);
	assert_int_equal(volume_remotes_wrap(v, own, 1), 0);
	assert_int_equal(volume_remote_remove(v, URL_B), 0);
	assert_int_equal(volume_remote_remove(v, URL_B), -ENOENT);
	assert_int_equal(volume_remote_remove(v, URL_A), 0);
	volume_free(v);
	v = must_open(store, &key_file);
	assert_int_equal(v->n_remotes, 0);
	assert_int_equal(v->kas_split, 0);
	assert_int_equal(objects_of(v, &m), 1);
	manifest_free(m);
	volume_free(v);
	free(pem);
	free(rsa);
	free(store);
}

static void test_paths(void **state)
{
	char *store = copy_of("paths"), *inside, *pem = pem_of(ec_vectors[0].pkcs8);
	struct volume_remote r = remote_with(URL_A, pem);
	struct volume *v = must_open(store, &key_file);

	assert_true(asprintf(&inside, "%s/ca.pem", store) > 0);
	r.ca_file = inside;
	assert_int_equal(volume_remote_add(v, &r), -EINVAL);
	r.ca_file = (char *)"ca.pem";
	assert_int_equal(volume_remote_add(v, &r), -EINVAL);
	r.ca_file = (char *)"~/ca.pem";
	assert_int_equal(volume_remote_add(v, &r), 0);
	volume_free(v);
	free(inside);
	free(store);
	free(pem);
}

/* Every byte of it is under the MAC; what is not understood is refused, also when the MAC is right. */
static void test_text(void **state)
{
	static const struct {
		const char *text, *by;
		int err;
	} changes[] = {
	    {"\"split\":0", "\"split\":1", -EPROTO},         {"\"split\":0", "\"split\":-2", -EPROTO},
	    {"\"split\":0", "\"splat\":0", -ENOTSUP},        {"\"embedded\":-1", "\"embedded\":9", -EPROTO},
	    {"\"embedded\":-1", "\"enbedded\":0", -ENOTSUP}, {"\"kid\":\"e1\"", "\"kid\":1", -EPROTO},
	    {"\"kid\":\"e1\"", "\"kit\":\"e1\"", -ENOTSUP},  {"\"url\":\"https", "\"url\":\"\\u0000h", -EPROTO},
	    {"\"issuer\":", "\"issuers\":", -ENOTSUP},
	};
	const char *store = in_dir(base, "with-kas");
	struct volume *v = must_open(store, &key_file), *got;
	char *text = NULL;
	size_t len;

	assert_int_equal(volume_text_make(v, &text, &len), 0);
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		char *at = strstr(text + (strstr(text, "\"remotes\"") - text), changes[i].text), *other;

		assert_non_null(at);
		assert_true(asprintf(&other, "%.*s%s%s", (int)(at - text), text, changes[i].by, at + strlen(changes[i].text)) > 0);
		got = volume_new();
		fail_clear();
		if (volume_text_parse(other, strlen(other), got) != changes[i].err)
			print_message("%s: %s\n", changes[i].by, fail_text());
		volume_free(got);
		got = volume_new();
		assert_int_equal(volume_text_parse(other, strlen(other), got), changes[i].err);
		assert_int_equal(volume_text_check(other, strlen(other), v->k_conf), -EBADMSG);
		volume_free(got);
		free(other);
	}
	free(text);
	volume_free(v);
}

static void test_policies(void **state)
{
	static const char one[] = "{\"uuid\":\"1\",\"body\":{\"dataAttributes\":[],\"dissem\":[]}}",
			  two[] = "{\"uuid\":\"2\",\"body\":{\"dataAttributes\":[],\"dissem\":[]}}";
	static const char *const bad[] = {"/a", "a/", "a//b", ".", "a/../b", ".tdfs", ".tdfs/kas"};
	char *store = copy_of("policies");
	struct volume *v = must_open(store, &key_file);
	const char *was, *of_a;
	char *of_ab, dir[16];

	assert_int_equal(volume_policy_set(v, "a", one, strlen(one)), 0);
	assert_int_equal(volume_policy_set(v, "a/b", two, strlen(two)), 0);
	assert_int_equal(volume_policy_set(v, "a/b", "{}", 2), -EPROTO);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(volume_policy_set(v, bad[i], one, strlen(one)), -EINVAL);
	assert_int_equal(volume_policy_set(v, "", NULL, 0), -EINVAL);
	volume_free(v);

	v = must_open(store, &key_file);
	was = v->policy;
	of_a = volume_policy_at(v, "a");
	of_ab = strdup(volume_policy_at(v, "a/b"));
	assert_string_not_equal(of_a, was);
	assert_string_not_equal(of_a, of_ab);
	assert_ptr_equal(volume_policy_at(v, "a/x.tdf"), of_a);
	assert_string_equal(volume_policy_at(v, "a/b/c/x.tdf"), of_ab);
	assert_ptr_equal(volume_policy_at(v, "a/bc.tdf"), of_a);
	assert_ptr_equal(volume_policy_at(v, "ab/x.tdf"), was);
	assert_ptr_equal(volume_policy_at(v, ""), was);
	assert_int_equal(volume_policy_set(v, "a", two, strlen(two)), 0);
	assert_string_equal(volume_policy_at(v, "a"), of_ab);
	assert_int_equal(volume_policy_set(v, "a/b", NULL, 0), 0);
	assert_int_equal(volume_policy_set(v, "a", NULL, 0), 0);
	assert_int_equal(v->n_policies, 0);
	volume_free(v);
	v = must_open(store, &key_file);
	assert_int_equal(v->n_policies, 0);
	/* when there is no room for another, those that are there can be changed and taken away */
	for (size_t i = 0; i < VOLUME_POLICIES_MAX; i++) {
		snprintf(dir, sizeof(dir), "d%zu", i);
		assert_int_equal(volume_policy_set(v, dir, one, strlen(one)), 0);
	}
	assert_int_equal(volume_policy_set(v, "more", one, strlen(one)), -ENOSPC);
	assert_int_equal(volume_policy_set(v, "d7", two, strlen(two)), 0);
	assert_string_equal(volume_policy_at(v, "d7"), of_ab);
	assert_int_equal(volume_policy_set(v, "d8", NULL, 0), 0);
	assert_int_equal(volume_policy_set(v, "more", one, strlen(one)), 0);
	volume_free(v);
	free(of_ab);
	free(store);
}

/* A file of a policy with a plan is for the plan's keys, in this process and the next; all others as ever. */
static void test_plans(void **state)
{
	static const char policy[] = "eyJ1dWlkIjoiMSJ9", other[] = "eyJ1dWlkIjoiMiJ9";
	char *store = copy_of("plans"), *pem = pem_of(ec_vectors[0].pkcs8), name[24];
	struct volume *v = must_open(store, &key_file);
	struct volume_remote a = remote_with(URL_A, pem), b = remote_with(URL_B, pem), keys[2] = {a, b};
	const struct volume_plan *p;
	struct manifest *m;
	char *text = NULL;

	assert_int_equal(volume_plan_set(v, policy, &a, 1), -ENOKEY); /* not trusted */
	assert_int_equal(volume_remote_add(v, &a), 0);
	assert_int_equal(volume_remote_add(v, &b), 0);
	keys[0].split = 1;
	assert_int_equal(volume_plan_set(v, policy, keys, 2), -EINVAL);
	keys[0].split = 0;
	keys[1].split = 2;
	assert_int_equal(volume_plan_set(v, policy, keys, 2), -EINVAL);
	keys[1].split = 1;
	keys[1].pem = NULL;
	assert_int_equal(volume_plan_set(v, policy, keys, 2), -EINVAL);
	assert_null(volume_plan_of(v, policy));
	keys[1].pem = pem;
	assert_int_equal(volume_plan_set(v, policy, keys, 2), 0);
	for (int round = 0; round < 2; round++) {
		p = volume_plan_of(v, policy);
		assert_non_null(p);
		assert_int_equal(p->n, 2);
		assert_null(p->keys[0].token_file);
		assert_null(volume_plan_of(v, other));
		assert_int_equal(kas_wrap(v->kas, v->vk, policy, &text), 0);
		assert_int_equal(manifest_of_keys(text, policy, &m), 0);
		free(text);
		assert_int_equal(m->n_ka, 2);
		assert_string_equal(m->ka[1].url, URL_B);
		assert_string_not_equal(m->ka[0].sid, m->ka[1].sid);
		assert_true(kas_is_current(v->kas, m));
		manifest_free(m);
		assert_int_equal(objects_of(v, &m), 1);
		assert_string_equal(m->ka[0].kid, v->kas_kid);
		manifest_free(m);
		volume_free(v);
		v = must_open(store, &key_file);
	}
	assert_int_equal(volume_remote_remove(v, URL_B), 0); /* no policy that is set has that plan: it goes along */
	assert_null(volume_plan_of(v, policy));
	/* only so many */
	for (size_t i = 0; i <= VOLUME_PLANS_MAX; i++) {
		snprintf(name, sizeof(name), "p%zu", i);
		assert_int_equal(volume_plan_set(v, name, &a, 1), i < VOLUME_PLANS_MAX ? 0 : -ENOSPC);
	}
	assert_int_equal(volume_plan_set(v, "p7", NULL, 0), 0);
	assert_int_equal(volume_plan_set(v, "p7", NULL, 0), 0);
	assert_int_equal(volume_plan_set(v, "more", &a, 1), 0);
	volume_free(v);
	v = must_open(store, &key_file);
	assert_int_equal(v->n_plans, VOLUME_PLANS_MAX);
	assert_null(volume_plan_of(v, "p7"));
	assert_non_null(volume_plan_of(v, "more"));
	volume_free(v);
	free(pem);
	free(store);
}

/* The shares of a file's keys, as "URL+URL & URL", in order; KASes by their last letter, "-" the embedded one */
static void shares_of(struct volume *v, const char *policy, char ret[static 64])
{
	struct manifest *m;
	char *text = NULL;
	size_t n = 0;

	assert_int_equal(kas_wrap(v->kas, v->vk, policy, &text), 0);
	assert_int_equal(manifest_of_keys(text, policy, &m), 0);
	assert_true(kas_is_current(v->kas, m));
	for (size_t i = 0; i < m->n_ka && n < 50; i++) {
		if (i)
			n += (size_t)sprintf(ret + n, "%s", strcmp(m->ka[i].sid, m->ka[i - 1].sid) ? "&" : "+");
		n += (size_t)sprintf(ret + n, "%s",
				     strcmp(m->ka[i].url, URL_A) == 0	? "a"
				     : strcmp(m->ka[i].url, URL_B) == 0 ? "b"
									: "-");
	}
	manifest_free(m);
	free(text);
}

/* What every file needs by `kas wrap` is not dropped because a platform maps other keys to attributes. */
static void test_plans_keep(void **state)
{
	static const struct {
		const char *splits[3];
		size_t n_splits, n_keys; /* of the plan: a, b */
		bool both;		 /* the plan wants both, else either */
		const char *want;
	} cases[] = {
	    {{URL_A}, 1, 1, false, "a"},
	    {{URL_B}, 1, 1, false, "a"},
	    {{"embedded"}, 1, 1, false, "a"},
	    {{URL_A, URL_B}, 2, 1, false, "a&b"},
	    {{URL_B, URL_A}, 2, 1, false, "a&b"},
	    {{URL_A, URL_B}, 2, 2, true, "a&b"},
	    {{URL_A, URL_B}, 2, 2, false, "a+b&a&b"}, /* one of either is not both */
	    {{URL_A "," URL_B}, 1, 1, false, "a"},
	    {{URL_A, "embedded," URL_B}, 2, 1, false, "a&-+b"},
	    {{URL_A "," URL_B, "embedded"}, 2, 2, false, "a+b&-"},
	    {{"embedded", URL_B, URL_A}, 3, 1, false, "a&-&b"},
	};
	static const char policy[] = "eyJ1dWlkIjoiMSJ9";
	char *store = copy_of("keeps"), *pem = pem_of(ec_vectors[0].pkcs8), got[64];
	struct volume *v = must_open(store, &key_file);
	struct volume_remote a = remote_with(URL_A, pem), b = remote_with(URL_B, pem), keys[16] = {a, b};

	assert_int_equal(volume_remote_add(v, &a), 0);
	assert_int_equal(volume_remote_add(v, &b), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		keys[1].split = cases[i].both;
		assert_int_equal(volume_remotes_wrap(v, cases[i].splits, cases[i].n_splits), 0);
		assert_int_equal(volume_plan_set(v, policy, keys, cases[i].n_keys), 0);
		for (int round = 0; round < 2; round++) {
			shares_of(v, policy, got);
			assert_string_equal(got, cases[i].want);
			volume_free(v);
			v = must_open(store, &key_file);
		}
	}
	/* no room for what is needed: whichever is said last is refused */
	for (int i = 1; i < 16; i++) {
		keys[i] = a;
		keys[i].split = i;
	}
	assert_int_equal(volume_plan_set(v, policy, keys, 16), -ENOSPC);
	assert_int_equal(volume_remotes_wrap(v, (const char *const[]){URL_A}, 1), 0);
	assert_int_equal(volume_plan_set(v, policy, keys, 16), 0);
	assert_int_equal(volume_remotes_wrap(v, (const char *const[]){URL_A, URL_B}, 2), -ENOSPC);
	volume_free(v);
	free(pem);
	free(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_create), cmocka_unit_test(test_change),   cmocka_unit_test(test_paths),
	    cmocka_unit_test(test_text),   cmocka_unit_test(test_policies), cmocka_unit_test(test_plans), cmocka_unit_test(test_plans_keep),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
