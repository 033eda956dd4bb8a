/* SPDX-License-Identifier: Apache-2.0 */
#include "faults.h"

#include "crc.h"

static uint8_t *spare[8];
static size_t n_spare;

void fault_set(struct world *w, enum fault_op op, enum fault_where where, unsigned nth, int err, unsigned times)
{
	struct faults *f = &w->faults;

	f->op = op;
	f->where = where;
	f->nth = nth;
	f->err = err;
	f->times = times;
	f->fired = 0;
	f->hook = NULL;
}

void fault_hook(struct world *w, enum fault_op op, void (*hook)(struct file *f), struct file *f)
{
	fault_set(w, op, ON_FILE, 0, 0, 0);
	w->faults.hook = hook;
	w->faults.hook_file = f;
}

void fault_clear(struct world *w)
{
	fault_set(w, FAULT_OPS, ON_ANY, 0, 0, 0);
}

uint64_t random_below(struct world *w, uint64_t n)
{
	w->rand = w->rand * 6364136223846793005u + 1442695040888963407u;
	return (w->rand >> 24) % n;
}

static void open_store(struct world *w)
{
	struct store_options opt = {
	    .segment_size = S, .live_mark = true, .cache_bytes = 2 << 20, .dirty_bytes = 200 << 20, .no_threads = true};
	int err = store_open(&w->faults.io, w->bed.root, w->bed.tdfs, &w->bed.keys, &opt, NULL, NULL, &w->st);

	if (err)
		fprintf(stderr, "store_open: %d %s\n", err, fail_text());
	CHECK(!err);
}

struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));

	report_limit(0);
	w->rand = 1;
	bed_make(&w->bed);
	w->scratch = malloc(PLAIN_ROOM);
	CHECK(w->scratch);
	faults_init(&w->faults, w->bed.root);
	fault_clear(w);
	open_store(w);
	return w;
}

uint8_t *room_new(void)
{
	return n_spare ? spare[--n_spare] : calloc(1, PLAIN_ROOM);
}

void room_free(uint8_t *p, uint64_t used)
{
	if (!p || n_spare == ARRAY_SIZE(spare)) {
		free(p);
		return;
	}
	memset(p, 0, used);
	spare[n_spare++] = p;
}

static void file_free(struct world *w, struct file *f)
{
	struct file **p = &w->files;

	while (*p != f)
		p = &(*p)->next;
	*p = f->next;
	room_free(f->plain, PLAIN_ROOM);
	room_free(f->prev, f->prev_size);
	free(f);
}

static void drop_handles(struct world *w, struct file *f)
{
	while (f->handles) {
		inode_closed(f->f, true);
		inode_put(f->f);
		f->handles--;
	}
	f->f = NULL;
}

void world_free(struct world *w)
{
	fault_clear(w);
	while (w->files) {
		drop_handles(w, w->files);
		file_free(w, w->files);
	}
	(void)!store_close(w->st);
	bed_remove(&w->bed);
	free(w->scratch);
	free(w);
}

static void start_again(struct world *w)
{
	for (struct file *f = w->files, *next; f; f = next) {
		next = f->next;
		drop_handles(w, f);
		if (f->unlinked)
			file_free(w, f);
	}
}

void world_kill(struct world *w)
{
	fault_clear(w);
	w->faults.dead = true;
	start_again(w);
	(void)!store_close(w->st);
	w->faults.dead = false;
	open_store(w);
}

void world_restart(struct world *w)
{
	start_again(w);
	CHECK(!store_close(w->st));
	open_store(w);
}

int setup(void **state)
{
	*state = world_new();
	return 0;
}

int teardown(void **state)
{
	struct world *w = *state;

	if (w->files) { /* the test failed and said why */
		world_free(w);
		return -1;
	}
	CHECK(!store_sync(w->st));
	CHECK(!w->st->n_inodes);
	CHECK(!w->st->dirty);
	world_free(w);
	return 0;
}

void fill(uint8_t *p, size_t len, int seed)
{
	uint32_t x = (uint32_t)seed * 2654435761u + 12345;

	for (size_t i = 0; i < len; i++) {
		x = x * 1664525 + 1013904223;
		p[i] = (uint8_t)(x >> 24);
	}
}

struct file *file_create(struct world *w, const char *name)
{
	struct file *f = calloc(1, sizeof(*f));

	f->w = w;
	snprintf(f->name, sizeof(f->name), "%s", name);
	f->plain = room_new();
	f->next = w->files;
	w->files = f;
	CHECK(!inode_create(w->st, w->bed.root, name, 0644, name, &f->f));
	inode_opened(f->f, true);
	f->handles = 1;
	return f;
}

void file_reopen(struct world *w, struct file *f)
{
	struct inode *got;
	int err = inode_get(w->st, w->bed.root, f->name, true, f->name, &got);

	if (err)
		fprintf(stderr, "open %s: %d %s\n", f->name, err, fail_text());
	CHECK(!err);
	CHECK(!f->f || f->f == got);
	f->f = got;
	inode_opened(got, true);
	f->handles++;
}

void file_close(struct world *w, struct file *f)
{
	(void)!inode_flush(f->f);
	inode_closed(f->f, true);
	inode_put(f->f);
	if (--f->handles)
		return;
	f->f = NULL;
	if (f->unlinked)
		file_free(w, f);
}

void file_unlink(struct world *w, struct file *f)
{
	CHECK(!unlinkat(w->bed.root, f->name, 0));
	f->unlinked = true;
	inode_unlinked(f->f);
}

void file_end(struct world *w, struct file *f)
{
	file_unlink(w, f);
	file_close(w, f);
}

static void before(struct file *f)
{
	room_free(f->prev, f->prev_size);
	f->prev = room_new();
	f->prev_size = f->size;
	memcpy(f->prev, f->plain, f->size);
}

void file_write(struct world *w, struct file *f, uint64_t off, uint64_t len, int seed)
{
	int err;

	before(f);
	CHECK(off + len <= PLAIN_ROOM);
	fill(f->plain + off, len, seed);
	f->size = MAX(f->size, off + len);
	for (uint64_t at = 0; at < len; at += 1 << 20) { /* as FUSE does */
		err = inode_write(f->f, f->plain + off + at, MIN(len - at, 1 << 20), off + at);
		if (err)
			fprintf(stderr, "write: %d %s\n", err, fail_text());
		CHECK(!err);
	}
}

void file_cut(struct world *w, struct file *f, uint64_t size)
{
	CHECK(!inode_truncate(f->f, size));
	if (size < f->size)
		memset(f->plain + size, 0, f->size - size);
	f->size = size;
}

void file_fsync(struct world *w, struct file *f)
{
	int err = inode_fsync(f->f, true);

	if (err)
		fprintf(stderr, "fsync: %d %s\n", err, fail_text());
	CHECK(!err);
}

static uint64_t read_all(struct file *f, uint8_t *p)
{
	struct stat s = {0};

	inode_stat(f->f, &s);
	CHECK((uint64_t)s.st_size < PLAIN_ROOM);
	CHECK(inode_read(f->f, p, (size_t)s.st_size + 1, 0) == s.st_size);
	return (uint64_t)s.st_size;
}

void file_try_write(struct world *w, struct file *f, uint64_t off, uint64_t len, int seed)
{
	uint8_t *got = room_new(), *want = room_new();
	struct faults hold;
	uint64_t size;
	int err = 0;

	before(f);
	memcpy(want, f->plain, f->size);
	fill(want + off, len, seed);
	for (uint64_t at = 0; at < len && !err; at += 1 << 20)
		err = inode_write(f->f, want + off + at, MIN(len - at, 1 << 20), off + at);
	hold = w->faults;
	fault_clear(w);
	size = read_all(f, got);
	w->faults = hold;
	CHECK(err || size == MAX(f->size, off + len));
	CHECK(size >= f->size && size <= MAX(f->size, off + len));
	for (uint64_t i = 0; i < size; i++)
		CHECK(got[i] == want[i] || (err && got[i] == f->plain[i]));
	room_free(want, MAX(f->size, off + len));
	room_free(f->plain, PLAIN_ROOM);
	f->plain = got;
	f->size = size;
}

void file_try_fsync(struct world *w, struct file *f)
{
	uint64_t size;
	int err = inode_fsync(f->f, true);
	uint8_t *got;

	fault_clear(w);
	if (!err)
		return;
	got = room_new();
	size = read_all(f, got); /* as it is, or as it was at the last commit: the caller knows */
	room_free(f->plain, PLAIN_ROOM);
	f->plain = got;
	f->size = size;
}

void write_in_hook(struct file *f)
{
	fill(f->plain + 500, 10, (int)f->w->faults.count[FAULT_SYNC]);
	CHECK(!inode_write(f->f, f->plain + 500, 10, 500));
}

void file_check(struct world *w, struct file *f)
{
	uint64_t size = read_all(f, w->scratch);
	uint8_t part[5000];

	CHECK(size == f->size);
	CHECK(!memcmp(w->scratch, f->plain, size));
	for (uint64_t off = 1; off < size; off += size / 5 + 1) {
		size_t len = (size_t)MIN(size - off, sizeof(part));

		CHECK(inode_read(f->f, part, len, off) == (ssize_t)len);
		CHECK(!memcmp(part, f->plain + off, len));
	}
}

uint8_t *file_raw(struct world *w, struct file *f, size_t *ret_len)
{
	struct stat s;
	uint8_t *p;
	int fd = openat(w->bed.root, f->name, O_RDONLY);

	CHECK(fd >= 0 && !fstat(fd, &s));
	p = malloc((size_t)s.st_size + 1);
	CHECK(pread(fd, p, (size_t)s.st_size, 0) == s.st_size);
	close(fd);
	*ret_len = (size_t)s.st_size;
	return p;
}

void file_raw_put(struct world *w, struct file *f, const uint8_t *p, size_t len)
{
	int fd = openat(w->bed.root, f->name, O_WRONLY);

	CHECK(fd >= 0 && pwrite(fd, p, len, 0) == (ssize_t)len && !ftruncate(fd, (off_t)len));
	close(fd);
}

bool file_was(const struct file *f, uint64_t off, const uint8_t *p, size_t len)
{
	return f->prev && !memcmp(f->prev + off, p, len);
}

/* By the reader that other commands use; and by unzip. */
void file_check_at_rest(struct world *w, struct file *f)
{
	struct container_keys keys = {w->bed.keys.k_rec, w->bed.keys.k_seal, w->bed.keys.volume_id};
	struct container *c;
	struct secret *dek;
	uint8_t *buf = malloc(f->size + 1), *raw;
	char cmd[2 * PATH_MAX];
	size_t len;
	int fd = openat(w->bed.root, f->name, O_RDONLY);

	CHECK(fd >= 0);
	CHECK(!container_open(&w->faults.real, fd, &keys, &c) && c->native);
	CHECK(!kas_unwrap(w->bed.keys.kas, c->m, &dek) && !container_unlock(c, &keys, dek));
	CHECK(container_read(&w->faults.real, fd, c, buf, f->size + 1, 0) == (ssize_t)f->size);
	CHECK(!memcmp(buf, f->plain, f->size));
	raw = file_raw(w, f, &len);
	CHECK(c->crc == crc_bytes(0, raw + SECTOR, payload_len(c->rec.size, c->rec.s)));
	if (!w->quiet && !access("/usr/bin/unzip", X_OK)) {
		snprintf(cmd, sizeof(cmd), "unzip -tqq '%s/%s'", w->bed.dir, f->name);
		CHECK(!system(cmd));
	}
	free(raw);
	secret_free(dek);
	container_free(c);
	close(fd);
	free(buf);
}
