/* SPDX-License-Identifier: Apache-2.0 */
#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#include "convert.h"
#include "mounts.h"
#include "say.h"

#define PEM_MAX ((size_t)1 << 20)

int volume_complain(int err, const char *store)
{
	switch (-err) {
	case EKEYREJECTED:
		return complain(err, store, "`tdfs key list` shows its key slots; a recovery key goes with --recovery");
	case ENOENT:
		return complain(err, store, "`tdfs init STORE` makes a volume");
	case EBADMSG:
		return complain(err, store, "`tdfs key restore STORE FILE` puts a backup back");
	case ENOTDIR:
	case EPERM:
		return complain_file(err, store, "`tdfs doctor STORE` tells what is wrong with it");
	case EACCES:
		return complain_file(err, store, NULL);
	default:
		return complain(err, store, NULL);
	}
}

int credential_complain(int err)
{
	report(REPORT_ERROR, "%s", cause_text(err));
	switch (err) {
	case -EPROTO:
		return EXIT_TDFS_SECRET;
	case -EINTR: /* the others are a KAS's */
	case -EACCES:
	case -ENOKEY:
	case -ETIMEDOUT:
	case -EKEYREJECTED:
		return exit_code_of(err);
	default:
		return EXIT_TDFS_USAGE;
	}
}

int volume_get(const char *store, const struct credential_source *cred, struct volume **ret)
{
	struct credential c = {0};
	struct volume *peek = NULL;
	int err;

	/* before anybody types a passphrase for nothing */
	fail_clear();
	err = volume_peek(store, &peek);
	volume_free(peek);
	if (err)
		return volume_complain(err, store);
	err = credential_get(cred, store, false, &c);
	if (err)
		return credential_complain(err);
	fail_clear();
	err = volume_open(store, &c, ret);
	credential_free(&c);
	if (err)
		return volume_complain(err, store);
	if ((*ret)->from_backup)
		report(REPORT_WARN, "%s: volume.json was damaged, its second copy was used; the next `tdfs key` change mends it", store);
	return EXIT_TDFS_OK;
}

static bool is_mounted(const struct volume *v)
{
	struct mount_place *list = NULL;
	bool found = false;
	size_t n = 0;

	if (mounts_list(&list, &n))
		return false;
	for (size_t i = 0; i < n; i++)
		found |= strcmp(list[i].store, v->path) == 0;
	mounts_free(list, n);
	return found;
}

static int hold(struct volume *v, bool shared)
{
	pid_t pid = 0;
	int err;

	fail_clear();
	err = shared ? volume_lock_shared(v, 2000, &pid) : volume_lock(v, 2000, &pid);
	if (err == -EBUSY && !is_mounted(v))
		return complain(err, v->path, "wait for it; `tdfs convert status %s` tells how far a conversion is", v->path);
	if (err == -EBUSY)
		return complain(err, v->path, "`tdfs umount %s` first", v->path);
	return err ? complain(err, v->path, NULL) : EXIT_TDFS_OK;
}

int volume_hold(struct volume *v)
{
	return hold(v, false);
}

int volume_share(struct volume *v)
{
	return hold(v, true);
}

/* A PEM key of either half; a public key or certificate is enough to write with. */
static int add_pem(struct kas *k, const struct key_options *opt)
{
	FILE *f = fopen(opt->kas_key, "re");
	char *pem = malloc(PEM_MAX);
	EVP_PKEY *key = NULL;
	size_t len;
	int err;

	if (!f || !pem) {
		err = f ? -ENOMEM : -errno;
		if (f)
			fclose(f);
		free(pem);
		return err;
	}
	len = fread(pem, 1, PEM_MAX, f);
	fclose(f);
	err = pubkey_private(pem, len, &key);
	if (err)
		err = pubkey_public(pem, len, &key);
	wipe(pem, PEM_MAX);
	free(pem);
	return err ? err : kas_add_local(k, opt->kid ? opt->kid : "", opt->kas_url, key);
}

static int add_kas_key(struct kas *k, const struct key_options *opt)
{
	int err = 0;

	fail_clear();
	if (!opt->kas_url && !opt->kid)
		err = kas_add_key_file(k, opt->kas_key);
	if (opt->kas_url || opt->kid || err == -EPROTO)
		err = add_pem(k, opt);
	return err ? complain(err, opt->kas_key, "give a PEM key, a certificate or a JSON list of keys") : EXIT_TDFS_OK;
}

/* The volume above @path, which need not exist yet (but its directory must). */
static int find_above(const char *path, char **ret)
{
	const char *slash = strrchr(path, '/');
	CLEANUP_FREE char *dir = NULL;
	int err = volume_find(path, ret);

	if (!err)
		return 0;
	dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	return dir ? volume_find(dir, ret) : -ENOMEM;
}

int target_open(const struct key_options *opt, const char *near, struct target *ret)
{
	CLEANUP_FREE char *found = NULL;
	const char *store = opt->volume;
	struct target t = {0};
	int code = EXIT_TDFS_OK;

	if (!store && near &&
	    (!opt->kas_key || opt->cred.passfile || opt->cred.passfd || opt->cred.extpass || opt->cred.keyfile || opt->cred.recovery)) {
		if (find_above(near, &found) == 0)
			store = found;
	}
	if (!store && !opt->kas_key) {
		report(REPORT_ERROR, "%s: no volume above it; give --volume STORE or --kas-key FILE", near ? near : "-");
		return EXIT_TDFS_USAGE;
	}
	if (store)
		code = volume_get(store, &opt->cred, &t.vol);
	if (!code) {
		t.kas = t.vol ? t.vol->kas : kas_new();
		code = t.kas ? EXIT_TDFS_OK : complain(-ENOMEM, NULL, NULL);
	}
	if (!code && opt->kas_key)
		code = add_kas_key(t.kas, opt);
	if (code)
		target_close(&t);
	else
		*ret = t;
	return code;
}

void target_close(struct target *t)
{
	if (t->kas && (!t->vol || t->kas != t->vol->kas))
		kas_free(t->kas);
	volume_free(t->vol);
	t->kas = NULL;
	t->vol = NULL;
}

struct container_keys target_keys(const struct target *t)
{
	struct container_keys k = {0};

	if (t->vol)
		k = (struct container_keys){t->vol->k_rec, t->vol->k_seal, t->vol->id};
	return k;
}

int target_container(const struct target *t, const struct io *io, int fd, struct container **ret)
{
	struct container_keys keys = target_keys(t);
	CLEANUP(container_cleanup) struct container *c = NULL;
	CLEANUP_SECRET struct secret *dek = NULL;
	int err = container_open(io, fd, &keys, &c);

	if (!err)
		err = kas_unwrap(t->kas, c->m, &dek);
	if (!err)
		err = container_unlock(c, &keys, dek);
	if (!err)
		*ret = STEAL(c);
	return err;
}

char *path_absolute(const char *path)
{
	char *real = realpath(path, NULL), *joined = NULL;
	CLEANUP_FREE char *copy = NULL;
	CLEANUP_FREE char *parent = NULL;
	char *slash;
	size_t len;

	if (real || (errno != ENOTCONN && errno != EACCES && errno != EIO))
		return real;
	copy = strdup(path);
	len = copy ? strlen(copy) : 0;
	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = 0;
	slash = copy ? strrchr(copy, '/') : NULL;
	if (slash)
		*slash = 0;
	parent = copy ? realpath(!slash ? "." : *copy ? copy : "/", NULL) : NULL;
	if (!parent || asprintf(&joined, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, slash ? slash + 1 : copy) < 0)
		return NULL;
	return joined;
}

bool path_below(const char *path, const char *dir)
{
	const char *home = strncmp(path, "~/", 2) == 0 ? getenv("HOME") : NULL;
	CLEANUP_FREE char *full = NULL, *real = NULL, *real_dir = realpath(dir, NULL);
	size_t n = real_dir ? strlen(real_dir) : 0;

	if (home && asprintf(&full, "%s/%s", home, path + 2) < 0)
		full = NULL;
	real = realpath(full ? full : path, NULL);
	return n && real && strncmp(real, real_dir, n) == 0 && real[n] == '/';
}

char *tdfs_dir(const char *store)
{
	char *dir = NULL;

	return asprintf(&dir, "%s/" TDFS_DIR, store) < 0 ? NULL : dir;
}

int store_resolve(const char *arg, char **ret_store, char **ret_mountpoint)
{
	CLEANUP_FREE char *path = path_absolute(arg);
	CLEANUP_FREE char *dir = NULL;
	CLEANUP_FREE char *store = NULL;
	CLEANUP_FREE char *mountpoint = NULL;
	struct mount_place *list = NULL;
	size_t n = 0;
	int err;

	if (!path)
		return fail(-errno, "%s", strerror(errno));
	err = mounts_list(&list, &n);
	if (err)
		return err;
	for (size_t i = n; i-- > 0 && !store;) { /* the latest mount is on top */
		if (strcmp(list[i].mountpoint, path) != 0 && strcmp(list[i].store, path) != 0)
			continue;
		store = strdup(list[i].store);
		mountpoint = strdup(list[i].mountpoint);
	}
	mounts_free(list, n);
	if (!store) {
		dir = tdfs_dir(path);
		if (!dir || access(dir, F_OK))
			return fail(-ENOENT, "neither a store nor where one is mounted");
		store = STEAL(path);
	}
	*ret_store = STEAL(store);
	*ret_mountpoint = STEAL(mountpoint);
	return 0;
}

static pid_t holder(const char *store, const char *lock)
{
	CLEANUP_FREE char *path = NULL;
	CLEANUP_FD int fd = -1;
	char text[32] = "";
	unsigned long pid;
	ssize_t n;

	if (asprintf(&path, "%s/" TDFS_DIR "/%s", store, lock) < 0)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK)
		return 0;
	n = pread(fd, text, sizeof(text) - 1, 0);
	pid = n > 0 ? strtoul(text, NULL, 10) : 0;
	return pid && pid <= INT32_MAX ? (pid_t)pid : -1;
}

pid_t store_holder(const char *store)
{
	return holder(store, "lock");
}

pid_t convert_holder(const char *store)
{
	return holder(store, VOLUME_CONVERT_DIR "/" CONVERT_LOCK);
}
