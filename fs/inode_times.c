/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mtime and ctime of a live file.
 *
 * With a write-back cache (store->kernel_times) they are the kernel's: it dates a write when a program makes it, shows that time at once
 * and sends it before the pages, beside them or long after; or not at all, where it is the one that it was told or has sent before.  So a
 * write that arrives here does not move mtime.  It is dated with the moment of its arrival (`guess`) only for a crash, which must not leave
 * new content under an old time: whatever is stored before the kernel's time is known has the guess, and is put right when it is known.
 * That is with its SETATTR; at the last close of a writer, before which it sends all; or when a syncfs of the mount has come back that
 * began after the write.  A SETATTR is lost when a program is killed in the middle of close(2) (the pages are not): where a write
 * comes after the kernel has sent nothing, time or page, for longer than it keeps a page, the guess stays.  (A time may be minutes older
 * than the last page of one write-back to a slow disk.)
 */
#include <sys/stat.h>

#include "inode_i.h"

#define SECOND 1000000000
#define LOST_S 40             /* the kernel writes a page back after 30 s at most, and looks every 5 */
#define NEAR_NS (SECOND / 10) /* a write so soon after the time known is dated well enough by it, also after a crash */

/* The coarse clock is the one that file systems stamp with: a file never looks older than one made before it. */
struct timespec now_wall(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME_COARSE, &t);
	return t;
}

static bool is_near(const struct timespec *a, const struct timespec *b)
{
	int64_t s = (int64_t)a->tv_sec - b->tv_sec, ns = a->tv_nsec - b->tv_nsec;

	return s >= -1 && s <= 1 && s * SECOND + ns < NEAR_NS && s * SECOND + ns > -NEAR_NS;
}

static bool is_later(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
}

void inode_touched(struct inode *f)
{
	struct timespec wall = now_wall();
	uint64_t now = now_ns();

	if (!f->st->kernel_times) {
		f->mtime = f->ctime = wall;
	} else {
		if (f->guessed || !is_near(&wall, &f->mtime)) {
			f->unsent |= wall.tv_sec - f->heard_at > LOST_S;
			f->guess = wall;
			f->guessed = true;
		}
		f->heard_at = wall.tv_sec;
	}
	f->write_seq++;
	f->counted = false;
	f->last_write = now;
	if (!f->first_change)
		f->first_change = now;
	if (!f->oldest_uncommitted)
		f->oldest_uncommitted = now;
	writeback_note(f);
}

static struct timespec mtime_of(const struct inode *f)
{
	return f->guessed ? f->guess : f->mtime;
}

static struct timespec ctime_of(const struct inode *f)
{
	return f->guessed && is_later(&f->guess, &f->ctime) ? f->guess : f->ctime;
}

void inode_times_stored(struct inode *f, struct timespec *ret_mtime, struct timespec *ret_ctime)
{
	f->guess_stored |= f->guessed;
	*ret_mtime = mtime_of(f);
	if (ret_ctime)
		*ret_ctime = ctime_of(f);
}

void inode_stat(struct inode *f, struct stat *s)
{
	rwlock_read(&f->lock);
	if (f->load_err || f->content == CONTENT_VOID) {
		s->st_size = 0;
	} else if (f->content == CONTENT_FOREIGN) {
		s->st_size = (off_t)f->foreign->m->size;
	} else if (!f->plain) {
		s->st_size = (off_t)f->size;
		s->st_mtim = mtime_of(f);
		s->st_ctim = ctime_of(f);
		if (f->dirty || f->n_images) /* not yet in place: what it will take */
			s->st_blocks = MAX(s->st_blocks, (blkcnt_t)((f->size + 511) / 512));
	}
	rwlock_unlock(&f->lock);
}

static void time_merge(struct timespec *to, const struct timespec *from)
{
	if (from->tv_nsec == UTIME_NOW)
		*to = now_wall();
	else if (from->tv_nsec != UTIME_OMIT)
		*to = *from;
}

/*
 * A file that has a commit or a seal before it takes its times along: the kernel sends the mtime of cached writes before every fsync, and
 * syncing the store file for that would cost a second and third flush.
 */
static bool times_go_with_content(const struct inode *f)
{
	if (f->unlinked || f->content == CONTENT_VOID || f->content == CONTENT_FOREIGN)
		return false;
	return f->content != CONTENT_SEALED || f->pin.runs || f->apply.pending || commit_needed(f);
}

static int set_times(struct inode *f, const struct timespec ts[2])
{
	struct store *st = f->st;
	bool later = times_go_with_content(f);
	/* atime is the store file's own business in any case */
	int err = later && ts[0].tv_nsec == UTIME_OMIT ? 0 : st->io.times(st->io.ctx, f->fd, ts);

	if (err)
		return err;
	if (later) {
		f->times_changed = true;
		writeback_note(f);
	} else {
		inode_not_durable(f);
	}
	return 0;
}

/*
 * A sync of the kernel reads an inode's times and sends them without its lock: a truncation made meanwhile may be here first, with a later
 * ctime, and is what the kernel shows.
 */
static bool is_overtaken(const struct inode *f, const struct timespec ts[2], const struct timespec *ctime)
{
	return ctime && ts[0].tv_nsec == UTIME_OMIT && is_later(&f->ctime_told, ctime) && is_near(&f->ctime_told, ctime);
}

int inode_set_times(struct inode *f, const struct timespec ts[2], const struct timespec *ctime)
{
	bool overtaken;
	int err = 0;

	if (f->plain)
		return plain_set_times(f, ts);
	rwlock_write(&f->lock);
	overtaken = is_overtaken(f, ts, ctime);
	if (!overtaken)
		err = set_times(f, ts);
	if (!err && !overtaken) {
		if (ctime)
			f->ctime_told = *ctime;
		time_merge(&f->mtime, &ts[1]);
		f->ctime = ctime ? *ctime : now_wall();
		if (ts[1].tv_nsec != UTIME_OMIT) {
			f->guessed = f->guess_stored = f->unsent = false;
			f->heard_at = now_wall().tv_sec;
		}
	}
	rwlock_unlock(&f->lock);
	return err;
}

void inode_times_loaded(struct inode *f, const struct timespec *mtime, const struct timespec *ctime)
{
	f->mtime = *mtime;
	f->ctime = *ctime;
	f->guessed = f->unsent = false;
	f->heard_at = mtime->tv_sec <= now_wall().tv_sec ? mtime->tv_sec : 0;
}

void inode_times_known(struct inode *f)
{
	const struct timespec ts[2] = {{.tv_nsec = UTIME_OMIT}, f->mtime};

	if (f->guessed && f->unsent) { /* what is stored has it, or will with what was written last */
		f->mtime = f->guess;
		f->ctime = ctime_of(f);
		f->guess_stored = false;
	}
	f->guessed = f->unsent = false;
	if (f->guess_stored && set_times(f, ts))
		report(REPORT_WARN, "%s: its time stamp could not be set", f->path ? f->path : "file");
	f->guess_stored = false;
}

bool inode_times_all_known(struct store *st, uint64_t since)
{
	struct inode **files, *f;
	bool left = false;
	size_t n = 0;

	mutex_lock(&st->list_lock);
	files = calloc(st->n_inodes + 1, sizeof(*files));
	for (size_t i = 0; i < st->n_buckets && files; i++)
		for (f = st->buckets[i]; f; f = f->next)
			if (f->guessed) {
				f->refs++;
				files[n++] = f;
			}
	mutex_unlock(&st->list_lock);
	for (size_t i = 0; i < n; i++) {
		f = files[i];
		rwlock_write(&f->lock);
		if (f->guessed && f->last_write < since)
			inode_times_known(f);
		left |= f->guessed;
		rwlock_unlock(&f->lock);
		inode_put(f);
	}
	free(files);
	return left;
}

void inode_changed(struct inode *f, const struct timespec *ctime)
{
	rwlock_write(&f->lock);
	f->ctime = ctime ? *ctime : now_wall();
	inode_not_durable(f);
	rwlock_unlock(&f->lock);
}
