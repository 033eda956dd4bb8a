/* SPDX-License-Identifier: Apache-2.0 */
/* Plain files in a store that is being converted: whose a file is, marks, pass-through, who may use what when, the volume's state. */
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "attr.h"
#include "dir.h"
#include "plain.h"
#include "plain_file.h"
#include "record.h"
#include "store_setup.h"
#include "volume_state.h"

struct world {
	struct bed bed;
	struct tree t;
};

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct store_options opt = {.segment_size = 16384, .cache_bytes = 1 << 20, .dirty_bytes = 8 << 20, .no_threads = true};

	bed_make(&w->bed);
	assert_int_equal(mkdirat(w->bed.root, ".tdfs/convert", 0700), 0);
	assert_int_equal(store_open(&w->bed.io, w->bed.root, w->bed.tdfs, &w->bed.keys, &opt, NULL, NULL, &w->t.store), 0);
	assert_int_equal(plain_new(w->t.store, true, &w->t.plain), 0);
	assert_int_equal(nodes_new(w->bed.root, 16, &w->t.nodes), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	nodes_free(w->t.nodes);
	plain_free(w->t.plain);
	assert_int_equal(store_close(w->t.store), 0);
	bed_remove(&w->bed);
	free(w);
	return 0;
}

static void put(struct world *w, const char *name, const char *text)
{
	int fd = openat(w->bed.root, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static struct node *look(struct world *w, const char *name)
{
	struct node *root = node_get(w->t.nodes, NODE_ROOT);
	struct entry e;

	assert_int_equal(dir_lookup(&w->t, root, name, &e), 0);
	node_put(w->t.nodes, root);
	return e.node;
}

static int ours(struct world *w, const char *name)
{
	struct stat st;

	assert_int_equal(fstatat(w->bed.root, name, &st, 0), 0);
	return plain_file_ours(w->t.store, w->bed.root, name, &st);
}

static void test_ours(void **state)
{
	struct world *w = *state;
	struct inode *f;
	char zip[600] = "PK\3\4";
	int fd;

	put(w, "empty.tdf", "");
	put(w, "text.tdf", "a user's own");
	assert_int_equal(ours(w, "empty.tdf"), 0);
	assert_int_equal(ours(w, "text.tdf"), 0);
	fd = openat(w->bed.root, "zip.tdf", O_WRONLY | O_CREAT, 0644);
	assert_int_equal(write(fd, zip, sizeof(zip)), sizeof(zip));
	close(fd);
	assert_int_equal(ours(w, "zip.tdf"), 0);
	assert_int_equal(inode_create(w->t.store, w->bed.root, "new.tdf", 0644, "new.tdf", &f), 0);
	assert_int_equal(ours(w, "new.tdf"), 1); /* live */
	inode_opened(f, true);
	assert_int_equal(inode_write(f, "hello", 5, 0), 0);
	assert_int_equal(inode_fsync(f, false), 0);
	inode_closed(f, true);
	inode_put(f);
	assert_int_equal(store_sync(w->t.store), 0);
	assert_int_equal(ours(w, "new.tdf"), 1); /* sealed */
	fd = openat(w->bed.root, "new.tdf", O_RDWR);
	assert_int_equal(fremovexattr(fd, HINT_XATTR), 0);
	assert_int_equal(ours(w, "new.tdf"), 1); /* by its header */
	assert_int_equal(pwrite(fd, "x", 1, 100), 1);
	assert_int_equal(ours(w, "new.tdf"), 1); /* damaged, but ours */
	close(fd);
	/* its content went with the power, or was overwritten: what is left says whose it was */
	fd = openat(w->bed.root, "gone.tdf", O_RDWR | O_CREAT, 0644);
	memset(zip, 'h', HINT_LEN);
	assert_int_equal(fsetxattr(fd, HINT_XATTR, zip, HINT_LEN, 0), 0);
	assert_int_equal(ours(w, "gone.tdf"), 1);
	assert_int_equal(ftruncate(fd, 1000), 0);
	assert_int_equal(ours(w, "gone.tdf"), 1);
	assert_int_equal(plain_mark_set(w->t.store, fd, PLAIN_WINS), 0); /* of a user's own */
	assert_int_equal(ours(w, "gone.tdf"), 0);
	close(fd);
	/* made and lost with the power before it had a header */
	assert_int_equal(inode_create(w->t.store, w->bed.root, "lost.tdf", 0644, "lost.tdf", &f), 0);
	inode_unlinked(f); /* nothing more is written */
	inode_put(f);
	assert_int_equal(store_sync(w->t.store), 0);
	assert_int_equal(ours(w, "lost.tdf"), 1);
}

static void test_marks(void **state)
{
	struct world *w = *state;
	uint8_t raw[HINT_LEN];
	int a, b;

	put(w, "a", "1");
	put(w, "b", "2");
	a = openat(w->bed.root, "a", O_RDWR);
	b = openat(w->bed.root, "b", O_RDWR);
	assert_int_equal(plain_mark_get(w->t.store, a), PLAIN_NO_MARK);
	assert_int_equal(plain_mark_set(w->t.store, a, PLAIN_WINS), 0);
	assert_int_equal(plain_mark_get(w->t.store, a), PLAIN_WINS);
	assert_int_equal(plain_mark_set(w->t.store, a, PLAIN_GONE), 0);
	assert_int_equal(plain_mark_get(w->t.store, a), PLAIN_GONE);
	assert_int_equal(fgetxattr(a, HINT_XATTR, raw, sizeof(raw)), HINT_LEN);
	assert_int_equal(fsetxattr(b, HINT_XATTR, raw, sizeof(raw), 0), 0); /* of another file */
	assert_int_equal(plain_mark_get(w->t.store, b), PLAIN_NO_MARK);
	raw[HINT_LEN - 1] ^= 1;
	assert_int_equal(fsetxattr(a, HINT_XATTR, raw, sizeof(raw), 0), 0);
	assert_int_equal(plain_mark_get(w->t.store, a), PLAIN_NO_MARK);
	close(a);
	close(b);
}

static void test_through(void **state)
{
	struct world *w = *state;
	struct inode *f, *g;
	struct stat st;
	char buf[16];
	struct node *n;

	put(w, "p", "0123456789");
	n = look(w, "p");
	assert_true(n->plain);
	assert_int_equal(attr_content(&w->t, n, false, &f), 0);
	assert_true(plain_file_is(f));
	assert_int_equal(inode_write(f, "x", 1, 0), -EROFS); /* opened for reading */
	assert_int_equal(attr_content(&w->t, n, true, &g), 0);
	assert_ptr_equal(f, g);
	assert_int_equal(inode_write(f, "ab", 2, 8), 0);
	assert_int_equal(inode_append(f, "END", 3), 0);
	assert_int_equal(inode_read(f, buf, sizeof(buf), 5), 8);
	assert_memory_equal(buf, "567abEND", 8);
	assert_int_equal(inode_truncate(f, 3), 0);
	assert_int_equal(inode_fsync(f, false), 0);
	assert_int_equal(fstatat(w->bed.root, "p", &st, 0), 0);
	assert_int_equal(st.st_size, 3);
	assert_string_equal(inode_origin(f), "plain");
	inode_put(f);
	inode_put(g);
	assert_null(inode_find(w->t.store, st.st_dev, st.st_ino)); /* nothing keeps it */
	node_put(w->t.nodes, n);
}

struct waiter {
	struct world *w;
	struct node *n;
	_Atomic int done;
	ino_t used;
};

static void *wait_main(void *arg)
{
	struct waiter *x = arg;

	if (plain_use(&x->w->t, x->n, &x->used))
		abort();
	x->done = 1;
	return NULL;
}

static void test_claims(void **state)
{
	struct world *w = *state;
	const struct tree *t = &w->t;
	uint64_t me = plain_watcher(t->plain), other = plain_watcher(t->plain);
	struct waiter x = {.w = w};
	pthread_t thread;
	struct inode *f;
	struct node *n;
	ino_t ino, used;

	put(w, "x", "1");
	n = look(w, "x");
	ino = n->ino;
	assert_int_equal(plain_claim(t, ino, me), -EBUSY); /* nobody has begun */
	assert_int_equal(plain_watch(t, ino, me), 0);
	assert_int_equal(plain_claim(t, ino, other), -EBUSY);
	assert_int_equal(plain_use(t, n, &used), 0);
	assert_int_equal(used, ino);
	assert_int_equal(plain_claim(t, ino, me), -EBUSY);
	plain_unuse(t, used);
	assert_int_equal(plain_claim(t, ino, me), -EBUSY); /* it may have been changed */
	assert_int_equal(plain_watch(t, ino, me), 0);
	assert_int_equal(attr_content(t, n, false, &f), 0);
	assert_int_equal(plain_watch(t, ino, me), -EBUSY); /* open */
	assert_int_equal(plain_claim(t, ino, me), -EBUSY);
	inode_put(f);
	assert_int_equal(plain_watch(t, ino, me), 0);
	plain_unwatch(t->plain, 0, me);
	assert_int_equal(plain_claim(t, ino, me), -EBUSY);
	assert_int_equal(plain_watch(t, ino, me), 0);
	assert_int_equal(plain_claim(t, ino, me), 0);
	x.n = n;
	assert_int_equal(pthread_create(&thread, NULL, wait_main, &x), 0);
	nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	assert_int_equal(x.done, 0); /* waits for the claim */
	put(w, "x.new", "1");
	node_swap(t->nodes, ino, ino + 100000);
	plain_release(t->plain, ino, ino + 100000);
	pthread_join(thread, NULL);
	assert_int_equal(x.used, 0); /* and finds no plain file any more */
	assert_false(n->plain);
	assert_int_equal(t->plain->n_fresh, 1);
	assert_int_equal(plain_durable(t, ino + 100000), 0);
	assert_int_equal(t->plain->n_fresh, 0);
	for (size_t i = 0; i < PLAIN_BUCKETS; i++)
		assert_null(t->plain->buckets[i]);
	node_put(t->nodes, n);
}

static void test_state(void **state)
{
	struct world *w = *state;
	struct volume v = {.path = w->bed.dir, .store_fd = w->bed.root, .dir_fd = w->bed.tdfs, .k_conf = derive(w->bed.vk, "conf")};
	enum volume_state s;
	int fd;

	assert_int_equal(volume_state_read(&v, &s), 0);
	assert_int_equal(s, VOLUME_STRICT);
	assert_int_equal(volume_state_write(&v, VOLUME_CONVERTING), 0);
	assert_int_equal(volume_state_read(&v, &s), 0);
	assert_int_equal(s, VOLUME_CONVERTING);
	v.id[0] = 1; /* of another volume */
	assert_int_equal(volume_state_read(&v, &s), -EBADMSG);
	assert_int_equal(s, VOLUME_STRICT);
	v.id[0] = 0;
	fd = openat(w->bed.tdfs, "convert/state", O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(volume_state_read(&v, &s), -EBADMSG);
	assert_int_equal(s, VOLUME_STRICT);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(volume_state_read(&v, &s), -EBADMSG);
	close(fd);
	assert_int_equal(volume_state_write(&v, VOLUME_STRICT), 0);
	assert_int_equal(volume_state_read(&v, &s), 0);
	assert_int_equal(s, VOLUME_STRICT);
	secret_free(v.k_conf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_ours, setup, teardown),    cmocka_unit_test_setup_teardown(test_marks, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_through, setup, teardown), cmocka_unit_test_setup_teardown(test_claims, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_state, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
