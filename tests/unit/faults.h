/* SPDX-License-Identifier: Apache-2.0 */
/* A store in a temporary directory behind a table of calls that can be made to fail, and files that are compared with a plain copy in
 * memory. */
#ifndef TDFS_TEST_FAULTS_H
#define TDFS_TEST_FAULTS_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "container.h"
#include "inode.h"
#include "report.h"
#include "seal.h"
#include "store_setup.h"
#include "writeback.h"

#define S 16384u
#define PLAIN_ROOM ((uint64_t)13 << 20)
#define FDS 4096

enum fault_op { FAULT_PREAD, FAULT_PWRITE, FAULT_TRUNCATE, FAULT_ALLOCATE, FAULT_SYNC, FAULT_SYNCFS, FAULT_OPS };
enum fault_where { ON_FILE = 1, ON_LOG = 2, ON_ANY = 3 };

struct file;

struct faults {
	struct io real, io;
	_Atomic bool log[FDS]; /* descriptor of a half of the log */
	_Atomic unsigned count[FAULT_OPS];
	int syncfs_fd; /* the last one */
	/* one rule */
	enum fault_op op;
	enum fault_where where;
	unsigned nth, times; /* the nth call from now, and so many of them; 0 = none */
	int err;
	unsigned fired, all_fired; /* by this rule; ever */
	bool dead;                 /* the process was killed: nothing reaches the disk any more */
	void (*hook)(struct file *f);
	struct file *hook_file;
};

struct world {
	struct bed bed;
	struct faults faults;
	struct store *st;
	struct file *files;
	uint64_t rand;
	bool quiet;
	uint8_t *scratch; /* PLAIN_ROOM bytes of anything */
};

struct file {
	struct file *next;
	struct world *w;
	char name[32];
	struct inode *f;
	unsigned handles;
	bool unlinked;
	uint8_t *plain, *prev;
	uint64_t size, prev_size;
};

/** faults_init() - the table, over the real one of @root */
void faults_init(struct faults *f, int root);
int setup(void **state);
int teardown(void **state);
struct world *world_new(void);
void world_free(struct world *w);
/** world_kill() - kill -9 and a new start: what was not written is gone, what was written is there */
void world_kill(struct world *w);
/** world_restart() - a clean unmount and a new start */
void world_restart(struct world *w);
uint64_t random_below(struct world *w, uint64_t n);

void fault_set(struct world *w, enum fault_op op, enum fault_where where, unsigned nth, int err, unsigned times);
/** fault_hook() - called once, before the next such call */
void fault_hook(struct world *w, enum fault_op op, void (*hook)(struct file *f), struct file *f);
void fault_clear(struct world *w);
void write_in_hook(struct file *f);

struct file *file_create(struct world *w, const char *name);
void file_reopen(struct world *w, struct file *f);
void file_close(struct world *w, struct file *f); /* the last close of an unlinked file frees it */
void file_unlink(struct world *w, struct file *f);
void file_end(struct world *w, struct file *f); /* unlinked and closed */
void file_write(struct world *w, struct file *f, uint64_t off, uint64_t len, int seed);
void file_cut(struct world *w, struct file *f, uint64_t size);
void file_fsync(struct world *w, struct file *f);
/** file_try_write() and the like - may fail; the copy then becomes what the file says, which must be made of old and new bytes */
void file_try_write(struct world *w, struct file *f, uint64_t off, uint64_t len, int seed);
void file_try_fsync(struct world *w, struct file *f);
void file_check(struct world *w, struct file *f);
void file_check_at_rest(struct world *w, struct file *f);
uint8_t *file_raw(struct world *w, struct file *f, size_t *ret_len);
void file_raw_put(struct world *w, struct file *f, const uint8_t *p, size_t len);
/** file_was() - these bytes stood there before the last file_write() */
bool file_was(const struct file *f, uint64_t off, const uint8_t *p, size_t len);
void fill(uint8_t *p, size_t len, int seed);
/** room_new() - PLAIN_ROOM zeros, used again: fresh memory costs a page fault for every page, which was most of what these tests did */
uint8_t *room_new(void);
/** room_free() - @used: behind that there are only zeros */
void room_free(uint8_t *p, uint64_t used);

/** walk() - random operations, errors and restarts, checked at every step */
void walk(unsigned seed, unsigned steps);

#define CHECK(x)                                                                                  \
	do {                                                                                      \
		if (!(x)) {                                                                       \
			fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #x, fail_text()); \
			abort();                                                                  \
		}                                                                                 \
	} while (0)

#endif
