/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel knows by a nodeid: one struct node per object of the store that it holds, found by id or by inode number, so that hard
 * links share one.
 *
 * Ids count up and are never used again.  The kernel owns size and mtime of a file it caches, so an object whose content changed behind our
 * back must not keep its id: node_enter() gives it a new one, node_check() answers -ESTALE, upon which the kernel looks the name up again.
 *
 * No path is ever opened as a string: a directory is opened through its parent and kept in an LRU of descriptors; everything else is
 * (descriptor of the directory, stored name).  The table lock is held for memory only, never over a system call but close(2).
 */
#ifndef TDFS_NODE_H
#define TDFS_NODE_H

#include "lock.h"
#include "name.h"

#define NODE_ROOT 1

struct inode;

struct link { /* one name of a node; guarded by the table lock */
	struct link *next;
	struct node *dir; /* referenced */
	char name[];      /* as stored */
};

struct node_dir {                   /* directories only */
	struct mutex names;         /* outermost lock: held while the entries of this directory are changed through us */
	unsigned reading;           /* guarded by names: handles that are between the start and the end of it */
	struct node *newer, *older; /* LRU of open descriptors, guarded by the table lock */
};

struct node {
	/* set at creation, then fixed */
	uint64_t id;
	mode_t fmt; /* S_IFMT bits */
	struct node_dir *dir;
	/* guarded by the table lock */
	uint64_t n_lookup;
	unsigned n_refs;
	unsigned fd_users;
	int fd;                /* directories: O_PATH, if open; others: O_PATH from just before the last name goes; else -1 */
	struct inode *content; /* removed while its content was live: as good as open until FORGET, or what is not in place would be lost */
	bool hashed;           /* found by inode number: neither removed nor replaced behind our back */
	bool removed;          /* its last name is gone, through us */
	bool ours;             /* changed through us since it was last looked at: take what is there as it is */
	unsigned changing;     /* such a change is going on: nothing can be concluded from what is seen */
	uint64_t ours_at;      /* nodes->clock at the end of the last one */
	bool seen;             /* the two below are valid: content as it was when last looked at */
	int64_t seen_size, seen_mtime;
	struct link *links;
	struct node *id_next, *ino_next;
	/* guarded by mount->lock, see give.c and handle.c */
	unsigned users;   /* handles, and changes of size under way */
	unsigned writers; /* handles that write */
	bool giving;      /* content to the kernel */
	/* atomic */
	_Atomic ino_t ino;   /* fixed, but for node_swap() */
	_Atomic bool plain;  /* a file that is passed through, until then; see plain.h */
	_Atomic bool priv;   /* setuid, setgid seen: a write has to clear them */
	_Atomic bool cached; /* the kernel has been given the whole content, or writes it itself */
	_Atomic int refused; /* -errno, see node_refuse() */
};

struct sight {          /* an entry of the store as it was seen */
	struct stat st; /* as the user sees it */
	bool plain;     /* no sealed file but the thing itself */
	bool live;      /* its content is in memory, so this says nothing about the store */
	uint64_t at;    /* nodes_clock() before it was looked at */
};

struct nodes {
	/* set at creation, then fixed */
	int root_fd;
	dev_t dev;
	size_t max_fds;
	struct node *root;

	struct mutex lock;
	/* guarded by lock */
	struct node **by_id, **by_ino;
	size_t n_buckets, n_nodes, n_fds;
	uint64_t next_id, n_changes; /* of links, to tell a race from a name that is really gone */
	struct node *newest, *oldest;
	struct node *dead; /* freed, but for what must not be closed under the lock */
	/* atomic */
	_Atomic uint64_t clock; /* counts our own changes of content */
};

/** nodes_new() - a table with the root; @root_fd: the store's root, borrowed; @max_fds: directories kept open; 0, -ENOMEM, -errno */
int nodes_new(int root_fd, size_t max_fds, struct nodes **ret) MUST_CHECK;
/** nodes_free() - everything, whatever the kernel still holds */
void nodes_free(struct nodes *t);
/** nodes_count() - how many */
size_t nodes_count(struct nodes *t);

/** node_get() - by id, with a reference; NULL: no such id */
struct node *node_get(struct nodes *t, uint64_t id) MUST_CHECK;
/** node_find() - by inode number, with a reference; NULL: the kernel does not hold it */
struct node *node_find(struct nodes *t, ino_t ino) MUST_CHECK;
void node_put(struct nodes *t, struct node *n);
/** node_enter() - the node of an entry just looked up or made, its lookup count raised by one, and a reference
 * @dir, @stored: where it was found
 * Return: 0, -ENOMEM, -ELOOP a directory below itself (moved behind our back) */
int node_enter(struct nodes *t, struct node *dir, const char *stored, const struct sight *s, struct node **ret) MUST_CHECK;
/** node_forget() - lower the lookup count */
void node_forget(struct nodes *t, uint64_t id, uint64_t n);

/** nodes_clock() - for struct sight */
static inline uint64_t nodes_clock(const struct nodes *t)
{
	return t->clock;
}
/** node_check() - is the content what the kernel was told?  Remembers it.  0 or -ESTALE */
int node_check(struct nodes *t, struct node *n, const struct sight *s) MUST_CHECK;
/** node_seen_size() - as it was last looked at, 0 if never */
int64_t node_seen_size(struct nodes *t, struct node *n);
/** node_size_fits() - is @size, that of its content, what the kernel was told when it was last looked at?  What is told comes from a hint that
 * anybody may copy from file to file, and the kernel believes it: it would read zeros behind the content, or not all of it.  True also where
 * nothing can be said. */
bool node_size_fits(struct nodes *t, struct node *n, int64_t size);
/** node_change() / node_changed() - around a change of content or mtime through us: the next look takes what it finds, and what was seen
 * meanwhile counts for nothing.  While a file is live it is not compared at all, so opening it for writing is one moment's change. */
void node_change(struct nodes *t, struct node *n);
void node_changed(struct nodes *t, struct node *n);

/** node_refuse() - what the kernel holds of @n is not what the file has: a page that it wrote back was not taken (@err), or what it did write
 * was lost later.  It calls such pages clean and shows them as long as it knows the node.  So its handles change and sync nothing any more
 * (n->refused), and who opens the name from now on gets another node.  true: this is the first time */
bool node_refuse(struct nodes *t, struct node *n, int err);

/** node_unlink() - (dir, stored) is no name of @ino any more; @last: it was the last one */
void node_unlink(struct nodes *t, ino_t ino, struct node *dir, const char *stored, bool last);
/** node_removed() - the last name of @n is gone (NULL: the kernel does not hold it) and @f, whose reference is taken over, is its content
 */
void node_removed(struct nodes *t, struct node *n, struct inode *f);
/** node_move() - the name of @n changed; without memory the old name stays and the next access answers -ESTALE */
void node_move(struct nodes *t, struct node *n, struct node *dir, const char *stored, struct node *to_dir, const char *to);
/** node_swap() - the object with the number @ino has become another of the same content, which is no plain one, under names that
 * node_move() has told: the kernel keeps its nodeid */
void node_swap(struct nodes *t, ino_t ino, ino_t to_ino);
/** node_keep() - just before a name of @n goes: if it is the last one, or (@last false) the last that we know of, hold the object open, so
 * that stat and chmod of what the kernel still holds go on; does nothing on failure */
void node_keep(struct nodes *t, struct node *n, bool last);

/** node_dirfd() - O_PATH descriptor of a directory, borrowed until node_dirfd_put(); 0, -ESTALE it is not where it was, -errno */
int node_dirfd(struct nodes *t, struct node *dir, int *ret) MUST_CHECK;
void node_dirfd_put(struct nodes *t, struct node *dir);

struct at {               /* where an object is: a name in an open directory */
	struct node *dir; /* owner of fd; NULL: fd is the store's root */
	int fd;
	char name[NAME_ROOM];
};
/** node_at() - one of the names of @n; the root is "." in itself.  0, -ESTALE no name left, -errno.  at_put() afterwards. */
int node_at(struct nodes *t, struct node *n, struct at *ret) MUST_CHECK;
void at_put(struct nodes *t, struct at *at);
/** node_open() - open @n itself with openat(2) flags, O_NOFOLLOW and O_CLOEXEC added, never across a mount; checked to be that object.  A
 * descriptor, -ESTALE, -errno Only O_PATH for what is neither a directory nor a regular file: opening those could block or have effects. */
int node_open(struct nodes *t, struct node *n, int flags) MUST_CHECK;

/* The store's names change a moment before the table does.  Who finds another object under a name of @n takes what was kept of it, or lets
 * the change come to its end and looks again; no name lock may be held. */
/** nodes_changes() - for node_settle(), before the look */
uint64_t nodes_changes(struct nodes *t);
/** node_settle() - wait for a change of names where @n is; have any changed since, so that another look is worth it? */
bool node_settle(struct nodes *t, struct node *n, uint64_t since);
/** node_kept() - the descriptor kept of an object whose last name is going or gone, opened once more with @flags; -ESTALE there is none */
int node_kept(struct nodes *t, struct node *n, int flags) MUST_CHECK;
/** node_is_gone() - its last name went through us, and nobody has it open */
bool node_is_gone(struct nodes *t, const struct node *n);
/** node_gone_size() - of a file whose last name went through us, as the kernel was told; -1: it may have changed since */
int64_t node_gone_size(struct nodes *t, const struct node *n);
/** node_owns_ino() - false: the inode number may mean another object by now */
bool node_owns_ino(struct nodes *t, const struct node *n);

struct node_name {    /* a name as the kernel knows it */
	uint64_t dir; /* nodeid */
	char name[NAME_ROOM];
};
/** nodes_idle() - names of files that nothing here uses, so that the kernel can be asked to forget them: up to @max, going on from *cursor
 * (0 at first); 0: once around */
size_t nodes_idle(struct nodes *t, size_t *cursor, struct node_name *ret, size_t max);

/** node_path() - path below the store's root as stored, of @name in @dir; "" if it does not fit or a name is gone: it is a hint */
void node_path(struct nodes *t, struct node *dir, const char *name, char *ret, size_t len);

/* between nodetable.c, node.c and nodefd.c; the lock is held */
struct node *node_new(uint64_t id, ino_t ino, mode_t fmt) MUST_CHECK;
void node_destroy(struct node *n, bool close_it);
struct node *table_by_id(struct nodes *t, uint64_t id) MUST_CHECK;
struct node *table_by_ino(struct nodes *t, ino_t ino) MUST_CHECK;
void table_add(struct nodes *t, struct node *n);
void table_remove(struct nodes *t, struct node *n);
void table_hide(struct nodes *t, struct node *n); /* not found by inode number any more */
void table_renumber(struct nodes *t, struct node *n, ino_t ino);
void node_release(struct nodes *t, struct node *n);
int node_evict(struct nodes *t);
void lru_drop(struct nodes *t, struct node *n);

#endif
