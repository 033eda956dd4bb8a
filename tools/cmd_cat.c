/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs cat and decrypt: TDFs back to plain bytes, without a mount. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "commands.h"
#include "outfile.h"
#include "reader.h"
#include "say.h"
#include "tree.h"

struct cat_args {
	struct key_options keys;
	uint64_t offset, length;
	const char *length_given; /* a length of 0 is a length */
};

static int copy_complain(int err, const char *path, bool output, const char *out)
{
	if (err == -EINTR) {
		report(REPORT_ERROR, "interrupted");
		return EXIT_TDFS_INTERRUPTED;
	}
	if (output)
		return complain_file(fail(err, "%s", strerror(-err)), out, NULL);
	complain(err, path, "take it from a backup; `tdfs verify` lists all that is wrong");
	return EXIT_TDFS_SOME;
}

static int cat_main(const void *args, int n, char **pos)
{
	const struct cat_args *a = args;
	struct target t = {0};
	uint64_t length = UINT64_MAX;
	int code;

	if (a->length_given && size_parse(a->length_given, &length)) {
		report(REPORT_ERROR, "option '--length': '%s' is not a size (64K, 1M, 65536)", a->length_given);
		return EXIT_TDFS_USAGE;
	}
	code = target_open(&a->keys, pos[0], &t);
	for (int i = 0; i < n && !code; i++) {
		struct reader r;
		bool output = false;
		int err;

		code = reader_open(&t, pos[i], &r);
		if (code)
			break;
		fail_clear();
		err = reader_copy(&r, a->offset, length, STDOUT_FILENO, NULL, &output);
		if (err)
			code = copy_complain(err, pos[i], output, "standard output");
		reader_close(&r);
	}
	target_close(&t);
	return code;
}

static const struct option_row cat_rows[] = {
    {OPTION_SIZE, 0, "offset", "BYTES", offsetof(struct cat_args, offset), "start there in the plain file"},
    {OPTION_TEXT, 0, "length", "BYTES", offsetof(struct cat_args, length_given), "print so many bytes"},
    KEY_ROWS(struct cat_args, keys),
    {0},
};

const struct command command_cat = {
    .name = "cat",
    .summary = "print the plain content of TDFs",
    .usage = "FILE...",
    .notes = "Only verified bytes are printed. Files with unsealed changes are read as last\nsealed, with a warning.\n",
    .options = cat_rows,
    .args_size = sizeof(struct cat_args),
    .min_args = 1,
    .max_args = -1,
    .run = cat_main,
};

struct decrypt_args {
	struct key_options keys;
	const char *out;
	bool force;
};

/* A TDF is read from its end, a pipe is not: spool it (it is ciphertext) into a file without a name. */
static int stdin_spool(int *ret_fd)
{
	const char *tmp = getenv("TMPDIR");
	CLEANUP_FD int fd = open(tmp && *tmp == '/' ? tmp : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	CLEANUP_FREE uint8_t *buf = malloc((size_t)1 << 20);
	uint64_t off = 0;
	struct io io;

	if (fd < 0 || !buf)
		return fd < 0 ? -errno : -ENOMEM;
	io = io_posix(fd);
	for (;;) {
		ssize_t n = read(STDIN_FILENO, buf, (size_t)1 << 20);
		int err;

		if (n < 0 && (errno != EINTR || interrupted()))
			return -errno;
		if (n == 0)
			break;
		if (n < 0)
			continue;
		err = io_pwrite(&io, fd, buf, (size_t)n, off);
		if (err)
			return err;
		off += (uint64_t)n;
	}
	*ret_fd = fd;
	fd = -1;
	return 0;
}

static int decrypt_to(const struct reader *r, const char *path, const char *out, bool force)
{
	struct timespec times[2] = {r->st.st_atim, r->st.st_mtim};
	struct outfile o = {.fd = -1, .dir_fd = -1};
	struct progress *p;
	bool output = false;
	int err;

	fail_clear();
	err = outfile_open(out, force, &o);
	if (err)
		return complain_file(err, out, err == -EEXIST ? "--force replaces it, -o FILE chooses another name" : NULL);
	p = progress_start(PROGRESS_AUTO, "decrypted", r->c->m->size);
	err = reader_copy(r, 0, UINT64_MAX, o.fd, p, &output);
	progress_stop(p);
	if (err) {
		outfile_abort(&o);
		return copy_complain(err, path, output, out);
	}
	err = outfile_commit(&o, r->st.st_mode & 0777, times);
	return err ? complain_file(err, out, NULL) : EXIT_TDFS_OK;
}

static int decrypt_one(const struct target *t, const struct decrypt_args *a, const char *path)
{
	CLEANUP_FREE char *stripped = NULL;
	const char *out = a->out, *slash = strrchr(path, '/');
	bool from_stdin = strcmp(path, "-") == 0, output = false;
	struct reader r;
	int code, fd = -1, err;

	if (!out && !from_stdin) {
		if (!name_is_tdf(slash ? slash + 1 : path)) {
			report(REPORT_ERROR, "%s: does not end in .tdf; give the output with -o FILE", path);
			return EXIT_TDFS_USAGE;
		}
		stripped = strndup(path, strlen(path) - 4);
		if (!stripped)
			return complain(-ENOMEM, path, NULL);
		out = stripped;
	}
	if (from_stdin) {
		err = stdin_spool(&fd);
		if (err)
			return err == -EINTR ? EXIT_TDFS_INTERRUPTED : complain_file(err, "standard input", NULL);
	}
	code = from_stdin ? reader_take(t, fd, "standard input", &r) : reader_open(t, path, &r);
	if (code)
		return code;
	if (!out || strcmp(out, "-") == 0) {
		err = reader_copy(&r, 0, UINT64_MAX, STDOUT_FILENO, NULL, &output);
		code = err ? copy_complain(err, path, output, "standard output") : EXIT_TDFS_OK;
	} else {
		if (from_stdin) { /* the spool file's mode and times say nothing */
			mode_t mask = umask(022);

			umask(mask);
			r.st.st_mode = 0666 & ~mask;
			r.st.st_atim.tv_nsec = r.st.st_mtim.tv_nsec = UTIME_NOW;
		}
		code = decrypt_to(&r, path, out, a->force);
	}
	reader_close(&r);
	return code;
}

static int decrypt_main(const void *args, int n, char **pos)
{
	const struct decrypt_args *a = args;
	struct target t = {0};
	int code, worst = EXIT_TDFS_OK;

	if (n > 1 && a->out) {
		report(REPORT_ERROR, "-o names one file, but %d are to be decrypted", n);
		return EXIT_TDFS_USAGE;
	}
	code = target_open(&a->keys, strcmp(pos[0], "-") == 0 ? NULL : pos[0], &t);
	if (code)
		return code;
	interrupt_catch();
	for (int i = 0; i < n && worst != EXIT_TDFS_INTERRUPTED; i++) {
		code = decrypt_one(&t, a, pos[i]);
		if (code)
			worst = n == 1 || code == EXIT_TDFS_INTERRUPTED ? code : EXIT_TDFS_SOME;
	}
	target_close(&t);
	return worst;
}

static const struct option_row decrypt_rows[] = {
    {OPTION_TEXT, 'o', "output", "FILE", offsetof(struct decrypt_args, out), "else the name without .tdf; - is stdout"},
    {OPTION_FLAG, 0, "force", NULL, offsetof(struct decrypt_args, force), "replace what is there"},
    KEY_ROWS(struct decrypt_args, keys),
    {0},
};

const struct command command_decrypt = {
    .name = "decrypt",
    .summary = "TDFs to plain files, keeping mode and time",
    .usage = "FILE.tdf...|-",
    .notes = "The plain file appears only when all of it has been verified.\n",
    .options = decrypt_rows,
    .args_size = sizeof(struct decrypt_args),
    .min_args = 1,
    .max_args = -1,
    .run = decrypt_main,
};
