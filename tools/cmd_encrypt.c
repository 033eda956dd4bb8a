/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs encrypt: plain files to TDFs, without a mount. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "commands.h"
#include "encode.h"
#include "mounts.h"
#include "outfile.h"
#include "policy_keys.h"
#include "policy_make.h"
#include "progress.h"
#include "say.h"
#include "target.h"
#include "tree.h"
#include "writer.h"

#define CHUNK ((size_t)1 << 20)

struct args {
	struct key_options keys;
	const char *out;
	uint64_t segment_size;
	bool force, unchecked;
	struct policy_words words; /* of share */
	const char *policy;        /* base64, made from them; NULL: that of the volume */
};

/* Is @out going to lie in the store?  Then it becomes a native file, and @ret_policy is that of its directory. */
static int in_store(const struct volume *v, const char *out, bool *ret, const char **ret_policy)
{
	const char *slash = strrchr(out, '/');
	CLEANUP_FREE char *dir = slash ? strndup(out, (size_t)(slash - out) + 1) : strdup(".");
	CLEANUP_FREE char *real = dir ? realpath(dir, NULL) : NULL;
	size_t len = strlen(v->path);

	if (!real)
		return dir ? fail(-errno, "its directory: %s", strerror(errno)) : -ENOMEM;
	*ret = strncmp(real, v->path, len) == 0 && (real[len] == '/' || real[len] == 0 || len == 1);
	if (!*ret)
		return 0;
	if (strncmp(real + len, "/" TDFS_DIR, 6) == 0 && (real[len + 6] == '/' || real[len + 6] == 0))
		return fail(-EINVAL, "lies in " TDFS_DIR ", which is the volume's own");
	if (!name_is_tdf(slash ? slash + 1 : out))
		return fail(-EINVAL, "names of files in a store end in .tdf");
	*ret_policy = volume_policy_at(v, real[len] ? real + len + 1 : "");
	return 0;
}

/* A policy without attributes: whoever the KAS lets in. */
static int policy_default(char **ret)
{
	char text[160], uuid[37];
	uint8_t id[16];
	int len, err = random_bytes(id, sizeof(id));

	if (err)
		return err;
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x40); /* RFC 9562, version 4 */
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
	uuid_format(id, uuid);
	len = snprintf(text, sizeof(text), "{\"uuid\":\"%s\",\"body\":{\"dataAttributes\":[],\"dissem\":[]}}", uuid);
	*ret = malloc(BASE64_LEN((size_t)len) + 1);
	if (!*ret)
		return -ENOMEM;
	base64_encode(text, (size_t)len, *ret);
	return 0;
}

static int pump(int in, struct writer *w, struct progress *p)
{
	uint8_t *buf = malloc(CHUNK);
	int err = buf ? 0 : -ENOMEM;

	while (!err) {
		ssize_t n = read(in, buf, CHUNK);

		if (interrupted())
			err = -EINTR;
		else if (n < 0)
			err = errno == EINTR ? 0 : fail(-errno, "reading: %s", strerror(errno));
		else if (n == 0)
			break;
		else
			err = writer_put(w, buf, (size_t)n);
		if (!err && n > 0)
			progress_add(p, (uint64_t)n, 0);
	}
	if (buf)
		wipe(buf, CHUNK);
	free(buf);
	return err;
}

static int encrypt_fd(int in, const struct stat *st, const struct target *t, const struct args *a, const char *native, int out)
{
	struct io io = io_posix(out);
	CLEANUP_FREE char *policy = NULL;
	struct writer_params par = {
	    .s = a->segment_size ? (uint32_t)a->segment_size
		 : t->vol        ? t->vol->segment_size
				 : SEG_DEFAULT,
	    .kas = t->kas,
	    .native = native && !a->policy ? t->vol : NULL,
	    .mtime = st->st_mtim,
	};
	struct writer *w = NULL;
	struct progress *p;
	int err = t->vol ? 0 : policy_default(&policy);

	par.policy = a->policy ? a->policy : native ? native : t->vol ? t->vol->policy : policy;
	if (!err)
		err = writer_start(&io, out, &par, &w);
	if (err)
		return err;
	p = progress_start(PROGRESS_AUTO, "encrypted", S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0);
	err = pump(in, w, p);
	if (!err)
		err = writer_finish(w);
	progress_stop(p);
	writer_free(w);
	return err;
}

static int encrypt_to(int in, const char *path, const struct target *t, const struct args *a, const char *out)
{
	struct outfile o = {.fd = -1, .dir_fd = -1};
	struct timespec times[2];
	const char *policy = NULL;
	bool native = false;
	mode_t mode;
	struct stat st;
	int err;

	fail_clear();
	if (fstat(in, &st))
		return complain_file(-errno, path, NULL);
	if (S_ISDIR(st.st_mode))
		return complain_file(fail(-EISDIR, "is a directory"), path, "mount the volume and copy it in: cp -a");
	err = t->vol ? in_store(t->vol, out, &native, &policy) : 0;
	if (err)
		return complain_file(err, out, NULL);
	err = outfile_open(out, a->force, &o);
	if (err)
		return complain_file(err, out, err == -EEXIST ? "--force replaces it; or give another name" : NULL);
	if (S_ISREG(st.st_mode)) {
		mode = st.st_mode & 0777;
		times[0] = st.st_atim;
		times[1] = st.st_mtim;
	} else {
		mode_t mask = umask(022);

		umask(mask);
		mode = 0666 & ~mask;
		clock_gettime(CLOCK_REALTIME, &st.st_mtim);
		times[0] = times[1] = st.st_mtim;
	}
	err = encrypt_fd(in, &st, t, a, policy, o.fd);
	if (err == -EINTR) {
		outfile_abort(&o);
		report(REPORT_ERROR, "interrupted; %s was not made", out);
		return EXIT_TDFS_INTERRUPTED;
	}
	if (!err)
		err = outfile_commit(&o, mode, times);
	outfile_abort(&o);
	return err ? complain(err, out, NULL) : EXIT_TDFS_OK;
}

static int encrypt_one(const struct target *t, const struct args *a, const char *path, const char *out)
{
	bool from_stdin = strcmp(path, "-") == 0;
	int in = from_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), code;

	fail_clear();
	if (in < 0)
		return complain_file(-errno, path, NULL);
	code = encrypt_to(in, from_stdin ? "standard input" : path, t, a, out);
	if (!from_stdin)
		close(in);
	return code;
}

static int args_check(const struct args *a, int n, char **pos)
{
	if (a->segment_size && (a->segment_size < SEG_MIN || a->segment_size > SEG_MAX)) {
		report(REPORT_ERROR, "--segment-size: from %u to %u bytes", SEG_MIN, SEG_MAX);
		return EXIT_TDFS_USAGE;
	}
	if (a->out && n > 1) {
		report(REPORT_ERROR, "-o names one file, but %d are to be encrypted", n);
		return EXIT_TDFS_USAGE;
	}
	if (a->out && strcmp(a->out, "-") == 0) {
		report(REPORT_ERROR, "a TDF is finished at its start, so it cannot go to a pipe; give -o FILE.tdf");
		return EXIT_TDFS_USAGE;
	}
	for (int i = 0; i < n && !a->out; i++)
		if (strcmp(pos[i], "-") == 0) {
			report(REPORT_ERROR, "standard input has no name; give the output with -o FILE.tdf");
			return EXIT_TDFS_USAGE;
		}
	return EXIT_TDFS_OK;
}

static int run(const void *args, int n, char **pos)
{
	const struct args *a = args;
	struct target t = {0};
	int worst = EXIT_TDFS_OK, code = args_check(a, n, pos);

	if (!code)
		code = target_open(&a->keys, a->out ? a->out : pos[0], &t);
	if (code)
		return code;
	interrupt_catch();
	for (int i = 0; i < n && worst != EXIT_TDFS_INTERRUPTED; i++) {
		CLEANUP_FREE char *named = NULL;

		if (!a->out && asprintf(&named, "%s.tdf", pos[i]) < 0)
			named = NULL;
		code = a->out || named ? encrypt_one(&t, a, pos[i], a->out ? a->out : named) : complain(-ENOMEM, pos[i], NULL);
		if (code)
			worst = n == 1 || code == EXIT_TDFS_INTERRUPTED ? code : EXIT_TDFS_SOME;
	}
	target_close(&t);
	return worst;
}

static const struct option_row rows[] = {
    {OPTION_TEXT, 'o', "output", "FILE.tdf", offsetof(struct args, out), "else the name with .tdf behind it"},
    {OPTION_FLAG, 0, "force", NULL, offsetof(struct args, force), "replace what is there"},
    {OPTION_SIZE, 0, "segment-size", "SIZE", offsetof(struct args, segment_size), "plain bytes in a segment: 16K to 4194276"},
    {OPTION_TEXT, 0, "kas-url", "URL", offsetof(struct args, keys.kas_url), "with --kas-key: where that KAS answers"},
    {OPTION_TEXT, 0, "kid", "ID", offsetof(struct args, keys.kid), "with --kas-key: what that KAS calls the key"},
    KEY_ROWS(struct args, keys),
    {0},
};

const struct command command_encrypt = {
    .name = "encrypt",
    .summary = "plain files to TDFs, keeping mode and time",
    .usage = "FILE...|-",
    .notes = "Within a store the result is a file of that volume; elsewhere a TDF that the\n"
	     "volume's key opens, or that of --kas-key (a public key or certificate will do).\n"
	     "The plain file is left as it is.\n",
    .options = rows,
    .args_size = sizeof(struct args),
    .min_args = 1,
    .max_args = -1,
    .run = run,
};

/* --- share --- */

/* The store whose mount @path lies in, malloc'd; NULL: none */
static char *store_of_mount(const char *path)
{
	CLEANUP_FREE char *real = realpath(path, NULL);
	struct mount_place *m = NULL;
	size_t n = 0, best = 0;
	char *store = NULL;

	if (!real || mounts_list(&m, &n))
		return NULL;
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(m[i].mountpoint);

		if (len > best && strncmp(real, m[i].mountpoint, len) == 0 && real[len] == '/') {
			free(store);
			store = strdup(m[i].store);
			best = len;
		}
	}
	mounts_free(m, n);
	return store;
}

static int share_main(const void *args, int n, char **pos)
{
	struct args a = *(const struct args *)args;
	CLEANUP_FREE char *store = NULL;
	CLEANUP_FREE char *policy = NULL;
	struct target t = {0};
	int code, err;

	if (!a.out || !(a.words.dissem || a.words.attributes)) {
		report(REPORT_ERROR, "say for whom (--with WHO or --attribute FQN), and where the copy goes (--out FILE.tdf)");
		return EXIT_TDFS_USAGE;
	}
	fail_clear();
	err = policy_make_base64(&a.words, &policy);
	if (err)
		return complain(err, NULL, NULL);
	a.policy = policy;
	if (!a.keys.volume)
		a.keys.volume = store = store_of_mount(pos[0]);
	code = target_open(&a.keys, pos[0], &t);
	if (code)
		return code;
	if (!kas_is_remote(t.kas))
		report(REPORT_NOTE, "the volume has no remote KAS: the copy opens only where its own key is served (tdfs kas --help)");
	if (!a.unchecked)
		code = policy_keys_use(t.vol, policy);
	interrupt_catch();
	if (!code)
		code = encrypt_one(&t, &a, pos[0], a.out);
	target_close(&t);
	if (!code)
		printf("%s: a copy under a key of its own; the KAS decides who opens it.\n", a.out);
	return code ? code : output_flush(EXIT_TDFS_OK);
}

static const struct option_row share_rows[] = {
    {OPTION_LIST, 0, "with", "WHO", offsetof(struct args, words.dissem), "for these, where the KAS looks at it"},
    {OPTION_LIST, 0, "attribute", "FQN", offsetof(struct args, words.attributes), "who opens it must have this; several: all"},
    {OPTION_TEXT, 0, "until", "TIME", offsetof(struct args, words.expiry), "2027-01-01, where the KAS looks at it"},
    {OPTION_TEXT, 0, "out", "FILE.tdf", offsetof(struct args, out), "the copy"},
    {OPTION_FLAG, 0, "force", NULL, offsetof(struct args, force), "replace what is there"},
    {OPTION_TEXT, 0, "volume", "STORE", offsetof(struct args, keys.volume), "whose KAS it is for (else that of the mount)"},
    {OPTION_FLAG, 0, "unchecked", NULL, offsetof(struct args, unchecked), UNCHECKED_HELP},
    CREDENTIAL_ROWS(struct args, keys.cred),
    {0},
};

const struct command command_share = {
    .name = "share",
    .summary = "a copy of a file for somebody else, opened through the KAS",
    .usage = "FILE",
    .notes = "FILE is a plain one: in a mount, or anywhere. The copy is an ordinary TDF with a\n"
	     "key and a policy of its own; any OpenTDF client opens it whom the KAS lets. If a\n"
	     "platform maps KAS keys to the attributes, it is made for these.\n",
    .options = share_rows,
    .args_size = sizeof(struct args),
    .min_args = 1,
    .max_args = 1,
    .run = share_main,
};
