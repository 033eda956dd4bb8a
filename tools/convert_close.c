/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's thread that closes small files which have lost their last name, while the worker goes on. */
#include <pthread.h>

#include "convert_one.h"

#define SMALL ((uint64_t)64 << 10) /* of larger ones too much would be on the disk twice before they are freed */
#define ROOM 128u                  /* that wait */
#define WAKE 32u                   /* so many are worth waking the thread for */

struct closer {
	pthread_mutex_t lock;
	pthread_cond_t given, closed;
	int fds[ROOM];
	size_t n;
	bool now, busy; /* somebody waits; some that were taken out of @fds are not closed yet */
};

static void *closer_main(void *arg)
{
	struct closer *c = arg;
	int fds[ROOM];

	pthread_mutex_lock(&c->lock);
	for (;;) {
		size_t n;

		while (!c->n || (c->n < WAKE && !c->now))
			pthread_cond_wait(&c->given, &c->lock);
		n = c->n;
		memcpy(fds, c->fds, n * sizeof(fds[0]));
		c->n = 0;
		c->busy = true;
		pthread_mutex_unlock(&c->lock);
		for (size_t i = 0; i < n; i++)
			close(fds[i]);
		pthread_mutex_lock(&c->lock);
		c->busy = false;
		pthread_cond_signal(&c->closed);
	}
	return NULL;
}

/* It ends with the process. */
static struct closer *closer_start(void)
{
	CLEANUP_FREE struct closer *c = calloc(1, sizeof(*c));
	pthread_t thread;

	if (!c)
		return NULL;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->given, NULL);
	pthread_cond_init(&c->closed, NULL);
	return pthread_create(&thread, NULL, closer_main, c) ? NULL : STEAL(c);
}

void one_close_later(struct one *w, int *fd, uint64_t size)
{
	struct closer *c;

	if (size > SMALL || !w->max_kept)
		return;
	if (!w->closer)
		w->closer = closer_start();
	c = w->closer;
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	if (c->n < ROOM) {
		c->fds[c->n++] = *fd;
		*fd = -1;
	}
	if (c->n == WAKE)
		pthread_cond_signal(&c->given);
	pthread_mutex_unlock(&c->lock);
}

void one_close_wait(struct one *w)
{
	struct closer *c = w->closer;

	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->now = true;
	pthread_cond_signal(&c->given);
	while (c->n || c->busy)
		pthread_cond_wait(&c->closed, &c->lock);
	c->now = false;
	pthread_mutex_unlock(&c->lock);
}
