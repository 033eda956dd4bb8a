/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that must open for ever: those of other SDKs (in the directory $TDFS_GOLDEN, with their key list; skipped where that is absent) and
 * our own of each version
 * ($TDFS_SOURCE/tests/golden).
 */
#include "container.h"
#include "crc.h"
#include "encode.h"
#include "kas.h"
#include "make_tdf.h"
#include "report.h" /* before cmocka.h, which has a macro fail() */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const struct {
	const char *name, *sha256; /* of the plaintext */
	uint64_t size;
	bool hex;
} files[] = {
    {"small-java-4.3.0-e0f8caf.tdf", "a11937f356a9b0ba592c82f5290bac8016cb33a3f9bc68d3490147c158ebb10d", 5120, true},
    {"no-splitids-java.tdf", "a11937f356a9b0ba592c82f5290bac8016cb33a3f9bc68d3490147c158ebb10d", 5120, true},
    {"xstext-java-v0.7.5-94b161d53-DSP2.0.2_and_2.0.3.tdf", "842f232fcad173bf4d36817b39f6f043a5cefff2bbfe417dea3525b89d6e4e52", 102, true},
    {"xstext-java-v0.9.0-2de6a49-DSP2.0.5.1_and_2.0.6.tdf", "1f3470c0b14de86d91f1897cd67dc78e5f180645cfd6e3f480f1ba317d842343", 92, false},
};

static int dir_fd(const char *env)
{
	const char *dir = getenv(env);

	return dir && *dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}

static struct kas *golden_kas(void)
{
	struct kas *k = kas_new();
	char path[4096];

	assert_non_null(k);
	snprintf(path, sizeof(path), "%s/extra-keys.json", getenv("TDFS_GOLDEN"));
	assert_int_equal(kas_add_key_file(k, path), 0);
	return k;
}

static struct mem load(int dir, const char *name)
{
	struct io io = io_posix(dir);
	struct mem m = {0};

	assert_int_equal(io_read_file(&io, dir, name, 1 << 20, (char **)&m.p, &m.len), 0);
	return m;
}

static int open_golden(struct mem *m, struct kas *k, struct container **ret)
{
	struct io io = mem_io(m);
	struct secret *dek;
	struct container *c;
	int err;

	fail_clear();
	err = container_open(&io, 0, NULL, &c);
	if (err)
		return err;
	err = kas_unwrap(k, c->m, &dek);
	if (!err) {
		err = container_unlock(c, NULL, dek);
		secret_free(dek);
	}
	if (err)
		container_free(c);
	else
		*ret = c;
	return err;
}

static void test_other_sdks(void **state)
{
	CLEANUP_FD int dir = dir_fd("TDFS_GOLDEN");
	struct kas *k;

	(void)state;
	if (dir < 0) {
		print_message("$TDFS_GOLDEN is no directory\n");
		skip();
	}
	k = golden_kas();
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct mem m = load(dir, files[i].name);
		struct io io = mem_io(&m);
		uint8_t *all = malloc(files[i].size + 1), hash[32], some[100];
		struct container *c;
		char hex[65];
		int err;

		print_message("%s\n", files[i].name);
		err = open_golden(&m, k, &c);
		if (err)
			print_message("%d %s\n", err, fail_text());
		assert_int_equal(err, 0);
		assert_int_equal(c->m->hex, files[i].hex);
		assert_int_equal(container_read(&io, 0, c, all, files[i].size + 1, 0), files[i].size);
		assert_int_equal(sha256(&(struct part){all, files[i].size}, 1, hash), 0);
		hex_encode(hash, 32, hex);
		assert_string_equal(hex, files[i].sha256);
		for (uint64_t off = 0; off < files[i].size; off += 7) {
			size_t n = MIN(sizeof(some), files[i].size - off);

			assert_int_equal(container_read(&io, 0, c, some, sizeof(some), off), n);
			assert_memory_equal(some, all + off, n);
		}
		container_free(c);
		free(all);
		free(m.p);
	}
	kas_free(k);
}

/* a changed byte in what is signed or encrypted must be found */
static void test_other_sdks_tampered(void **state)
{
	static const struct {
		const char *name, *from, *to;
	} cases[] = {
	    {"policy", "\"policy\":\"eyJ1", "\"policy\":\"eyJ2"},
	    {"root", "\"sig\":\"N", "\"sig\":\"M"},
	    {"segment hash", "\"hash\":\"5Cku", "\"hash\":\"5Ckv"},
	    {"wrapped key", "\"wrappedKey\":\"q4", "\"wrappedKey\":\"q5"},
	};
	CLEANUP_FD int dir = dir_fd("TDFS_GOLDEN");
	struct container *c;
	struct kas *k;

	(void)state;
	if (dir < 0)
		skip();
	k = golden_kas();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mem m = load(dir, files[3].name);
		uint32_t crc, was;

		/* with a CRC that fits again, as an attacker would make it */
		uint8_t *text = memmem(m.p, m.len, "{\"schemaVersion\"", 16);

		assert_non_null(text);
		was = crc_bytes(0, text, 1530);
		patch(&m, cases[i].from, cases[i].to, strlen(cases[i].from));
		crc = crc_bytes(0, text, 1530);
		for (size_t at = 0; at + 4 <= m.len; at++)
			if (get_le32(m.p + at) == was)
				put_le32(m.p + at, crc);
		print_message("%s\n", cases[i].name);
		assert_int_equal(open_golden(&m, k, &c), -EBADMSG);
		free(m.p);
	}
	kas_free(k);
}

/* version 1 of the native format; tests/golden/native-v1.tdf must never be made anew */
static void test_native_v1(void **state)
{
	static const struct container_keys keys = {&test_keys.k_rec, &test_keys.k_seal, test_keys.volume_id};
	CLEANUP_FD int src = dir_fd("TDFS_SOURCE");
	uint8_t sector[SECTOR], plain[1001], *tail;
	struct container *c;
	struct mem m;
	struct io io;

	(void)state;
	if (src < 0) {
		print_message("$TDFS_SOURCE is no directory\n");
		skip();
	}
	m = load(src, "tests/golden/native-v1.tdf");
	io = mem_io(&m);
	assert_int_equal(container_open(&io, 0, &keys, &c), 0);
	assert_true(c->native);
	assert_int_equal(container_unlock(c, &keys, &test_dek), 0);
	assert_int_equal(container_read(&io, 0, c, plain, sizeof(plain), 0), 1000);
	for (size_t i = 0; i < 1000; i++)
		assert_int_equal(plain[i], plain_byte(i));
	/* what is written today for the same values is the same, byte for byte */
	assert_int_equal(record_sector(&c->rec, c->crc, &test_keys.k_rec, sector), 0);
	assert_memory_equal(sector, m.p, SECTOR);
	assert_int_equal(tail_len(c->tmpl, 1000), m.len - c->rec.tail_off);
	tail = malloc(m.len - c->rec.tail_off);
	assert_non_null(tail);
	tail_build(c->tmpl, 1000, c->m->hashes, c->m->root_sig, c->crc, tail);
	assert_memory_equal(tail, m.p + c->rec.tail_off, m.len - c->rec.tail_off);
	free(tail);
	container_free(c);
	free(m.p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_other_sdks),
	    cmocka_unit_test(test_other_sdks_tampered),
	    cmocka_unit_test(test_native_v1),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
