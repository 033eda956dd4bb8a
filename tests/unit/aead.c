/* SPDX-License-Identifier: Apache-2.0 */
/* aead.c against published vectors and its promises. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#undef fail /* ours is another */

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "aead.h"
#include "hex.h"
#include "report.h"

static struct secret *secret_hex(const char *hex)
{
	struct secret *s = secret_new();

	assert_non_null(s);
	assert_int_equal(unhex(hex, s->b), SECRET_LEN);
	return s;
}

static const struct gcm_vector {
	const char *name, *key, *iv, *pt, *aad, *ct, *tag;
} gcm_vectors[] = {
    {"NIST CAVS: empty", "b52c505a37d78eda5dd34f20c22540ea1b58963cf8e5bf8ffa85f9f2492505b4", "516c33929df5a3284ff463d7", "", "", "",
     "bdc1ac884d332457a1d2664f168c76f0"},
    {"NIST CAVS: 16 bytes", "31bdadd96698c204aa9ce1448ea94ae1fb4a9a0b3c9d773b51bb1822666b8f22", "0d18e06c7c725ac9e362e1ce",
     "2db5168e932556f8089a0622981d017d", "", "fa4362189661d163fcd6a56d8bf0405a", "d636ac1bbedd5cc3ee727dc2ab4a9489"},
    {"NIST CAVS: 16 bytes, 16 of AAD", "92e11dcdaa866f5ce790fd24501f92509aacf4cb8b1339d50c9c1240935dd08b", "ac93a1a6145299bde902f21a",
     "2d71bcfa914e4ac045b2aa60955fad24", "1e0889016f67601c8ebea4943bc23ad6", "8995ae2e6df3dbf96fac7b7137bae67f",
     "eca5aa77d51d4a0a14d9c51e1da474ab"},
    {"GCM specification, case 13", "0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "", "",
     "", "530f8afbc74536b9a963b4f1c4cb738b"},
    {"GCM specification, case 14", "0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000",
     "00000000000000000000000000000000", "", "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
    {"GCM specification, case 16", "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
};

static void test_gcm_vectors(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(gcm_vectors); i++) {
		const struct gcm_vector *v = &gcm_vectors[i];
		struct secret *key = secret_hex(v->key);
		uint8_t iv[AEAD_IV], pt[64], aad[64], want[64], tag[AEAD_TAG], out[64 + AEAD_OVERHEAD], back[64];
		size_t n = unhex(v->pt, pt), n_aad = unhex(v->aad, aad);

		unhex(v->iv, iv);
		unhex(v->ct, want);
		unhex(v->tag, tag);
		print_message("%s\n", v->name);
		assert_int_equal(aead_test_iv(key, iv, (struct part){aad, n_aad}, pt, n, out), 0);
		assert_memory_equal(out, iv, AEAD_IV);
		assert_memory_equal(out + AEAD_IV, want, n);
		assert_memory_equal(out + AEAD_IV + n, tag, AEAD_TAG);
		if (!n_aad) {
			assert_int_equal(aead_open(key, out, n + AEAD_OVERHEAD, tag, back), 0);
			assert_memory_equal(back, pt, n);
		} else {
			assert_int_equal(aead_open(key, out, n + AEAD_OVERHEAD, tag, back), -EBADMSG);
		}
		secret_free(key);
	}
}

static void test_gcm_tamper(void **state)
{
	struct secret *key = secret_random(), *other = secret_random();
	uint8_t pt[33], seg[33 + AEAD_OVERHEAD], back[33], zero[33] = {0}, tag[AEAD_TAG];

	assert_non_null(key);
	assert_non_null(other);
	memset(pt, 'x', sizeof(pt));
	assert_int_equal(aead_seal(key, pt, sizeof(pt), seg), 0);
	for (size_t bit = 0; bit < 8 * sizeof(seg); bit++) {
		seg[bit / 8] ^= (uint8_t)(1 << bit % 8);
		memset(back, 'y', sizeof(back));
		assert_int_equal(aead_open(key, seg, sizeof(seg), NULL, back), -EBADMSG);
		assert_memory_equal(back, zero, sizeof(zero)); /* nothing unauthenticated gets out */
		seg[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	assert_int_equal(aead_open(other, seg, sizeof(seg), NULL, back), -EBADMSG);
	assert_int_equal(aead_open(key, seg, sizeof(seg) - 1, NULL, back), -EBADMSG);
	for (size_t len = 0; len < AEAD_OVERHEAD; len++)
		assert_int_equal(aead_open(key, seg, len, NULL, back), -EPROTO);

	/* a valid segment that is not the one expected */
	memcpy(tag, seg + sizeof(seg) - AEAD_TAG, AEAD_TAG);
	assert_int_equal(aead_open(key, seg, sizeof(seg), tag, back), 0);
	assert_memory_equal(back, pt, sizeof(pt));
	tag[15] ^= 1;
	memset(back, 'y', sizeof(back));
	assert_int_equal(aead_open(key, seg, sizeof(seg), tag, back), -EBADMSG);
	assert_memory_equal(back, zero, sizeof(zero));

	assert_int_equal(aead_seal(key, NULL, 0, seg), 0);
	assert_int_equal(aead_open(key, seg, AEAD_OVERHEAD, NULL, NULL), 0);
	seg[0] ^= 1;
	assert_int_equal(aead_open(key, seg, AEAD_OVERHEAD, NULL, NULL), -EBADMSG);
	secret_free(key);
	secret_free(other);
}

static void test_hmac_vectors(void **state)
{
	/* RFC 4231; a key given as one byte repeated */
	static const struct {
		uint8_t key_byte;
		size_t key_len;
		const char *key, *data, *mac;
	} v[] = {
	    {0x0b, 20, NULL, "4869205468657265", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
	    {0, 4, "Jefe", "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
	     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
	    {0xaa, 20, NULL, "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",
	     "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
	    {0xaa, 131, NULL,
	     "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a65204b6579202d2048617368204b6579204669727374",
	     "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
	    {0xaa, 131, NULL,
	     "5468697320697320612074657374207573696e672061206c6172676572207468616e20626c6f636b2d73697a65206b657920616e642061206c61726765722"
	     "074"
	     "68616e20626c6f636b2d73697a6520646174612e20546865206b6579206e6565647320746f20626520686173686564206265666f7265206265696e6720757"
	     "365"
	     "642062792074686520484d414320616c676f726974686d2e",
	     "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		uint8_t key[131], data[160], want[32], mac[32];
		size_t n = unhex(v[i].data, data);

		memset(key, v[i].key_byte, sizeof(key));
		if (v[i].key)
			memcpy(key, v[i].key, v[i].key_len);
		unhex(v[i].mac, want);
		for (size_t cut = 0; cut <= n; cut++) { /* parts put together are the whole */
			struct part parts[] = {{data, cut}, {NULL, 0}, {data + cut, n - cut}};

			assert_int_equal(hmac_sha256(key, v[i].key_len, parts, 3, mac), 0);
			assert_memory_equal(mac, want, 32);
		}
	}
	{
		/* around the block size: a shorter key is one with zeros behind it, a longer one its hash */
		uint8_t key[65] = {0}, short_mac[32], mac[32], hashed[32];

		memset(key, 0x5a, 40);
		assert_int_equal(hmac_sha256(key, 40, &(struct part){"text", 4}, 1, short_mac), 0);
		assert_int_equal(hmac_sha256(key, 64, &(struct part){"text", 4}, 1, mac), 0);
		assert_memory_equal(mac, short_mac, 32);
		assert_int_equal(sha256(&(struct part){key, 65}, 1, hashed), 0);
		assert_int_equal(hmac_sha256(hashed, 32, &(struct part){"text", 4}, 1, short_mac), 0);
		assert_int_equal(hmac_sha256(key, 65, &(struct part){"text", 4}, 1, mac), 0);
		assert_memory_equal(mac, short_mac, 32);
	}
	{
		/* empty key and message: known value; and no key left over from the call before */
		uint8_t want[32], mac[32];

		unhex("b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad", want);
		assert_int_equal(hmac_sha256(NULL, 0, NULL, 0, mac), 0);
		assert_memory_equal(mac, want, 32);
	}
}

static void test_sha256(void **state)
{
	uint8_t want[32], hash[32];
	struct part parts[] = {{"a", 1}, {"bc", 2}};

	unhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", want);
	assert_int_equal(sha256(parts, 2, hash), 0);
	assert_memory_equal(hash, want, 32);
	unhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", want);
	assert_int_equal(sha256(NULL, 0, hash), 0);
	assert_memory_equal(hash, want, 32);
}

static void test_hkdf_vectors(void **state)
{
	uint8_t ikm[80], salt[80], info[80], okm[82], want[82];

	/* RFC 5869, A.1 */
	memset(ikm, 0x0b, 22);
	for (int i = 0; i < 13; i++)
		salt[i] = (uint8_t)i;
	for (int i = 0; i < 10; i++)
		info[i] = (uint8_t)(0xf0 + i);
	unhex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865", want);
	assert_int_equal(hkdf((struct part){ikm, 22}, (struct part){salt, 13}, (struct part){info, 10}, okm, 42), 0);
	assert_memory_equal(okm, want, 42);

	/* A.2 */
	for (int i = 0; i < 80; i++) {
		ikm[i] = (uint8_t)i;
		salt[i] = (uint8_t)(0x60 + i);
		info[i] = (uint8_t)(0xb0 + i);
	}
	unhex("b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3"
	      "db71"
	      "cc30c58179ec3e87c14c01d5c1f3434f1d87",
	      want);
	assert_int_equal(hkdf((struct part){ikm, 80}, (struct part){salt, 80}, (struct part){info, 80}, okm, 82), 0);
	assert_memory_equal(okm, want, 82);

	/* A.3 */
	memset(ikm, 0x0b, 22);
	unhex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8", want);
	assert_int_equal(hkdf((struct part){ikm, 22}, (struct part){NULL, 0}, (struct part){NULL, 0}, okm, 42), 0);
	assert_memory_equal(okm, want, 42);

	assert_int_equal(hkdf((struct part){ikm, 22}, (struct part){NULL, 0}, (struct part){NULL, 0}, okm, 255 * 32 + 1), -EIO);
}

static void test_derive(void **state)
{
	static const char *const labels[] = {"seal", "hint", "rec", "conf", "log", "kas", "names"};
	struct secret *vk = secret_hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
	struct secret *d[ARRAY_SIZE(labels)];
	uint8_t okm[32];

	for (size_t i = 0; i < ARRAY_SIZE(labels); i++) {
		d[i] = derive(vk, labels[i]);
		assert_non_null(d[i]);
		assert_int_equal(
		    hkdf((struct part){vk->b, 32}, (struct part){"tdfs 1", 6}, (struct part){labels[i], strlen(labels[i])}, okm, 32), 0);
		assert_memory_equal(d[i]->b, okm, 32);
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(d[i]->b, d[j]->b, 32);
	}
	for (size_t i = 0; i < ARRAY_SIZE(labels); i++)
		secret_free(d[i]);
	secret_free(vk);
}

static void test_scrypt_vectors(void **state)
{
	uint8_t key[64], want[64];

	/* RFC 7914, section 12 */
	unhex("77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d1"
	      "8906",
	      want);
	assert_int_equal(scrypt((struct part){NULL, 0}, (struct part){NULL, 0}, 4, 1, 1, key, 64), 0);
	assert_memory_equal(key, want, 64);
	unhex("fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b3731622eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc"
	      "0640",
	      want);
	assert_int_equal(scrypt((struct part){"password", 8}, (struct part){"NaCl", 4}, 10, 8, 16, key, 64), 0);
	assert_memory_equal(key, want, 64);
	unhex("7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b4557"
	      "5887",
	      want);
	assert_int_equal(scrypt((struct part){"pleaseletmein", 13}, (struct part){"SodiumChloride", 14}, 14, 8, 1, key, 64), 0);
	assert_memory_equal(key, want, 64);

	assert_int_equal(scrypt((struct part){"p", 1}, (struct part){"s", 1}, 0, 8, 1, key, 32), -EINVAL);
	assert_int_equal(scrypt((struct part){"p", 1}, (struct part){"s", 1}, 21, 8, 1, key, 32), -EINVAL);
	assert_int_equal(scrypt((struct part){"p", 1}, (struct part){"s", 1}, 10, 33, 1, key, 32), -EINVAL);
	assert_int_equal(scrypt((struct part){"p", 1}, (struct part){"s", 1}, 10, 8, 17, key, 32), -EINVAL);
	assert_int_equal(scrypt((struct part){"p", 1}, (struct part){"s", 1}, 10, 0, 1, key, 32), -EINVAL);
}

#define IV_THREADS 4
#define IV_EACH 25000

static int compare_iv(const void *a, const void *b)
{
	return memcmp(a, b, AEAD_IV);
}

static void *make_ivs(void *arg)
{
	uint8_t(*ivs)[AEAD_IV] = arg, seg[AEAD_OVERHEAD];
	struct secret *key = secret_random();

	for (size_t i = 0; key && i < IV_EACH; i++) {
		if (aead_seal(key, NULL, 0, seg))
			break;
		memcpy(ivs[i], seg, AEAD_IV);
	}
	secret_free(key);
	return NULL;
}

static void test_ivs_differ(void **state)
{
	uint8_t(*ivs)[AEAD_IV] = calloc(IV_THREADS * IV_EACH, AEAD_IV);
	uint8_t ones[AEAD_IV], zeros[AEAD_IV];
	pthread_t t[IV_THREADS];

	assert_non_null(ivs);
	for (size_t i = 0; i < IV_THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, make_ivs, ivs + i * IV_EACH), 0);
	for (size_t i = 0; i < IV_THREADS; i++)
		pthread_join(t[i], NULL);
	memset(ones, 0, sizeof(ones));
	memset(zeros, 0, sizeof(zeros));
	qsort(ivs, IV_THREADS * IV_EACH, AEAD_IV, compare_iv);
	for (size_t i = 0; i < IV_THREADS * IV_EACH; i++) {
		if (i)
			assert_true(compare_iv(ivs[i - 1], ivs[i]) < 0);
		for (size_t b = 0; b < AEAD_IV; b++) {
			ones[b] |= ivs[i][b];
			zeros[b] |= (uint8_t)~ivs[i][b];
		}
	}
	for (size_t b = 0; b < AEAD_IV; b++) { /* every bit takes both values: all 96 are random */
		assert_int_equal(ones[b], 0xff);
		assert_int_equal(zeros[b], 0xff);
	}
	free(ivs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_gcm_vectors),    cmocka_unit_test(test_gcm_tamper),   cmocka_unit_test(test_hmac_vectors),
	    cmocka_unit_test(test_sha256),         cmocka_unit_test(test_hkdf_vectors), cmocka_unit_test(test_derive),
	    cmocka_unit_test(test_scrypt_vectors), cmocka_unit_test(test_ivs_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
