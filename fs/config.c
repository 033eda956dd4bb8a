/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>

#include "config.h"
#include "report.h"
#include "words.h"

#define SEGCACHE_DEFAULT ((size_t)20 << 20)
#define SEGCACHE_MAX ((size_t)64 << 30)
#define THREADS_DEFAULT 10
#define THREADS_MAX 1024
#define IDLE_MAX (365 * 24 * 60 * 60)
#define KEY_TTL_DEFAULT 300
#define KEY_TTL_MAX (24 * 60 * 60)
#define GRACE_MAX (30 * 24 * 60 * 60)

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
	    .key_ttl_s = KEY_TTL_DEFAULT,
	};
}

#define FLAG(name, member, value, help)                                              \
	{                                                                            \
		MOUNT_FLAG, name, NULL, help, offsetof(struct config, member), value \
	}
#define OTHER(kind, name)                        \
	{                                        \
		kind, name, NULL, NULL, 0, false \
	}
static const struct mount_option options[] = {
    FLAG("ro", read_only, true, "read only; nothing in the store is changed"),
    FLAG("rw", read_only, false, NULL),
    FLAG("allow_other", allow_other, true, "others may use the mount; what they may do is decided by modes"),
    FLAG("allow_root", allow_root, true, "root may use it too (mounted by a user)"),
    FLAG("noatime", noatime, true, "reading does not change access times (default: as on the store's file system)"),
    FLAG("atime", noatime, false, NULL),
    FLAG("relatime", noatime, false, NULL),
    FLAG("noexec", exec, false, "no program can be started from it"),
    FLAG("exec", exec, true, NULL),
    FLAG("dev", dev, true, "device files work (root only; default: nodev)"),
    FLAG("nodev", dev, false, NULL),
    FLAG("suid", suid, true, "setuid programs work (root only; default: nosuid)"),
    FLAG("nosuid", suid, false, NULL),
    {MOUNT_VALUE, "idle", "TIME", "unmount by itself after so long without use: 90s, 10m, 2h", 0, false},
    {MOUNT_VALUE, "key_ttl", "TIME", "a key from a remote KAS is used so long without asking again (default 5m): what revoking takes", 0,
     false},
    {MOUNT_VALUE, "offline_grace", "TIME", "... and so much longer while that KAS is away (default 0)", 0, false},
    {MOUNT_VALUE, "cache", "MODE",
     "writeback (default); strict: a write() that returned is durable; exclusive: nobody else touches the store", 0, false},
    FLAG("shared_storage", shared_storage, true, "the store is on shared storage: no write-back caching"),
    {MOUNT_VALUE, "foreign", "HOW", "TDFs made elsewhere: ro (default, readable) or deny", 0, false},
    {MOUNT_VALUE, "kas_key", "FILE", "private keys that open TDFs made elsewhere: PEM, or a JSON list of keys", 0, false},
    FLAG("nolive_mark", live_mark, false, "do not mark files whose newest state is in the log"),
    FLAG("live_mark", live_mark, true, NULL),
    {MOUNT_VALUE, "segcache", "SIZE", "memory for decrypted segments read lately (default 32M)", 0, false},
    {MOUNT_VALUE, "threads", "N", "most worker threads (default 10)", 0, false},
    {MOUNT_VALUE, "fsname", "NAME", "the source shown in the mount table (default: the store's path)", 0, false},
    FLAG("nonempty", nonempty, true, "the mount point may hold something, which is hidden meanwhile"),
    {MOUNT_SECRET, "passfile", "FILE", "the secret is the first line of FILE", 0, false},
    {MOUNT_SECRET, "passfd", "N", "... the first line from descriptor N", 0, false},
    {MOUNT_SECRET, "extpass", "CMD", "... the first line that CMD prints", 0, false},
    {MOUNT_SECRET, "keyfile", "FILE", "... the whole FILE", 0, false},
    {MOUNT_SECRET, "kas_trust", "FILE", "a KAS that FILE trusts opens the volume", 0, false},
    {MOUNT_SECRET, "kas_socket", "PATH", "a running `tdfs kas serve --socket PATH` gives the key", 0, false},
    {MOUNT_SECRET, "recovery", NULL, "it is a recovery key", 0, false},
    FLAG("debug", debug, true, NULL),
    FLAG("foreground", foreground, true, NULL),
    FLAG("sloppy", sloppy, true, NULL),
    FLAG("fake", fake, true, NULL),
    FLAG("quiet", quiet, true, NULL),
    OTHER(MOUNT_WORD, "defaults"),
    OTHER(MOUNT_WORD, "auto"),
    OTHER(MOUNT_WORD, "noauto"),
    OTHER(MOUNT_WORD, "nofail"),
    OTHER(MOUNT_WORD, "user"),
    OTHER(MOUNT_WORD, "nouser"),
    OTHER(MOUNT_WORD, "users"),
    OTHER(MOUNT_WORD, "nousers"),
    OTHER(MOUNT_WORD, "owner"),
    OTHER(MOUNT_WORD, "noowner"),
    OTHER(MOUNT_WORD, "group"),
    OTHER(MOUNT_WORD, "nogroup"),
    OTHER(MOUNT_WORD, "_netdev"),
    OTHER(MOUNT_WORD, "silent"),
    OTHER(MOUNT_WORD, "loud"),
    OTHER(MOUNT_WORD, "async"),
    OTHER(MOUNT_WORD, "nodiratime"),
    OTHER(MOUNT_WORD, "nostrictatime"),
    OTHER(MOUNT_WORD, "max_read"), /* ours is as large as the kernel allows */
    OTHER(MOUNT_WORD, "default_permissions"),
    OTHER(MOUNT_WORD, "comment"),
    OTHER(MOUNT_REFUSED, "remount"),
    OTHER(MOUNT_REFUSED, "sync"),
    OTHER(MOUNT_REFUSED, "dirsync"),
    OTHER(MOUNT_REFUSED, "strictatime"),
    OTHER(MOUNT_REFUSED, "direct_io"),
    OTHER(MOUNT_REFUSED, "kernel_cache"),
    OTHER(MOUNT_REFUSED, "auto_cache"),
    OTHER(MOUNT_REFUSED, "subtype"),
    OTHER(MOUNT_REFUSED, "blkdev"),
    OTHER(MOUNT_REFUSED, "fd"),
    OTHER(MOUNT_REFUSED, "rootmode"),
    OTHER(MOUNT_REFUSED, "user_id"),
    OTHER(MOUNT_REFUSED, "group_id"),
};

const struct mount_option *config_options(size_t *ret_n)
{
	*ret_n = ARRAY_SIZE(options);
	return options;
}

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
	uint64_t n = 0;

	if (size_parse(val, &n) || n > max)
		return fail(-EINVAL, "option %s=%s: give a number up to %zu, with K, M or G if you like", name, val, max);
	*ret = (size_t)n;
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

static int set_time(const char *name, const char *val, unsigned min, unsigned max, unsigned *ret)
{
	uint64_t s;

	if (seconds_parse(val, &s) || s < min || s > max)
		return fail(-EINVAL, "option %s=%s: give a time up to %ud, as 90s, 10m or 2h", name, val, max / (24 * 60 * 60));
	*ret = (unsigned)s;
	return 0;
}

static int set_value(struct config *c, const char *name, const char *val)
{
	size_t n = 0;
	int err;

	if (!strcmp(name, "cache"))
		return set_cache(c, val);
	if (!strcmp(name, "idle"))
		return set_time(name, val, 1, IDLE_MAX, &c->idle_s);
	if (!strcmp(name, "key_ttl"))
		return set_time(name, val, 1, KEY_TTL_MAX, &c->key_ttl_s);
	if (!strcmp(name, "offline_grace"))
		return set_time(name, val, 0, GRACE_MAX, &c->grace_s);
	if (!strcmp(name, "segcache"))
		return parse_size(name, val, SEGCACHE_MAX, &c->cache_bytes);
	if (!strcmp(name, "fsname"))
		return set_string(&c->fsname, val);
	if (!strcmp(name, "kas_key"))
		return set_string(&c->kas_key, val);
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

static int unknown(const char *name)
{
	const char *near = NULL;
	unsigned best = 0;

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (options[i].kind != MOUNT_REFUSED)
			word_nearer(name, options[i].name, &near, &best);
	if (near)
		return fail(-EINVAL, "unknown mount option '%s'; did you mean '%s'?", name, near);
	return fail(-EINVAL, "unknown mount option '%s'", name);
}

static const struct mount_option *option_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (!strcmp(name, options[i].name))
			return &options[i];
	return NULL;
}

struct secret_taker {
	int (*take)(void *arg, const char *name, const char *value);
	void *arg;
};

/* One option, already unescaped; split at the first '=' */
static int set_option(struct config *c, char *opt, const struct secret_taker *secret)
{
	char *val = strchr(opt, '=');
	const struct mount_option *o;

	if (val)
		*val++ = 0;
	if (!*opt || !strncmp(opt, "x-", 2) || !strncmp(opt, "X-", 2))
		return 0; /* user-space options of fstab */
	o = option_find(opt);
	if (!o && c->sloppy) {
		report(REPORT_NOTE, "unknown mount option '%s' passed over", opt);
		return 0;
	}
	if (!o)
		return unknown(opt);
	if (o->arg && !(val && *val))
		return fail(-EINVAL, "option %s needs a value: %s=%s", opt, opt, o->arg);
	if (!o->arg && val && (o->kind == MOUNT_FLAG || o->kind == MOUNT_SECRET))
		return fail(-EINVAL, "option %s takes no value", opt);
	switch (o->kind) {
	case MOUNT_FLAG:
		*(bool *)((char *)c + o->off) = o->value;
		return 0;
	case MOUNT_VALUE:
		return set_value(c, opt, val);
	case MOUNT_SECRET:
		return secret->take(secret->arg, opt, val);
	case MOUNT_WORD:
		return 0;
	case MOUNT_REFUSED:
		break;
	}
	if (!strcmp(opt, "remount"))
		return fail(-EINVAL, "a tdfs mount cannot change its options: unmount it and mount it again");
	return fail(-EINVAL, "mount option '%s' cannot be used with tdfs; leave it out", opt);
}

/* As mount(8) does it: a comma in a value stands in quotes */
static bool quote_ends(const char *p)
{
	return *p == '"' && (!p[1] || p[1] == ',');
}

static const char *option_next(const char *opts, char *to)
{
	const char *start = to;
	bool quoted = false;

	for (; *opts && (quoted || *opts != ','); opts++) {
		if (quoted ? quote_ends(opts) : *opts == '"' && to > start && to[-1] == '=') {
			quoted = !quoted;
			continue;
		}
		if (*opts == '\\' && (opts[1] == ',' || opts[1] == '\\'))
			opts++;
		*to++ = *opts;
	}
	*to = 0;
	return *opts ? opts + 1 : opts;
}

int config_option_string(struct config *c, const char *opts, int (*secret)(void *arg, const char *name, const char *value), void *arg)
{
	struct secret_taker taker = {secret, arg};
	char *one CLEANUP_FREE = malloc(strlen(opts) + 1);
	int err = 0;

	if (!one)
		return -ENOMEM;
	while (!err && *opts) {
		opts = option_next(opts, one);
		err = set_option(c, one, &taker);
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
	free(c->kas_key);
	*c = (struct config){0};
}
