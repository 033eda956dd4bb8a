/* SPDX-License-Identifier: Apache-2.0 */
#include "peek.h"
#include "read_tdf.h"
#include "report.h" /* before cmocka.h, which has a macro fail() */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "temp_dir.h"

static void test_native_sizes(void **state)
{
	static const uint64_t sizes[] = {0, 1, 65535, 65536, 65537, 131072, 10 << 20};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct mem m = native_file(sizes[i], 65536);
		struct container *c;

		assert_int_equal(open_mem(&m, &test_container_keys, &c), 0);
		assert_true(c->native);
		assert_int_equal(c->payload_off, SECTOR);
		assert_int_equal(c->file_len, m.len);
		assert_int_equal(m.reads, m.len <= 65536 ? 1 : 2);
		assert_int_equal(c->rec.size, sizes[i]);
		assert_int_equal(c->tmpl->s, 65536);
		assert_int_equal(read_all(&m, c, sizes[i]), 0);
		container_free(c);
		/* without the volume's keys it is a foreign file like any other */
		assert_int_equal(open_mem(&m, NULL, &c), 0);
		assert_false(c->native);
		assert_null(c->tmpl);
		assert_int_equal(read_all(&m, c, sizes[i]), 0);
		container_free(c);
		free(m.p);
	}
}

static void test_random_access(void **state)
{
	static const struct {
		const char *name;
		struct foreign_opt o;
	} kinds[] = {
	    {"native", {.len = 300000, .s = 16384}},
	    {"uniform", {.len = 300000, .s = 16384, .zip64 = true}},
	    {"odd sizes", {.len = 300000, .s = 30000, .odd_sizes = true}},
	    {"long", {.len = 3 << 20, .s = 65536, .hs256 = true}}, /* several batches */
	};
	static const uint64_t offs[] = {0, 1, 100, 16383, 16384, 16385, 32768, 45000, 100000, 299999, 300000, 300001, UINT64_MAX};
	static const size_t lens[] = {0, 1, 100, 16384, 16385, 65536, 299999, 1 << 22};

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct mem m = k ? foreign_file(&kinds[k].o) : native_file(300000, 16384);
		struct io io = mem_io(&m);
		struct container *c;
		uint64_t size = kinds[k].o.len;
		uint8_t *buf = malloc(1 << 22);

		print_message("%s\n", kinds[k].name);
		assert_int_equal(open_mem(&m, &test_container_keys, &c), 0);
		for (size_t i = 0; i < ARRAY_SIZE(offs); i++)
			for (size_t j = 0; j < ARRAY_SIZE(lens); j++) {
				uint64_t want = offs[i] >= size ? 0 : MIN(lens[j], size - offs[i]);

				memset(buf, 0xee, 1 << 22);
				assert_int_equal(container_read(&io, 0, c, buf, lens[j], offs[i]), want);
				for (uint64_t b = 0; b < want; b++)
					if (buf[b] != plain_byte(offs[i] + b))
						assert_int_equal(buf[b], plain_byte(offs[i] + b));
				if (want < 1 << 22)
					assert_int_equal(buf[want], 0xee); /* nothing behind what was asked for */
			}
		/* a contiguous range is one read */
		m.reads = 0;
		assert_int_equal(container_read(&io, 0, c, buf, 200000, 5000), 200000);
		assert_int_equal(m.reads, 1);
		container_free(c);
		free(buf);
		free(m.p);
	}
}

static void test_foreign_variants(void **state)
{
	static const struct {
		const char *name;
		struct foreign_opt o;
	} cases[] = {
	    {"plain", {.len = 1000, .s = 300}},
	    {"HS256 segments", {.len = 1000, .s = 300, .hs256 = true}},
	    {"hex", {.len = 1000, .s = 300, .hex = true}},
	    {"hex HS256", {.len = 1000, .s = 300, .hex = true, .hs256 = true}},
	    {"descriptor", {.len = 1000, .s = 300, .descriptor = true}},
	    {"zip64", {.len = 1000, .s = 300, .zip64 = true}},
	    {"Java", {.len = 1000, .s = 300, .zip64 = true, .java_descriptor = true, .hex = true}},
	    {"deflated manifest", {.len = 1000, .s = 300, .deflate = true}},
	    {"manifest first", {.len = 1000, .s = 300, .manifest_first = true}},
	    {"two splits", {.len = 1000, .s = 300, .splits = 2}},
	    {"missing sizes", {.len = 1000, .s = 300, .omit_sizes = true}},
	    {"zero segments", {.s = 300, .no_segments = true}},
	    {"zero segments, hex", {.s = 300, .no_segments = true, .hex = true}},
	    {"one empty segment", {.s = 300}},
	    {"exact multiple", {.len = 900, .s = 300}},
	    {"odd sizes", {.len = 1000, .s = 300, .odd_sizes = true}},
	};
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mem m = foreign_file(&cases[i].o);

		print_message("%s\n", cases[i].name);
		assert_int_equal(read_mem(&m, &test_container_keys, cases[i].o.len), 0);
		assert_int_equal(read_mem(&m, NULL, cases[i].o.len), 0);
		free(m.p);
	}
}

/* What `ls` shows: the same without reading much of the manifest; where that goes wrong it is said in peek.h. */
static void test_peek(void **state)
{
	static char far[70000]; /* of white space: more than is looked at */
	const struct {
		const char *name;
		struct foreign_opt o;
		int64_t want; /* -errno; -1: wrong, and no error */
	} cases[] = {
	    {"small", {.len = 1000, .s = 300}, 1000},
	    {"small, odd sizes", {.len = 1000, .s = 300, .odd_sizes = true}, 1000},
	    {"nothing", {.s = 300, .no_segments = true}, 0},
	    {"many", {.len = 60000, .s = 300}, 60000},
	    {"many, one byte more", {.len = 60001, .s = 300, .zip64 = true, .descriptor = true}, 60001},
	    {"many, deflated", {.len = 120000, .s = 300, .deflate = true, .manifest_first = true}, 120000},
	    {"many, hex", {.len = 60000, .s = 300, .hex = true, .hs256 = true, .omit_sizes = true}, 60000},
	    {"many, odd sizes", {.len = 60000, .s = 300, .odd_sizes = true}, -1},
	    {"a lie", {.len = 60000, .s = 300, .edit = {{"\"segmentSizeDefault\":300", "\"segmentSizeDefault\": 500"}}}, -1},
	    {"a size of 0", {.len = 60000, .s = 300, .edit = {{"\"segmentSizeDefault\":300", "\"segmentSizeDefault\":0"}}}, -EPROTO},
	    {"2^64 + 300", {.len = 60000, .s = 300, .edit = {{"Default\":300", "Default\":18446744073709551916"}}}, -EPROTO},
	    {"too far away", {.len = 1000, .s = 300, .edit = {{"\"integrityInformation\":", far}}}, -EPROTO},
	    {"too far away, deflated", {.len = 1000, .s = 300, .deflate = true, .edit = {{"\"integrityInformation\":", far}}}, -EPROTO},
	    {"no zip", {.len = 1000, .s = 300, .overlap = true}, -EPROTO},
	};
	(void)state;
	memset(far, ' ', sizeof(far) - 1);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct mem m = foreign_file(&cases[i].o);
		struct io io = mem_io(&m);
		uint64_t size = 0;
		int err = peek_size(&io, 0, m.len, &size);

		print_message("%s: %d, %llu\n", cases[i].name, err, (unsigned long long)size);
		if (cases[i].want >= 0)
			assert_true(!err && size == (uint64_t)cases[i].want);
		else if (cases[i].want == -1)
			assert_true(!err && size != cases[i].o.len && size < m.len);
		else
			assert_int_equal(err, cases[i].want);
		/* cut anywhere, or with a disk that fails, it is an error or a size that fits into the file */
		for (unsigned n = 1; n < 30; n++) {
			m.reads = 0;
			m.fail_at = n;
			err = peek_size(&io, 0, m.len, &size);
			assert_true(err || size < m.len);
		}
		m.fail_at = 0;
		for (size_t len = m.len - 1; len > m.len - 200; len--)
			assert_true(peek_size(&io, 0, len, &size) < 0);
		free(m.p);
	}
}

static void test_states(void **state)
{
	struct mem m = native_file(100, 16384);
	struct record r;
	struct container *c;
	uint32_t crc;
	uint8_t zero[600] = {0};
	struct mem z = {.p = zero, .len = 600};

	(void)state;
	assert_int_equal(record_parse(m.p, &test_keys.k_rec, &r, &crc), 0);
	r.state = RECORD_LIVE;
	assert_int_equal(record_sector(&r, crc, &test_keys.k_rec, m.p), 0);
	assert_int_equal(open_mem(&m, &test_container_keys, &c), 0);
	assert_int_equal(c->rec.state, RECORD_LIVE);
	container_free(c);
	/* a header of another generation */
	r.content_id[0] ^= 1;
	assert_int_equal(record_sector(&r, crc, &test_keys.k_rec, m.p), 0);
	assert_int_equal(open_mem(&m, &test_container_keys, &c), -EBADMSG);
	r.content_id[0] ^= 1;
	/* a seal made for another key access */
	r.seal[5] ^= 1;
	assert_int_equal(record_sector(&r, crc, &test_keys.k_rec, m.p), 0);
	assert_int_equal(open_mem(&m, &test_container_keys, &c), -EBADMSG);
	assert_non_null(strstr(fail_text(), "seal"));
	r.seal[5] ^= 1;
	r.state = RECORD_NEW;
	r.generation = 0;
	memset(r.content_id, 0, ID_LEN);
	assert_int_equal(record_sector(&r, crc, &test_keys.k_rec, m.p), 0);
	assert_int_equal(open_mem(&m, &test_container_keys, &c), -ENODATA);
	for (z.len = 0; z.len <= 600; z.len += 100) {
		assert_int_equal(open_mem(&z, &test_container_keys, &c), -ENODATA);
		assert_int_equal(open_mem(&z, NULL, &c), -ENOEXEC);
	}
	free(m.p);
}

static void test_other_volume_and_key(void **state)
{
	struct mem m = native_file(100, 16384);
	struct io io = mem_io(&m);
	uint8_t id[ID_LEN] = "another volume!";
	struct secret k = {{77}};
	const struct container_keys other = {&k, &k, id};
	struct container *c;

	(void)state;
	assert_int_equal(open_mem(&m, &other, &c), 0);
	assert_false(c->native);
	assert_int_equal(read_all(&m, c, 100), 0);
	container_free(c);
	assert_int_equal(container_open(&io, 0, &test_container_keys, &c), 0);
	assert_int_equal(container_unlock(c, &test_container_keys, &test_shares[0]), -EBADMSG); /* a wrong data key */
	assert_null(c->dek);
	uint8_t b;

	assert_int_equal(container_read(&io, 0, c, &b, 1, 0), -ENOKEY);
	container_free(c);
	free(m.p);
}

static int run(const char *const argv[])
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 1);
		dup2(null, 2);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* what others say about our files; also the whole way with real descriptors */
static void test_unzip(void **state)
{
	static const uint64_t sizes[] = {0, 1, 65537, 1 << 20};
	char dir[PATH_MAX], path[PATH_MAX + 16];
	unsigned asked = 0;

	(void)state;
	assert_true(temp_dir_make(dir));
	snprintf(path, sizeof(path), "%s/f.tdf", dir);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct mem m = native_file(sizes[i], 65536);
		int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc;
		struct io io = io_posix(fd);
		struct container *c;
		uint8_t b;

		assert_int_equal(io_pwrite(&io, fd, m.p, m.len, 0), 0);
		assert_int_equal(container_open(&io, fd, &test_container_keys, &c), 0);
		assert_int_equal(container_unlock(c, &test_container_keys, &test_dek), 0);
		assert_int_equal(container_read(&io, fd, c, &b, 1, sizes[i] / 2), sizes[i] ? 1 : 0);
		container_free(c);
		rc = run((const char *const[]){"unzip", "-t", path, NULL});
		assert_true(rc == 0 || rc == 127);
		asked += !rc;
		rc = run((const char *const[]){
		    "python3", "-c",
		    "import sys, zipfile, json\n"
		    "z = zipfile.ZipFile(sys.argv[1])\n"
		    "assert z.testzip() is None and z.namelist() == ['0.payload', '0.manifest.json'], z.namelist()\n"
		    "m = json.loads(z.read('0.manifest.json'))\n"
		    "n = sum(s['encryptedSegmentSize'] for s in m['encryptionInformation']['integrityInformation']['segments'])\n"
		    "assert n == len(z.read('0.payload'))\n",
		    path, NULL});
		assert_true(rc == 0 || rc == 127);
		asked += !rc;
		/* a wrong CRC must be seen by them, else they proved nothing */
		m.p[SECTOR] ^= 1;
		assert_int_equal(io_pwrite(&io, fd, m.p, m.len, 0), 0);
		rc = run((const char *const[]){"unzip", "-t", path, NULL});
		assert_true(rc > 0);
		close(fd);
		free(m.p);
	}
	assert_true(temp_dir_remove(dir));
	if (!asked)
		print_message("neither unzip nor python3 here: nobody was asked\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_native_sizes), cmocka_unit_test(test_random_access), cmocka_unit_test(test_foreign_variants),
	    cmocka_unit_test(test_peek),         cmocka_unit_test(test_states),        cmocka_unit_test(test_other_volume_and_key),
	    cmocka_unit_test(test_unzip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
