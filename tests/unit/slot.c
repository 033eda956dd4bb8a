/* SPDX-License-Identifier: Apache-2.0 */
/* slot.c and recovery_key.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include <jansson.h>

#include "encode.h"
#include "report.h"
#include "slot_kas.h"

#define QUICK SCRYPT_LOGN_MIN

static struct credential cred(enum slot_kind kind, const char *text)
{
	return (struct credential){.kind = kind, .bytes = (uint8_t *)text, .len = strlen(text)};
}

static void round_trip(struct credential c, struct credential wrong)
{
	struct secret *vk = secret_random(), *got = NULL;
	struct slot s = {.id = 3, .label = "mine"};

	assert_int_equal(slot_make(&s, &c, vk, QUICK), 0);
	assert_int_equal(s.id, 3);
	assert_string_equal(s.label, "mine");
	assert_int_equal(s.kind, c.kind);
	assert_true(s.created > 1600000000);
	assert_int_equal(slot_open(&s, &c, &got), 0);
	assert_memory_equal(got->b, vk->b, SECRET_LEN);
	secret_free(got);
	got = NULL;
	assert_int_equal(slot_open(&s, &wrong, &got), -EKEYREJECTED);
	assert_null(got);
	s.salt[31] ^= 1;
	assert_int_equal(slot_open(&s, &c, &got), -EKEYREJECTED);
	s.salt[31] ^= 1;
	s.wrapped[20] ^= 1;
	assert_int_equal(slot_open(&s, &c, &got), -EKEYREJECTED);
	s.wrapped[20] ^= 1;
	assert_null(got);
	/* the kinds are apart even for equal bytes */
	wrong = c;
	wrong.kind = c.kind == SLOT_KEYFILE ? SLOT_PASSPHRASE : SLOT_KEYFILE;
	assert_int_equal(slot_open(&s, &wrong, &got), -EKEYREJECTED);
	secret_free(vk);
}

static void test_passphrase(void **state)
{
	round_trip(cred(SLOT_PASSPHRASE, "correct horse"), cred(SLOT_PASSPHRASE, "correct horse "));
}

static void test_keyfile(void **state)
{
	round_trip(cred(SLOT_KEYFILE, "0123456789abcdef"), cred(SLOT_KEYFILE, "0123456789abcdeF"));
}

static void test_recovery_slot(void **state)
{
	char a[RECOVERY_TEXT], b[RECOVERY_TEXT], lower[RECOVERY_TEXT];
	struct secret *vk = secret_random(), *got = NULL;
	struct slot s = {.id = 0};
	struct credential c;
	size_t n = 0;

	assert_int_equal(recovery_new(a), 0);
	assert_int_equal(recovery_new(b), 0);
	assert_string_not_equal(a, b);
	round_trip(cred(SLOT_RECOVERY, a), cred(SLOT_RECOVERY, b));

	/* typed otherwise */
	for (const char *p = a; *p; p++)
		if (*p != '-')
			lower[n++] = (char)tolower(*p);
	lower[n] = '\0';
	c = cred(SLOT_RECOVERY, a);
	assert_int_equal(slot_make(&s, &c, vk, 0), 0);
	c = cred(SLOT_RECOVERY, lower);
	assert_int_equal(slot_open(&s, &c, &got), 0);
	assert_memory_equal(got->b, vk->b, SECRET_LEN);
	secret_free(got);
	got = NULL;
	c = cred(SLOT_RECOVERY, "ABC");
	assert_int_equal(slot_open(&s, &c, &got), -EPROTO);
	assert_int_equal(slot_make(&s, &c, vk, 0), -EPROTO);
	secret_free(vk);
}

static void test_refused(void **state)
{
	struct secret *vk = secret_random();
	struct slot s = {.id = 1}, before;
	struct credential c = cred(SLOT_PASSPHRASE, "");

	before = s;
	assert_int_equal(slot_make(&s, &c, vk, QUICK), -EINVAL);
	c = cred(SLOT_KEYFILE, "0123456789abcde");
	assert_int_equal(slot_make(&s, &c, vk, QUICK), -EINVAL);
	c = cred(SLOT_PASSPHRASE, "x");
	assert_int_equal(slot_make(&s, &c, vk, 14), -EINVAL);
	assert_int_equal(slot_make(&s, &c, vk, 21), -EINVAL);
	assert_memory_equal(&s, &before, sizeof(s)); /* untouched on failure */
	secret_free(vk);
}

/* A forged slot must not make us take memory or time. */
static void test_kdf_bounds(void **state)
{
	static const struct {
		unsigned log_n, r, p;
	} v[] = {{0, 8, 1},  {1, 8, 1},  {14, 8, 1}, {21, 8, 1}, {63, 8, 1},          {15, 1, 1},
		 {15, 9, 1}, {15, 0, 1}, {15, 8, 0}, {15, 8, 5}, {20, 8, 0xffffffff}, {20, 0x80000000, 4}};
	struct secret *vk = secret_random(), *got = NULL;
	struct credential c = cred(SLOT_PASSPHRASE, "x");
	struct slot s = {.id = 0};
	clock_t start;

	assert_int_equal(slot_make(&s, &c, vk, QUICK), 0);
	start = clock();
	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		s.log_n = v[i].log_n;
		s.r = v[i].r;
		s.p = v[i].p;
		assert_int_equal(slot_open(&s, &c, &got), -EPROTO);
	}
	assert_true(clock() - start < CLOCKS_PER_SEC / 50);
	assert_null(got);
	secret_free(vk);
}

static void test_calibration(void **state)
{
	struct secret *vk = secret_random(), *got = NULL;
	struct credential c = cred(SLOT_PASSPHRASE, "x");
	struct slot s = {.id = 0};

	assert_int_equal(slot_make(&s, &c, vk, 0), 0);
	assert_in_range(s.log_n, 15, 18);
	assert_int_equal(s.r, 8);
	assert_int_equal(s.p, 1);
	assert_int_equal(slot_open(&s, &c, &got), 0);
	assert_memory_equal(got->b, vk->b, SECRET_LEN);
	secret_free(got);
	secret_free(vk);
}

/* Every wrong character, every swap of neighbours and every swap of groups is found, and the group named. */
static void test_recovery_typos(void **state)
{
	static const char alphabet[] = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
	char key[RECOVERY_TEXT], bad[RECOVERY_TEXT], want[64];

	for (int round = 0; round < 20; round++) {
		size_t len;

		assert_int_equal(recovery_new(key), 0);
		len = strlen(key);
		assert_int_equal(len, 47);
		assert_int_equal(strspn(key, "23456789ABCDEFGHJKLMNPQRSTUVWXYZ-"), len);
		assert_int_equal(recovery_check(key, len), 0);
		for (size_t i = 0; i < len; i++) {
			if (key[i] == '-')
				continue;
			snprintf(want, sizeof(want), "mistyped in group %zu", i / 6 + 1);
			for (const char *a = alphabet; *a; a++) {
				strcpy(bad, key);
				bad[i] = *a;
				if (*a == key[i])
					continue;
				assert_int_equal(recovery_check(bad, len), -EPROTO);
				assert_non_null(strstr(fail_text(), want));
			}
			strcpy(bad, key);
			bad[i] = 'O';
			assert_int_equal(recovery_check(bad, len), -EPROTO);
			snprintf(want, sizeof(want), "group %zu", i / 6 + 1);
			assert_non_null(strstr(fail_text(), want));
			/* two characters of a group swapped */
			for (size_t j = i + 1; j < len && key[j] != '-'; j++) {
				strcpy(bad, key);
				bad[i] = key[j];
				bad[j] = key[i];
				assert_int_equal(recovery_check(bad, len), key[i] == key[j] ? 0 : -EPROTO);
			}
			/* across the dash */
			if (key[i + 1] == '-' && key[i] != key[i + 2]) {
				strcpy(bad, key);
				bad[i] = key[i + 2];
				bad[i + 2] = key[i];
				assert_int_equal(recovery_check(bad, len), -EPROTO);
			}
			/* one left out, one too many */
			memcpy(bad, key, i);
			strcpy(bad + i, key + i + 1);
			assert_int_equal(recovery_check(bad, len - 1), -EPROTO);
			memcpy(bad, key, i);
			bad[i] = 'A';
			strcpy(bad + i + 1, key + i);
			assert_int_equal(recovery_check(bad, len + 1), -EPROTO);
		}
		for (size_t g = 0; g < 8; g++)
			for (size_t h = g + 1; h < 8; h++) {
				strcpy(bad, key);
				memcpy(bad + 6 * g, key + 6 * h, 5);
				memcpy(bad + 6 * h, key + 6 * g, 5);
				if (strcmp(bad, key))
					assert_int_equal(recovery_check(bad, len), -EPROTO);
			}
	}
	assert_int_equal(recovery_check("", 0), -EPROTO);
	assert_int_equal(recovery_check("\0\0\0", 3), -EPROTO);
}

static void test_credential_free(void **state)
{
	struct credential c = {.kind = SLOT_KEYFILE, .bytes = malloc(4), .len = 4};

	memcpy(c.bytes, "abcd", 4);
	credential_free(&c);
	assert_null(c.bytes);
	assert_int_equal(c.len, 0);
	credential_free(&c); /* again is harmless */
}

#define POLICY "eyJ1dWlkIjoiMSIsImJvZHkiOnt9fQ=="

/* A slot for a KAS, and the KAS */
static void kas_setup(struct slot *s, const struct secret *vk, struct kas **ret)
{
	EVP_PKEY *key = pubkey_new_ec();
	struct volume_remote to = {.url = (char *)"https://kas.example.org/kas", .kid = (char *)"e1", .pem = pubkey_pem(key)};

	*ret = kas_new();
	assert_int_equal(kas_add_local(*ret, "e1", to.url, key), 0);
	assert_int_equal(slot_kas_make(s, &to, POLICY, vk), 0);
	free(to.pem);
}

static void test_kas_slot(void **state)
{
	struct secret *vk = secret_random(), *share = NULL, *kek = secret_new(), *got = secret_new();
	struct slot s = {.id = 3}, again = {.id = 3};
	struct kas *kas = NULL;
	uint8_t check[VOLUME_CHECK_LEN], other[VOLUME_CHECK_LEN];
	json_t *j;

	kas_setup(&s, vk, &kas);
	assert_int_equal(s.kind, SLOT_KAS);
	assert_int_equal(s.id, 3);
	assert_string_equal(s.kas->ka[0].url, "https://kas.example.org/kas");
	assert_string_equal(s.kas->policy, POLICY);
	/* what the format says, by hand */
	assert_int_equal(kas_unwrap(kas, s.kas, &share), 0);
	assert_memory_not_equal(share->b, vk->b, SECRET_LEN); /* the KAS does not see the volume key */
	assert_int_equal(
	    hkdf((struct part){share->b, 32}, (struct part){s.salt, sizeof(s.salt)}, (struct part){"tdfs slot kas", 13}, kek->b, 32), 0);
	assert_int_equal(aead_open(kek, s.wrapped, sizeof(s.wrapped), NULL, got->b), 0);
	assert_memory_equal(got->b, vk->b, SECRET_LEN);
	/* the policy is bound to the share */
	secret_free(share);
	share = NULL;
	s.kas->policy[5] ^= 1;
	assert_int_equal(kas_unwrap(kas, s.kas, &share), -EBADMSG);
	s.kas->policy[5] ^= 1;
	/* written and read back */
	j = json_pack("{s:s, s:s}", "access", s.kas->key_access_text, "policy", s.kas->policy);
	assert_int_equal(slot_kas_parse(j, &again), 0);
	assert_string_equal(again.kas->key_access_text, s.kas->key_access_text);
	json_decref(j);
	assert_int_equal(volume_check(vk, check), 0);
	assert_int_equal(volume_check(kek, other), 0);
	assert_memory_not_equal(check, other, sizeof(check));
	slot_clear(&s);
	slot_clear(&again);
	kas_free(kas);
	secret_free(share);
	secret_free(kek);
	secret_free(got);
	secret_free(vk);
}

static void test_kas_slot_parse(void **state)
{
	static const char *const bad[] = {
	    "7",
	    "{}",
	    "{\"access\":\"[]\",\"policy\":\"\"}",
	    "{\"access\":\"\",\"policy\":\"\"}",
	    "{\"access\":\"[7]\",\"policy\":\"\"}",
	    "{\"access\":7,\"policy\":\"\"}",
	    "{\"access\":\"[{}]\",\"policy\":7}",
	    "{\"access\":\"[{}]\",\"policy\":\"\",\"more\":1}",
	};
	struct secret *vk = secret_random();
	struct slot s = {0};
	struct kas *kas = NULL;
	char *two, *big = malloc(SLOT_ACCESS_MAX + 3);
	json_t *j;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		j = json_loads(bad[i], JSON_DECODE_ANY, NULL);
		assert_non_null(j);
		assert_int_equal(slot_kas_parse(j, &s), -EPROTO);
		slot_clear(&s);
		json_decref(j);
	}
	assert_int_equal(slot_kas_parse(NULL, &s), -EPROTO);
	kas_setup(&s, vk, &kas);
	/* two objects: which one would be asked for? */
	assert_true(asprintf(&two, "%.*s,%s", (int)strlen(s.kas->key_access_text) - 1, s.kas->key_access_text, s.kas->key_access_text + 1) > 0);
	slot_clear(&s);
	j = json_pack("{s:s, s:s}", "access", two, "policy", POLICY);
	assert_int_equal(slot_kas_parse(j, &s), -EPROTO);
	json_decref(j);
	slot_clear(&s);
	memset(big, ' ', SLOT_ACCESS_MAX + 2);
	big[SLOT_ACCESS_MAX + 1] = 0;
	j = json_pack("{s:s, s:s}", "access", big, "policy", POLICY);
	assert_int_equal(slot_kas_parse(j, &s), -EPROTO);
	json_decref(j);
	slot_clear(&s);
	free(big);
	free(two);
	kas_free(kas);
	secret_free(vk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_passphrase),     cmocka_unit_test(test_keyfile),         cmocka_unit_test(test_recovery_slot),
	    cmocka_unit_test(test_refused),        cmocka_unit_test(test_kdf_bounds),      cmocka_unit_test(test_calibration),
	    cmocka_unit_test(test_recovery_typos), cmocka_unit_test(test_credential_free),
	    cmocka_unit_test(test_kas_slot),       cmocka_unit_test(test_kas_slot_parse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
