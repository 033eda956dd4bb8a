/* SPDX-License-Identifier: Apache-2.0 */
/* A scratch folder with an empty log and fresh keys, in which the tests of the engine open a store.  Aborts where it cannot be made. */
#ifndef TDFS_TEST_STORE_SETUP_H
#define TDFS_TEST_STORE_SETUP_H

#include <fcntl.h>
#include <sys/stat.h>

#include "store.h"
#include "temp_dir.h"

struct bed {
	char dir[PATH_MAX];
	int root, tdfs;
	struct io io;
	struct secret *vk;
	struct store_keys keys;
};

#define BED_POLICY \
	"eyJ1dWlkIjoiMDAwMDAwMDAtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwIiwiYm9keSI6eyJkYXRhQXR0cmlidXRlcyI6W10sImRpc3NlbSI6W119fQ=="

static inline void bed_must(bool ok)
{
	if (!ok)
		abort();
}

static inline void bed_make(struct bed *b)
{
	bed_must(temp_dir_make(b->dir));
	b->root = open(b->dir, O_RDONLY | O_DIRECTORY);
	bed_must(!mkdirat(b->root, ".tdfs", 0700));
	b->tdfs = openat(b->root, ".tdfs", O_RDONLY | O_DIRECTORY);
	b->io = io_posix(b->root);
	b->vk = secret_random();
	b->keys.k_seal = derive(b->vk, "seal");
	b->keys.k_hint = derive(b->vk, "hint");
	b->keys.k_rec = derive(b->vk, "rec");
	b->keys.k_log = derive(b->vk, "log");
	b->keys.policy = BED_POLICY;
	memset(b->keys.volume_id, 7, ID_LEN);
	b->keys.kas = kas_new();
	bed_must(!kas_add_local(b->keys.kas, "e1", "https://localhost:8443", pubkey_new_ec()));
	bed_must(b->keys.k_seal && b->keys.k_hint && b->keys.k_rec && b->keys.k_log);
	bed_must(!redo_create(&b->io, b->tdfs, REDO_HALF_MIN));
}

/* The store as most tests want it: without threads of its own, marks its live files. */
static inline struct store *bed_open(struct bed *b)
{
	const struct store_options opt = {
	    .segment_size = 16384, .live_mark = true, .cache_bytes = 4 << 20, .dirty_bytes = 32 << 20, .no_threads = true};
	struct store *st;

	bed_must(!store_open(&b->io, b->root, b->tdfs, &b->keys, &opt, NULL, NULL, &st));
	return st;
}

static inline void bed_remove(struct bed *b)
{
	kas_free(b->keys.kas);
	secret_free((struct secret *)b->keys.k_seal);
	secret_free((struct secret *)b->keys.k_hint);
	secret_free((struct secret *)b->keys.k_rec);
	secret_free((struct secret *)b->keys.k_log);
	secret_free(b->vk);
	close(b->root);
	close(b->tdfs);
	bed_must(temp_dir_remove(b->dir));
}

#endif
