/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs info: what a TDF says about itself.  Needs no key, so nothing it prints is proven but the structure. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include "commands.h"
#include "container.h"
#include "encode.h"
#include "say.h"
#include "zip.h"

struct args {
	bool json;
};

static const char *const state_names[] = {"VOID", "NEW", "SEALED", "LIVE"};

/* @tv with its nanoseconds as text */
static json_t *json_time(const struct timespec *ts)
{
	char text[SAY_TEXT];

	time_text(ts->tv_sec, text);
	return json_string(text);
}

static json_t *native_json(const struct record *r)
{
	return json_pack("{s:s, s:I, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:b}", "state", state_names[r->state],
			 "generation", (json_int_t)r->generation, "content_id", json_hex(r->content_id, ID_LEN), "volume_id",
			 json_hex(r->volume_id, ID_LEN), "file_id", json_hex(r->file_id, ID_LEN), "plain_size", (json_int_t)r->size,
			 "segment_size", (json_int_t)r->s, "tail_offset", (json_int_t)r->tail_off, "epoch", (json_int_t)r->epoch,
			 "invocation_bound", (json_int_t)r->invocations, "mtime", json_time(&r->mtime), "ctime", json_time(&r->ctime),
			 "made", json_time(&r->made), "sealed", r->state == RECORD_SEALED || r->state == RECORD_LIVE);
}

static json_t *key_access_json(const struct manifest *m)
{
	json_t *list = json_array();

	for (size_t i = 0; i < m->n_ka; i++) {
		const struct key_access *k = &m->ka[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:b}", "type", k->type_name, "url", k->url,
						      "protocol", k->protocol, "kid", k->kid, "sid", k->sid, "wrapped_bytes",
						      (int)k->wrapped_len, "usable", k->type != WRAP_OTHER));
	}
	return list;
}

/* The policy as JSON if it is that, else as text; NULL: not even base64. */
static json_t *policy_json(const char *policy)
{
	size_t len = strlen(policy), n = 0;
	CLEANUP_FREE char *text = malloc(len + 1);
	json_t *j;

	if (!text || base64_decode(policy, len, true, text, len, &n))
		return NULL;
	j = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
	return j ? j : json_stringn(text, n);
}

static json_t *manifest_json(const struct manifest *m)
{
	json_t *j =
	    json_pack("{s:s, s:s, s:I, s:I, s:I, s:s, s:s, s:b, s:o}", "schema", m->schema_version, "mime_type", m->mime_type, "plain_size",
		      (json_int_t)m->size, "segments", (json_int_t)m->n_segs, "segment_size", (json_int_t)m->seg_default, "root_signature",
		      "HS256", "segment_hash", m->seg_hs256 ? "HS256" : "GMAC", "hex_hashes", m->hex, "key_access", key_access_json(m));
	json_t *policy = policy_json(m->policy);

	if (j && policy)
		json_object_set_new(j, "policy", policy);
	return j;
}

/* Where record, zip and manifest contradict each other: what can be told without a key. */
static const char *contradiction(const struct record *r, const struct container *c, const struct zip *z)
{
	if (r->size != c->m->size)
		return "record and manifest disagree on the plain size";
	if (c->m->size && r->s != c->m->seg_default)
		return "record and manifest disagree on the segment size";
	if (z->payload.data_off != SECTOR || r->tail_off != z->manifest.local_off)
		return "the entries do not lie where the record says";
	if (memcmp(r->content_id, c->m->root_sig, ID_LEN) != 0)
		return "the content id is not the root signature's start: record and manifest are of different states";
	return NULL;
}

/* @ret: filled as far as the file can be read; returns 0 or -errno of what is wrong */
static int examine(int fd, json_t *ret)
{
	struct io io = io_posix(fd);
	struct container_keys no_keys = {0};
	CLEANUP(container_cleanup) struct container *c = NULL;
	uint8_t sector[SECTOR];
	struct record r = {0};
	struct stat st;
	struct zip z;
	int err, native;
	const char *wrong;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return fail(-EINVAL, "not a regular file");
	json_object_set_new(ret, "stored_size", json_integer(st.st_size));
	if (st.st_size == 0) {
		json_object_set_new(ret, "kind", json_string("empty"));
		return fail(-ENODATA, "empty: created but never completed");
	}
	err = st.st_size < SECTOR ? -ENOENT : io_pread_full(&io, fd, sector, sizeof(sector), 0);
	native = err ? err : record_parse(sector, NULL, &r, NULL);
	json_object_set_new(ret, "kind", json_string(native == -ENOENT ? "foreign" : "native"));
	if (native == 0)
		json_object_set_new(ret, "native", native_json(&r));
	else if (native != -ENOENT)
		return native;
	if (native == 0 && (r.state == RECORD_NEW || r.state == RECORD_VOID))
		return fail(-ENODATA, "created but never completed: there is nothing to read in it");
	err = container_open(&io, fd, &no_keys, &c);
	if (err == -ENOEXEC && native == -ENOENT)
		json_object_del(ret, "kind"); /* no TDF at all */
	if (err)
		return err;
	json_object_set_new(ret, "tdf", manifest_json(c->m));
	err = zip_find(&io, fd, (uint64_t)st.st_size, &z);
	if (err)
		return err;
	json_object_set_new(ret, "payload_crc32", json_integer(z.payload.crc));
	wrong = native == 0 ? contradiction(&r, c, &z) : NULL;
	return wrong ? fail(-EBADMSG, "%s", wrong) : 0;
}

static json_int_t integer(const json_t *j, const char *name)
{
	return json_integer_value(json_object_get(j, name));
}

static const char *string(const json_t *j, const char *name)
{
	const char *s = json_string_value(json_object_get(j, name));

	return s ? s : "";
}

static void print_size(const char *label, json_int_t n)
{
	char text[SAY_TEXT];

	size_text((uint64_t)n, text);
	printf("  %-12s %" JSON_INTEGER_FORMAT, label, n);
	if (n >= 1024)
		printf(" (%s)", text);
}

static void print_native(const json_t *n)
{
	if (strcmp(string(n, "state"), "VOID") == 0)
		return;
	printf("  %-12s %s, generation %" JSON_INTEGER_FORMAT "%s\n", "state", string(n, "state"), integer(n, "generation"),
	       strcmp(string(n, "state"), "LIVE") == 0 ? " (newer changes are in the volume's log)" : "");
	printf("  %-12s %s\n  %-12s %s\n  %-12s %s\n", "volume", string(n, "volume_id"), "file id", string(n, "file_id"), "content id",
	       string(n, "content_id"));
	printf("  %-12s %s\n", "changed", string(n, "mtime"));
}

static void print_policy(const json_t *policy)
{
	CLEANUP_FREE char *text = policy ? json_dumps(policy, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
	CLEANUP_FREE char *shown = text ? path_text(text) : NULL;

	printf("  %-12s %s\n", "policy", shown ? shown : "not readable");
}

static void print_key_access(const json_t *k)
{
	CLEANUP_FREE char *type = path_text(string(k, "type"));
	CLEANUP_FREE char *kid = path_text(string(k, "kid"));
	CLEANUP_FREE char *url = path_text(string(k, "url"));
	CLEANUP_FREE char *sid = path_text(string(k, "sid"));

	if (!type || !kid || !url || !sid)
		return;
	printf("  %-12s %s%s%s for %s%s%s\n", "key access", type, *kid ? ", key " : "", kid, url, *sid ? ", share " : "", sid);
}

static void print_tdf(const json_t *t)
{
	CLEANUP_FREE char *schema = path_text(string(t, "schema"));
	CLEANUP_FREE char *mime = path_text(string(t, "mime_type"));
	const json_t *k;
	size_t i;

	print_size("plain size", integer(t, "plain_size"));
	printf(" in %" JSON_INTEGER_FORMAT " segments of %" JSON_INTEGER_FORMAT "\n", integer(t, "segments"), integer(t, "segment_size"));
	printf("  %-12s %s, %s; root signature HS256, segments %s\n", "OpenTDF",
	       schema && *schema ? schema : "4.2 or older (no version given)", mime && *mime ? mime : "no MIME type",
	       string(t, "segment_hash"));
	json_array_foreach(json_object_get(t, "key_access"), i, k) print_key_access(k);
	print_policy(json_object_get(t, "policy"));
}

static void print_file(const json_t *f)
{
	CLEANUP_FREE char *path = path_text(string(f, "path"));
	CLEANUP_FREE char *problem = path_text(string(f, "problem"));
	const json_t *native = json_object_get(f, "native"), *tdf = json_object_get(f, "tdf");
	const char *kind = string(f, "kind");

	printf("%s\n", path ? path : "?");
	if (*kind)
		printf("  %-12s %s\n", "kind",
		       strcmp(kind, "native") == 0    ? "native file of a tdfs volume"
		       : strcmp(kind, "foreign") == 0 ? "made by another program, or outside of a volume"
						      : kind);
	if (native)
		print_native(native);
	if (tdf)
		print_tdf(tdf);
	print_size("stored size", integer(f, "stored_size"));
	printf("\n  %-12s %s\n", "structure",
	       json_is_true(json_object_get(f, "sound")) ? "sound; signatures need the key: `tdfs verify`"
	       : problem                                 ? problem
							 : "?");
}

static json_t *file_json(const char *path, int *ret_err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	json_t *f = json_object();

	fail_clear();
	json_object_set_new(f, "path", json_path(path));
	*ret_err = fd < 0 ? -errno : examine(fd, f);
	json_object_set_new(f, "sound", json_boolean(*ret_err == 0));
	if (*ret_err) {
		json_t *why = json_path(cause_text(*ret_err));

		json_object_set_new(f, "problem", why);
	}
	return f;
}

static int run(const void *args, int n, char **pos)
{
	const struct args *a = args;
	json_t *list = json_array();
	int code = EXIT_TDFS_OK;

	for (int i = 0; i < n; i++) {
		int err = 0;
		json_t *f = file_json(pos[i], &err);

		if (err) /* one file: what is wrong with it; several: that some failed */
			code = n > 1 ? EXIT_TDFS_SOME : err == -ENODATA ? EXIT_TDFS_OK : EXIT_TDFS_FAILED;
		if (a->json) {
			json_array_append_new(list, f);
			continue;
		}
		if (err && !json_object_get(f, "kind"))
			complain(err, pos[i], NULL);
		else
			print_file(f);
		json_decref(f);
	}
	if (a->json)
		json_say(json_pack("{s:i, s:O}", "v", 1, "files", list));
	json_decref(list);
	return code;
}

static const struct option_row rows[] = {
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct args, json), "answer in JSON"},
    {0},
};

const struct command command_info = {
    .name = "info",
    .summary = "what a TDF says about itself; needs no key",
    .usage = "FILE...",
    .options = rows,
    .args_size = sizeof(struct args),
    .min_args = 1,
    .max_args = -1,
    .run = run,
};
