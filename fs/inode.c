/* SPDX-License-Identifier: Apache-2.0 */
/* The table of live inodes, references, attributes, open and close. */
#include <stdatomic.h>

#include "inode_i.h"

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct inode **bucket_of(struct store *st, dev_t dev, ino_t ino)
{
	return &st->buckets[((uint64_t)ino * 0x9E3779B97F4A7C15u ^ (uint64_t)dev) % st->n_buckets];
}

struct inode *inode_alloc(struct store *st)
{
	static _Atomic uint64_t last_id;
	struct inode *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->st = st;
	f->id = ++last_id;
	f->refs = 1;
	f->fd = f->old_fd = -1;
	rwlock_init(&f->lock);
	mutex_init(&f->sync_lock);
	return f;
}

static void inode_remove(struct store *st, struct inode *f)
{
	struct inode **p = bucket_of(st, f->dev, f->ino);

	while (*p && *p != f)
		p = &(*p)->next;
	if (*p) {
		*p = f->next;
		st->n_inodes--;
	}
}

/* caller holds list_lock */
static struct inode *find_ref(struct store *st, dev_t dev, ino_t ino)
{
	struct inode *f = *bucket_of(st, dev, ino);

	while (f && (f->dev != dev || f->ino != ino))
		f = f->next;
	if (f)
		f->refs++;
	return f;
}

struct inode *inode_find(struct store *st, dev_t dev, ino_t ino)
{
	struct inode *f;

	mutex_lock(&st->list_lock);
	f = find_ref(st, dev, ino);
	mutex_unlock(&st->list_lock);
	return f;
}

struct inode *inode_publish(struct inode *f)
{
	struct store *st = f->st;
	struct inode *other;

	mutex_lock(&st->list_lock);
	other = find_ref(st, f->dev, f->ino);
	if (!other) {
		struct inode **b = bucket_of(st, f->dev, f->ino);

		f->next = *b;
		*b = f;
		st->n_inodes++;
	}
	mutex_unlock(&st->list_lock);
	return other;
}

void inode_forget_content(struct inode *f)
{
	segs_drop_from(f, 0);
	free(f->tags);
	free(f->crcs);
	f->tags = NULL;
	f->crcs = NULL;
	f->n_tags = f->cap_tags = 0;
	f->n_images = 0;
	f->fresh = false;
	f->size = 0;
	segcache_drop_all(f->st->cache, f->id);
}

/* Of a file that is not gone the log has to keep what it holds: for the next mount. */
static void bury(struct inode *f, struct redo_pin *pin)
{
	if (pin->runs && f->unlinked)
		redo_bury(f->st->redo, pin);
}

void inode_free(struct inode *f)
{
	struct store *st = f->st;

	inode_forget_content(f);
	reseg_free(f);
	bury(f, &f->pin);
	bury(f, &f->void_pin);
	bury(f, &f->apply.pin);
	free(f->apply.images);
	free(f->apply.tail);
	free(f->segs);
	free(f->images);
	free(f->path);
	tail_template_free(f->tmpl);
	secret_free(f->dek);
	container_free(f->foreign);
	if (f->fd >= 0)
		st->io.close(st->io.ctx, f->fd);
	if (f->old_fd >= 0)
		st->io.close(st->io.ctx, f->old_fd);
	rwlock_destroy(&f->lock);
	mutex_destroy(&f->sync_lock);
	free(f);
}

/* A sync of what exists nowhere else failed: the pages are clean now whatever is on the disk, and the next sync would say 0.  Until the
 * next mount, then. */
void inode_lost(struct inode *f)
{
	struct store *st = f->st;

	f->error = -EIO;
	if (f->lost)
		return;
	f->lost = true;
	mutex_lock(&st->list_lock);
	f->refs++;
	mutex_unlock(&st->list_lock);
	report(REPORT_ERROR, "%s: the disk failed to sync it; until the next mount every write and fsync of it answers EIO",
	       f->path ? f->path : "file");
}

/* What is still there at the end: lost files, and those that a full or failing disk did not let be sealed (their last committed state is in
 * the log). */
void inode_free_all(struct store *st)
{
	for (size_t i = 0; i < st->n_buckets; i++) {
		while (st->buckets[i]) {
			struct inode *f = st->buckets[i];

			inode_remove(st, f);
			inode_free(f);
		}
	}
}

void inode_put(struct inode *f)
{
	struct store *st = f->st;
	bool last;

	mutex_lock(&st->list_lock);
	last = --f->refs == 0;
	if (last) {
		inode_remove(st, f);
		st->n_dropped++;
	}
	mutex_unlock(&st->list_lock);
	if (last)
		inode_free(f);
}

/* Anything that is not yet in a sealed file in place; an unlinked file needs no seal. */
bool inode_needs_seal(const struct inode *f)
{
	if (f->content == CONTENT_VOID || f->content == CONTENT_FOREIGN || f->plain || f->load_err)
		return false;
	if (f->unlinked)
		return f->pin.runs || f->void_pin.runs || f->apply.pending;
	return f->content != CONTENT_SEALED || f->pin.runs || f->apply.pending || commit_needed(f);
}

int inode_fresh_key(struct inode *f)
{
	struct store *st = f->st;
	CLEANUP_SECRET struct secret *dek = secret_random();
	CLEANUP_FREE char *key_access = NULL;
	const char *policy = st->keys.policy;
	struct tail_template *t;
	int err;

	/* cut to nothing it stays what it was, wherever it lies by now */
	if (f->tmpl)
		policy = f->tmpl->policy;
	else if (st->keys.policies && f->path)
		policy = volume_policy_at(st->keys.policies, f->path);

	if (!dek)
		return fail(-EIO, "no random bytes for a data key");
	err = kas_wrap(st->keys.kas, dek, policy, &key_access);
	if (err)
		return err;
	t = tail_template_new(f->s, key_access, policy);
	if (!t)
		return -ENOMEM;
	tail_template_free(f->tmpl);
	secret_free(f->dek);
	f->tmpl = t;
	f->dek = STEAL(dek);
	f->invocations = 0;
	if (kas_is_remote(st->keys.kas))
		lease_set(f, kas_wrap_until(st->keys.kas, f->tmpl->policy), true);
	return 0;
}

void inode_opened(struct inode *f, bool write)
{
	rwlock_write(&f->lock);
	f->handles++;
	f->writers += write;
	rwlock_unlock(&f->lock);
}

bool inode_closed(struct inode *f, bool write)
{
	bool cleared;
	int err = 0;

	rwlock_write(&f->lock);
	f->handles--;
	f->writers -= write;
	if (write)
		f->last_close = now_ns();
	if (write && !f->writers)
		inode_times_known(f);
	if (write && !f->writers && f->content == CONTENT_NEW && !f->unlinked && !f->error)
		err = seal_new(f);
	if (err)
		report(REPORT_WARN, "%s: cannot be sealed yet: %s; tried again", f->path ? f->path : "file", strerror(-err));
	cleared = f->error && !f->handles && !f->lost;
	if (cleared)
		f->error = 0;
	if (!(f->unlinked && !f->handles) && (inode_needs_seal(f) || reseg_busy(f)))
		writeback_note(f);
	else /* a small new file is sealed by now: nothing keeps it, nor its descriptor */
		writeback_unlist(f);
	rwlock_unlock(&f->lock);
	return cleared;
}

/* The store file or its name changed: the next fsync has to sync it as well. */
void inode_not_durable(struct inode *f)
{
	f->durable = false;
	f->meta_seq++;
}

int inode_fd(struct inode *f)
{
	int fd;

	rwlock_read(&f->lock);
	fd = f->fd;
	rwlock_unlock(&f->lock);
	return fd;
}

void inode_renamed(struct inode *f, const char *path)
{
	char *copy = strdup(path); /* only a hint: without memory recovery walks */

	rwlock_write(&f->lock);
	free(f->path);
	f->path = copy;
	f->ctime = now_wall();
	inode_not_durable(f);
	rwlock_unlock(&f->lock);
}

/* An open one stays on the list: the log may have to be freed of its records (seal_gone()). */
void inode_unlinked(struct inode *f)
{
	rwlock_write(&f->lock);
	f->unlinked = true;
	f->ctime = now_wall();
	if (!f->handles)
		writeback_unlist(f);
	rwlock_unlock(&f->lock);
}
