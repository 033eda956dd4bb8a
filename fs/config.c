/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "config.h"
#include "report.h"

#define SEGCACHE_DEFAULT ((size_t)64 << 20)
#define SEGCACHE_MAX ((size_t)64 << 30)
#define THREADS_DEFAULT 10
#define THREADS_MAX 1024

enum exit_code exit_code_of(int err)
{
	switch (err) {
	case 0:
		return EXIT_TDFS_OK;
	case -EINVAL:
		return EXIT_TDFS_USAGE;
	case -EKEYREJECTED:
		return EXIT_TDFS_SECRET;
	case -EBADMSG:
	case -EPROTO:
		return EXIT_TDFS_DAMAGED;
	case -EACCES:
	case -ENOKEY:
		return EXIT_TDFS_KAS_REFUSED;
	case -ETIMEDOUT:
		return EXIT_TDFS_KAS_AWAY;
	case -EBUSY:
		return EXIT_TDFS_BUSY;
	case -EAGAIN:
		return EXIT_TDFS_RETRY;
	case -EINTR:
		return EXIT_TDFS_INTERRUPTED;
	default:
		return EXIT_TDFS_FAILED;
	}
}

void config_init(struct config *c)
{
	*c = (struct config){
	    .exec = true,
	    .live_mark = true,
	    .foreign = FOREIGN_RO,
	    .cache_bytes = SEGCACHE_DEFAULT,
	    .max_threads = THREADS_DEFAULT,
	};
}

/* Options that set one bool */
static const struct flag {
	const char *name;
	size_t off;
	bool value;
} flags[] = {
    {"ro", offsetof(struct config, read_only), true},
    {"rw", offsetof(struct config, read_only), false},
    {"allow_other", offsetof(struct config, allow_other), true},
    {"allow_root", offsetof(struct config, allow_root), true},
    {"dev", offsetof(struct config, dev), true},
    {"nodev", offsetof(struct config, dev), false},
    {"suid", offsetof(struct config, suid), true},
    {"nosuid", offsetof(struct config, suid), false},
    {"exec", offsetof(struct config, exec), true},
    {"noexec", offsetof(struct config, exec), false},
    {"noatime", offsetof(struct config, noatime), true},
    {"atime", offsetof(struct config, noatime), false},
    {"relatime", offsetof(struct config, noatime), false},
    {"shared_storage", offsetof(struct config, shared_storage), true},
    {"live_mark", offsetof(struct config, live_mark), true},
    {"nolive_mark", offsetof(struct config, live_mark), false},
    {"debug", offsetof(struct config, debug), true},
    {"foreground", offsetof(struct config, foreground), true},
};

/* Written into fstab for mount(8) or systemd, or always true here */
static const char *const ignored[] = {"defaults", "auto",   "noauto",  "user",  "users",
				      "nouser",   "nofail", "_netdev", "async", "default_permissions"};
/* Ours to decide: they would break what the mount promises */
static const char *const refused[] = {"sync",    "dirsync", "direct_io", "kernel_cache", "auto_cache", "nonempty",
				      "subtype", "blkdev",  "fd",        "rootmode",     "user_id",    "group_id"};

static const char *const with_value[] = {"cache", "foreign", "segcache", "fsname", "threads"};

static int set_string(char **where, const char *val)
{
	char *copy = strdup(val);

	if (!copy)
		return -ENOMEM;
	free(*where);
	*where = copy;
	return 0;
}

static int parse_size(const char *name, const char *val, size_t max, size_t *ret)
{
	unsigned long long n;
	unsigned shift = 0;
	char *end;

	errno = 0;
	n = isdigit((unsigned char)*val) ? strtoull(val, &end, 10) : (errno = EINVAL, end = (char *)val, 0);
	switch (*end) {
	case 'k':
	case 'K':
		shift = 10;
		break;
	case 'm':
	case 'M':
		shift = 20;
		break;
	case 'g':
	case 'G':
		shift = 30;
		break;
	}
	if (shift)
		end++;
	if (errno || *end || n > max >> shift)
		return fail(-EINVAL, "option %s=%s: give a number up to %zu, with K, M or G if you like", name, val, max);
	*ret = (size_t)n << shift;
	return 0;
}

static int set_cache(struct config *c, const char *val)
{
	bool strict = !strcmp(val, "strict"), exclusive = !strcmp(val, "exclusive");

	if (!strict && !exclusive && strcmp(val, "writeback"))
		return fail(-EINVAL, "option cache=%s: give writeback (the default), strict or exclusive", val);
	c->strict = strict;
	c->exclusive = exclusive;
	return 0;
}

static int set_value(struct config *c, const char *name, const char *val)
{
	size_t n;
	int err;

	if (!strcmp(name, "cache"))
		return set_cache(c, val);
	if (!strcmp(name, "segcache"))
		return parse_size(name, val, SEGCACHE_MAX, &c->cache_bytes);
	if (!strcmp(name, "fsname"))
		return set_string(&c->fsname, val);
	if (!strcmp(name, "threads")) {
		err = parse_size(name, val, THREADS_MAX, &n);
		if (!err && !n)
			err = fail(-EINVAL, "option threads=0: at least one thread is needed");
		if (!err)
			c->max_threads = (unsigned)n;
		return err;
	}
	if (!strcmp(val, "ro"))
		c->foreign = FOREIGN_RO;
	else if (!strcmp(val, "deny"))
		c->foreign = FOREIGN_DENY;
	else
		return fail(-EINVAL, "option foreign=%s: give ro or deny", val);
	return 0;
}

/* Edit distance, for "did you mean": short words only */
static unsigned distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	unsigned row[32], diag, up;

	if (la >= 32 || lb >= 32)
		return UINT_MAX;
	for (size_t j = 0; j <= lb; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= la; i++) {
		diag = row[0];
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= lb; j++) {
			up = row[j];
			row[j] = MIN(MIN(row[j], row[j - 1]) + 1, diag + (a[i - 1] != b[j - 1]));
			diag = up;
		}
	}
	return row[lb];
}

static void nearer(const char *word, const char *candidate, unsigned *best, const char **ret)
{
	unsigned d = distance(word, candidate);

	if (d < *best) {
		*best = d;
		*ret = candidate;
	}
}

static int unknown(const char *name)
{
	const char *near = "";
	unsigned best = UINT_MAX;

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		nearer(name, flags[i].name, &best, &near);
	for (size_t i = 0; i < ARRAY_SIZE(with_value); i++)
		nearer(name, with_value[i], &best, &near);
	if (best <= 3)
		return fail(-EINVAL, "unknown mount option '%s'; did you mean '%s'?", name, near);
	return fail(-EINVAL, "unknown mount option '%s'; see: tdfs mount --help", name);
}

static bool listed(const char *name, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(name, list[i]))
			return true;
	return false;
}

/* One option, already unescaped; split at the first '=' */
static int set_option(struct config *c, char *opt)
{
	char *val = strchr(opt, '=');

	if (val)
		*val++ = 0;
	if (!*opt || !strncmp(opt, "x-", 2) || !strncmp(opt, "X-", 2) || !strcmp(opt, "comment"))
		return 0; /* user-space options of fstab */
	if (listed(opt, with_value, ARRAY_SIZE(with_value)))
		return val && *val ? set_value(c, opt, val) : fail(-EINVAL, "option %s needs a value: %s=...", opt, opt);
	if (listed(opt, refused, ARRAY_SIZE(refused)))
		return fail(-EINVAL, "mount option '%s' cannot be used with tdfs; leave it out", opt);
	if (!strcmp(opt, "max_read") && val)
		return 0; /* ours is as large as the kernel allows */
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
		if (strcmp(opt, flags[i].name))
			continue;
		if (val)
			return fail(-EINVAL, "option %s takes no value", opt);
		*(bool *)((char *)c + flags[i].off) = flags[i].value;
		return 0;
	}
	return listed(opt, ignored, ARRAY_SIZE(ignored)) ? 0 : unknown(opt);
}

int config_option_string(struct config *c, const char *opts)
{
	char *one CLEANUP_FREE = malloc(strlen(opts) + 1);
	int err = 0;

	if (!one)
		return -ENOMEM;
	while (!err && *opts) {
		char *to = one;

		for (; *opts && *opts != ','; opts++) {
			if (*opts == '\\' && (opts[1] == ',' || opts[1] == '\\'))
				opts++;
			*to++ = *opts;
		}
		*to = 0;
		if (*opts)
			opts++;
		err = set_option(c, one);
	}
	return err;
}

int config_check(const struct config *c)
{
	if (c->allow_other && c->allow_root)
		return fail(-EINVAL, "options allow_other and allow_root exclude each other");
	if (c->shared_storage && c->exclusive)
		return fail(-EINVAL, "options shared_storage and cache=exclusive exclude each other");
	if ((c->dev || c->suid) && geteuid())
		return fail(-EINVAL, "options dev and suid can only be given by root");
	return 0;
}

void config_free(struct config *c)
{
	free(c->store);
	free(c->mountpoint);
	free(c->fsname);
	free(c->extra);
	*c = (struct config){0};
}
