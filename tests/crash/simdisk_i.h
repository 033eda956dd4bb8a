/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the simulated disk: simdisk.c has pages and files, simdisk_state.c names and crash states, simdisk_io.c the calls. */
#ifndef TDFS_SIMDISK_I_H
#define TDFS_SIMDISK_I_H

#include <time.h>

#include "simdisk.h"

#define SIM_PAGE 4096u
#define SIM_SECTOR 512u
#define SIM_FD 1000 /* descriptors start here: a real call on one fails */
#define SIM_FDS 256
#define SIM_XATTR 64
#define SIM_NAME 80
#define SIM_ROOT 1

struct sim_page { /* not written to any more once it is in a map or a list of writes */
	unsigned refs;
	uint64_t hash; /* 0 = not known yet */
	uint8_t b[SIM_PAGE];
};

struct sim_map { /* NULL = zeros */
	struct sim_page **p;
	size_t n;
};

struct sim_write { /* the page as it was after this write, and which of its sectors the write changed */
	uint32_t page, call;
	uint8_t mask;
	struct sim_page *p;
};

struct sim_attr {
	mode_t mode;
	struct timespec mtime;
	size_t xattr_len;
	uint8_t xattr[SIM_XATTR];
};

struct sim_node {
	uint64_t ino;
	bool dir;
	struct sim_map d, v; /* durable; what read() sees */
	uint64_t dsize, vsize;
	struct sim_write *writes; /* pending, in order */
	size_t n_writes, cap_writes;
	uint64_t *sizes; /* pending, in order */
	size_t n_sizes, cap_sizes;
	struct sim_attr da, va;
	struct timespec ctime;
};

struct sim_name {
	uint64_t dir, ino;
	char name[SIM_NAME];
};

struct sim_names {
	struct sim_name *e;
	size_t n, cap;
};

struct sim_op { /* a pending change of names: take away, then put */
	struct sim_name take[2], put[2];
	int n_take, n_put;
};

struct sim_fd {
	struct sim_node *node;
	bool path; /* O_PATH */
	bool write;
	char name[SIM_NAME];
};

struct simdisk {
	struct io io;
	enum sim_mode mode;
	struct sim_node **nodes;
	size_t n_nodes, cap_nodes;
	uint64_t next_ino;
	uint32_t calls;
	struct sim_names d, v;
	struct sim_op *ops;
	size_t n_ops, cap_ops;
	struct sim_fd fds[SIM_FDS];
	void (*hook)(void *arg, const char *name);
	void *hook_arg;
	struct {
		enum sim_call call;
		unsigned left;
		bool stays;
		int err;
		char name[SIM_NAME];
	} fault;
	unsigned n_syncs;
};

/* simdisk.c: pages and files */
void *sim_must(void *p);
struct sim_page *sim_page_get(struct sim_page *p);
struct sim_page *sim_page_copy(const struct sim_page *from);
struct sim_page *sim_map_get(const struct sim_map *m, size_t i);
void sim_map_set(struct sim_map *m, size_t i, struct sim_page *p);
void sim_map_copy(struct sim_map *to, const struct sim_map *from);
void sim_map_free(struct sim_map *m);
void sim_map_merge(struct sim_map *m, size_t i, struct sim_page *from, uint8_t mask);
void sim_node_free(struct sim_node *n);
void sim_node_pend(struct sim_node *n, size_t page, uint8_t mask, uint32_t call, struct sim_page *p);
void sim_node_size(struct sim_node *n, uint64_t size);
void sim_writes_drop(struct sim_node *n);
struct sim_node *sim_node(const struct simdisk *d, uint64_t ino);
struct sim_node *sim_node_new(struct simdisk *d, uint64_t ino, bool dir, mode_t mode);
void sim_node_read(const struct sim_node *n, void *buf, size_t len, uint64_t off);
void sim_node_write(struct simdisk *d, struct sim_node *n, const void *buf, size_t len, uint64_t off);
void sim_node_truncate(struct simdisk *d, struct sim_node *n, uint64_t len);
void sim_node_sync(struct sim_node *n);
void sim_node_lose(struct sim_node *n);
struct sim_name *sim_names_find(const struct sim_names *s, uint64_t dir, const char *name);
void sim_op_do(struct simdisk *d, const struct sim_op *op);
void sim_names_commit(struct simdisk *d, uint64_t dir);
void sim_io_init(struct simdisk *d);

#endif
