/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of kas.c share: a KAS of one key, and key access objects as text. */
#ifndef TDFS_TEST_KAS_SETUP_H
#define TDFS_TEST_KAS_SETUP_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <errno.h>
#include <stdio.h>

#include "kas.h"
#include "manifest_native.h"
#include "pubkey_vectors.h"
#include "report.h"

#define POLICY "eyJ1dWlkIjoiMDAwMDAwMDAtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwIn0="
#define OTHER_POLICY "eyJ1dWlkIjoiMTExMTExMTEtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwIn0="

static inline EVP_PKEY *private_key(const char *pem)
{
	EVP_PKEY *key = NULL;

	assert_int_equal(pubkey_private(pem, strlen(pem), &key), 0);
	return key;
}

static inline struct kas *kas_with(const char *kid, const char *url, const char *pem)
{
	struct kas *k = kas_new();

	assert_non_null(k);
	assert_int_equal(kas_add_local(k, kid, url, private_key(pem)), 0);
	return k;
}

/* A manifest with these key access objects. */
static inline struct manifest *manifest_with(const char *key_access, const char *policy)
{
	struct manifest *m = NULL;
	char *text;
	int err;

	assert_true(
	    asprintf(
		&text,
		"{\"schemaVersion\":\"4.3.0\",\"payload\":{\"type\":\"reference\",\"url\":\"0.payload\",\"protocol\":\"zip\","
		"\"isEncrypted\":true,"
		"\"mimeType\":\"application/octet-stream\"},\"encryptionInformation\":{\"type\":\"split\",\"keyAccess\":%s,"
		"\"method\":{\"algorithm\":\"AES-256-GCM\",\"isStreamable\":true,\"iv\":\"\"},\"policy\":\"%s\",\"integrityInformation\":"
		"{\"rootSignature\":{\"alg\":\"HS256\",\"sig\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"},\"segmentHashAlg\":"
		"\"GMAC\","
		"\"segmentSizeDefault\":65536,\"encryptedSegmentSizeDefault\":65564,\"segments\":[{\"hash\":\"AAAAAAAAAAAAAAAAAAAAAA==\","
		"\"segmentSize\":0,\"encryptedSegmentSize\":28}]}}}",
		key_access, policy) > 0);
	err = manifest_parse(text, strlen(text), false, &m);
	if (err)
		print_message("%s\n%s\n", fail_text(), text);
	assert_int_equal(err, 0);
	free(text);
	return m;
}

/* The one object in an array, with a sid. */
static inline char *object_of(const char *array, const char *sid)
{
	char *o;

	assert_int_equal(array[0], '[');
	assert_int_equal(array[strlen(array) - 1], ']');
	if (sid)
		assert_true(asprintf(&o, "{\"sid\":\"%s\",%.*s", sid, (int)strlen(array) - 3, array + 2) > 0);
	else
		assert_true(asprintf(&o, "%.*s", (int)strlen(array) - 2, array + 1) > 0);
	return o;
}

static inline int try_unwrap(struct kas *k, const char *key_access, const char *policy, const struct secret *want)
{
	struct manifest *m = manifest_with(key_access, policy);
	struct secret *got = NULL;
	int err;

	fail_clear();
	err = kas_unwrap(k, m, &got);
	if (!err) {
		assert_non_null(got);
		if (want)
			assert_memory_equal(got->b, want->b, SECRET_LEN);
	} else {
		assert_null(got);
		assert_string_not_equal(fail_text(), "");
	}
	secret_free(got);
	manifest_free(m);
	return err;
}

#endif
