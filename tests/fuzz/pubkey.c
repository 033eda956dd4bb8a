/* SPDX-License-Identifier: Apache-2.0 */
/* Keys as PEM and DER from files and from the network: what is taken can be used and written, and is read back as the same key. */
#include "fuzz.h"
#include "pubkey.h"

static void check_public(EVP_PKEY *key)
{
	char *pem = pubkey_pem(key);
	EVP_PKEY *again;

	CHECK(pem);
	CHECK(!pubkey_public(pem, strlen(pem), &again));
	CHECK(EVP_PKEY_eq(key, again) == 1 && pubkey_type(key) == pubkey_type(again));
	EVP_PKEY_free(again);
	free(pem);
}

static void check_private(EVP_PKEY *key)
{
	EVP_PKEY *again;
	uint8_t *der;
	size_t len;

	check_public(key);
	CHECK(!pubkey_private_der(key, &der, &len));
	CHECK(!pubkey_private_from_der(der, len, &again));
	CHECK(EVP_PKEY_eq(key, again) == 1);
	EVP_PKEY_free(again);
	free(der);
	EVP_PKEY_free(key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	EVP_PKEY *key;

	if (!pubkey_private((const char *)data, size, &key))
		check_private(key);
	if (!pubkey_private_from_der(data, size, &key))
		check_private(key);
	if (!pubkey_public((const char *)data, size, &key)) {
		check_public(key);
		EVP_PKEY_free(key);
	}
	return 0;
}
