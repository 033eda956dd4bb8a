/* SPDX-License-Identifier: Apache-2.0 */
/* kas/volume*.c: damage to every byte and every length of volume.json, contents that are wrong though the MAC is right, damaged KAS keys.
 */
#include "share.h"
#include "volume_setup.h"

/* One changed byte anywhere: without a good copy never success, with one success from that. */
static void flip_all(const char *store, uint8_t mask)
{
	const char *json = in_dir(store, ".tdfs/volume.json"), *bak = in_dir(store, ".tdfs/volume.json.bak");
	char json_path[PATH_MAX], bak_path[PATH_MAX];
	size_t len;
	char *text;

	strcpy(json_path, json);
	strcpy(bak_path, bak);
	text = read_all(json_path, &len);
	for (size_t i = share_first(); i < len; i += share_step()) {
		struct volume *v;
		int err;

		text[i] = (char)(text[i] ^ mask);
		write_all(json_path, text, len);
		v = must_open(store, &key_file);
		assert_true(v->from_backup);
		volume_free(v);

		write_all(bak_path, text, len);
		err = can_open(store, &key_file);
		if (err != -EBADMSG && err != -EKEYREJECTED && err != -ENOTSUP)
			print_message("byte %zu (%c): %d\n", i, text[i] ^ mask, err);
		assert_true(err == -EBADMSG || err == -EKEYREJECTED || err == -ENOTSUP);
		text[i] = (char)(text[i] ^ mask);

		/* .bak alone: not even looked at */
		write_all(json_path, text, len);
		v = must_open(store, &key_file);
		assert_false(v->from_backup);
		volume_free(v);
		write_all(bak_path, text, len);
	}
	free(text);
}

static void test_every_byte(void **state)
{
	char *store = copy_of("flip");

	flip_all(store, 0x01);
	flip_all(store, 0x20); /* the case of letters, which JSON and hex readers like to overlook */
	flip_all(store, 0x80);
	free(store);
}

static void test_every_length(void **state)
{
	char *store = copy_of("cut");
	char json[PATH_MAX], bak[PATH_MAX];
	size_t len;
	char *text;

	strcpy(json, in_dir(store, ".tdfs/volume.json"));
	strcpy(bak, in_dir(store, ".tdfs/volume.json.bak"));
	text = read_all(json, &len);
	for (size_t i = share_first(); i < len; i += share_step()) {
		write_all(json, text, i);
		write_all(bak, text, i);
		assert_int_equal(can_open(store, &key_file), -EBADMSG);
	}
	text = realloc(text, len + 1);
	for (const char *c = "\n }x"; *c; c++) {
		text[len] = *c;
		write_all(json, text, len + 1);
		write_all(bak, text, len + 1);
		assert_int_equal(can_open(store, &key_file), -EBADMSG);
	}
	text[len] = '\0'; /* even this one */
	write_all(json, text, len + 1);
	write_all(bak, text, len + 1);
	assert_int_equal(can_open(store, &key_file), -EBADMSG);

	write_all(bak, text, len);
	unlink(json);
	assert_int_equal(can_open(store, &key_file), 0);
	assert_int_equal(can_open(store, &wrong_key), -EKEYREJECTED);
	unlink(bak);
	assert_int_equal(can_open(store, &key_file), -ENOENT);
	free(text);
	free(store);
}

/* volume.json as somebody with the volume key would write it: only the contents are wrong. */
static void rewrite(const char *store, const struct volume *v, const char *from, const char *to)
{
	char json[PATH_MAX], bak[PATH_MAX], hex[65], *text, *at, *out;
	uint8_t mac[MAC_LEN];
	size_t len, n;

	strcpy(json, in_dir(made, ".tdfs/volume.json"));
	text = read_all(json, &len);
	text[len - 67] = '\0';
	at = strstr(text, from);
	assert_non_null(at);
	assert_true(asprintf(&out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
	n = strlen(out);
	assert_int_equal(hmac_sha256(v->k_conf->b, SECRET_LEN, &(struct part){out, n}, 1, mac), 0);
	hex_encode(mac, sizeof(mac), hex);
	free(text);
	assert_true(asprintf(&text, "%s%s\"}\n", out, hex) > 0);
	strcpy(json, in_dir(store, ".tdfs/volume.json"));
	strcpy(bak, in_dir(store, ".tdfs/volume.json.bak"));
	write_all(json, text, strlen(text));
	write_all(bak, text, strlen(text));
	free(out);
	free(text);
}

static void test_contents(void **state)
{
	static const struct {
		const char *from, *to;
		int err;
	} v[] = {
	    {"\"names\"", "\"names\"", 0}, /* unchanged: the test's own writing is right */
	    {"\"plain\"", "\"plain\" ", 0},
	    {"{\"version\":1", "{\"version\":2", -ENOTSUP},
	    {"{\"version\":1", "{\"version\":0", -EBADMSG},
	    {"{\"version\":1", "{\"version\":-1", -EBADMSG},
	    {"{\"version\":1", "{\"version\":1.0", -EBADMSG},
	    {"{\"version\":1", "{\"version\":\"1\"", -EBADMSG},
	    {"{\"version\":1", "{\"version\":1,\"version\":1", -EBADMSG},
	    {"{\"version\":1", "{\"version\":1,\"x\":1", -ENOTSUP},
	    {"{\"version\":1", "{\"version\":99999999999999999999", -EBADMSG},
	    {"\"plain\"", "\"scrambled\"", -ENOTSUP},
	    {"\"segment_size\":32768", "\"segment_size\":16383", -EBADMSG},
	    {"\"segment_size\":32768", "\"segment_size\":4194277", -EBADMSG},
	    {"\"log_half\":16777216", "\"log_half\":16777215", -EBADMSG},
	    {"\"log_half\":16777216", "\"log_half\":536870913", -EBADMSG},
	    {"{\"kid\":\"tdfs-", "{\"kid\":\"../tdfs-", -EBADMSG},
	    {"{\"kid\":\"tdfs-", "{\"kid\":\"tdfs/", -EBADMSG},
	    {"{\"kid\":\"tdfs-", "{\"kid\":\"TDFS-", -EBADMSG}, /* no such key file */
	    {"\"kind\":\"keyfile\"", "\"kind\":\"fido2\"", -ENOTSUP},
	    {"\"kind\":\"keyfile\"", "\"kind\":\"passphrase\"", -EBADMSG}, /* no scrypt numbers */
	    {"\"id\":1", "\"id\":0", -EBADMSG},
	    {"\"id\":1", "\"id\":16", -EBADMSG},
	    {"\"salt\":\"", "\"salt\":\"AAAA", -EBADMSG},
	    {"\"salt\":\"", "\"salt\":\"!", -EBADMSG},
	    {"\"label\":\"key file\"", "\"label\":\"0123456789012345678901234567890123456789012345678901234567890123\"", -EBADMSG},
	    {"\"label\":\"key file\"", "\"label\":null", -EBADMSG},
	    {"\"slots\":[", "\"slots\":[{},", -EBADMSG},
	    {"\"slots\":[", "\"slots\":[7,", -EBADMSG},
	    {"\"kind\":\"keyfile\"", "\"kind\":\"kas\"", -EBADMSG}, /* nothing for a KAS */
	    {"\"kind\":\"keyfile\"", "\"kind\":\"keyfile\",\"kas\":{}", -EBADMSG},
	};
	struct volume *keys = must_open(made, &key_file);
	char *store = copy_of("contents");

	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		int err;

		rewrite(store, keys, v[i].from, v[i].to);
		err = can_open(store, &key_file);
		if (err != v[i].err)
			print_message("%s -> %s: %d %s\n", v[i].from, v[i].to, err, fail_text());
		assert_int_equal(err, v[i].err);
	}
	volume_free(keys);
	free(store);
}

static void test_kdf_bounds(void **state)
{
	static const char *const numbers[] = {"\"log_n\":14,\"r\":8,\"p\":1",       "\"log_n\":21,\"r\":8,\"p\":1",
					      "\"log_n\":60,\"r\":8,\"p\":1",       "\"log_n\":15,\"r\":7,\"p\":1",
					      "\"log_n\":15,\"r\":1048576,\"p\":1", "\"log_n\":15,\"r\":8,\"p\":0",
					      "\"log_n\":15,\"r\":8,\"p\":5",       "\"log_n\":15,\"r\":8"};
	struct volume *keys = must_open(made, &key_file);
	struct credential pass = cred(SLOT_PASSPHRASE, "x");
	char *store = copy_of("kdf");
	clock_t start = clock();
	char to[256];

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		snprintf(to, sizeof(to), "\"kind\":\"passphrase\",\"scrypt\":{%s}", numbers[i]);
		rewrite(store, keys, "\"kind\":\"keyfile\"", to);
		assert_int_equal(can_open(store, &pass), -EBADMSG);
	}
	assert_true(clock() - start < CLOCKS_PER_SEC / 4);
	volume_free(keys);
	free(store);
}

static void test_kas_key(void **state)
{
	char *store = copy_of("kaskey");
	char path[PATH_MAX], other[NAME_MAX + 1];
	struct volume *keys;
	size_t len;
	char *blob;

	strcpy(path, in_dir(in_dir(store, ".tdfs/kas"), kas_key));
	blob = read_all(path, &len);
	for (size_t i = 0; i < len; i++) {
		blob[i] ^= 1;
		write_all(path, blob, len);
		assert_int_equal(can_open(store, &key_file), -EBADMSG);
		blob[i] ^= 1;
	}
	write_all(path, blob, len - 1);
	assert_int_equal(can_open(store, &key_file), -EBADMSG);
	write_all(path, "", 0);
	assert_int_equal(can_open(store, &key_file), -EBADMSG);
	unlink(path);
	assert_int_equal(can_open(store, &key_file), -EBADMSG);
	assert_non_null(strstr(fail_text(), "tdfs key restore"));
	write_all(path, blob, len);
	assert_int_equal(can_open(store, &key_file), 0);

	/* a key of this volume under a name that is not its own */
	keys = must_open(store, &key_file);
	rewrite(store, keys, "{\"kid\":\"tdfs-", "{\"kid\":\"TDFS-");
	snprintf(other, sizeof(other), "TDFS-%s", kas_key + 5);
	write_all(in_dir(in_dir(store, ".tdfs/kas"), other), blob, len);
	assert_int_equal(can_open(store, &key_file), -EBADMSG);
	assert_non_null(strstr(fail_text(), "not TDFS-"));
	volume_free(keys);
	free(blob);
	free(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_every_byte), cmocka_unit_test(test_every_length), cmocka_unit_test(test_contents),
	    cmocka_unit_test(test_kdf_bounds), cmocka_unit_test(test_kas_key),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
