/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

#include "lock.h"
#include "say.h"

struct progress {
	enum progress_form form;
	bool tty;
	const char *verb;
	uint64_t total;
	struct timespec begin;
	_Atomic uint64_t bytes, files;
	pthread_t thread;
	bool running;

	struct mutex lock;
	struct cond wake;
	/* guarded by lock */
	bool stop, drawn;
};

static atomic_bool signalled; /* lock-free, so a signal handler may set it and any thread read it */

static void on_signal(int signo)
{
	atomic_store_explicit(&signalled, true, memory_order_relaxed);
}

void interrupt_catch(void)
{
	/* SA_RESETHAND: the second one acts as it always does */
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};

	sigemptyset(&sa.sa_mask);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
}

bool interrupted(void)
{
	return atomic_load_explicit(&signalled, memory_order_relaxed);
}

static double seconds_since(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - t->tv_sec) + (double)(now.tv_nsec - t->tv_nsec) / 1e9;
}

static void eta_text(const struct progress *p, uint64_t bytes, double took, char *ret, size_t max)
{
	double left = bytes && took > 1 && p->total > bytes ? took * (double)(p->total - bytes) / (double)bytes : -1;

	if (left < 0)
		ret[0] = 0;
	else if (left < 3600)
		snprintf(ret, max, ", %d:%02d left", (int)left / 60, (int)left % 60);
	else
		snprintf(ret, max, ", %.0f h %02d min left", left / 3600 - 0.5, (int)left / 60 % 60);
}

/* caller holds lock */
static void draw(struct progress *p, bool last)
{
	uint64_t bytes = p->bytes, files = p->files;
	double took = seconds_since(&p->begin);
	char done[SAY_TEXT], total[SAY_TEXT], rate[SAY_TEXT], eta[SAY_TEXT];

	if (p->form == PROGRESS_JSON) {
		fprintf(stderr,
			"{\"v\":1,\"event\":\"%s\",\"bytes\":%" PRIu64 ",\"total_bytes\":%" PRIu64 ",\"files\":%" PRIu64
			",\"seconds\":%.1f}\n",
			last ? "end" : "progress", bytes, p->total, files, took);
		return;
	}
	if (last && !p->tty)
		return; /* the command prints its own summary */
	size_text(bytes, done);
	size_text(p->total, total);
	size_text(took > 0 ? (uint64_t)((double)bytes / took) : 0, rate);
	eta_text(p, bytes, took, eta, sizeof(eta));
	fprintf(stderr, "%s%s of %s %s, %" PRIu64 " files, %s/s%s%s", p->tty ? "\r\033[K" : "tdfs: ", done, p->total ? total : "?", p->verb,
		files, rate, last ? "" : eta, p->tty && !last ? "" : "\n");
	p->drawn = p->tty && !last;
}

static void *progress_thread(void *arg)
{
	struct progress *p = arg;
	long step_ms = p->form == PROGRESS_JSON ? 1000 : p->tty ? 250 : 60000;
	struct timespec next = p->begin;

	mutex_lock(&p->lock);
	while (!p->stop) {
		next.tv_nsec += step_ms % 1000 * 1000000;
		next.tv_sec += step_ms / 1000 + next.tv_nsec / 1000000000;
		next.tv_nsec %= 1000000000;
		while (!p->stop && cond_wait_until(&p->wake, &p->lock, &next) == 0)
			;
		if (!p->stop)
			draw(p, false);
	}
	mutex_unlock(&p->lock);
	return NULL;
}

struct progress *progress_start(enum progress_form form, const char *verb, uint64_t total)
{
	struct progress *p;
	sigset_t all, old;

	if (form == PROGRESS_NONE)
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->form = form;
	p->tty = form == PROGRESS_AUTO && isatty(STDERR_FILENO);
	p->verb = verb;
	p->total = total;
	clock_gettime(CLOCK_MONOTONIC, &p->begin);
	mutex_init(&p->lock);
	cond_init(&p->wake);
	sigfillset(&all); /* signals are for the main thread, so that they interrupt it */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	p->running = pthread_create(&p->thread, NULL, progress_thread, p) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return p;
}

void progress_add(struct progress *p, uint64_t bytes, uint64_t files)
{
	if (!p)
		return;
	atomic_fetch_add_explicit(&p->bytes, bytes, memory_order_relaxed);
	atomic_fetch_add_explicit(&p->files, files, memory_order_relaxed);
}

void progress_hush(struct progress *p)
{
	if (!p)
		return;
	mutex_lock(&p->lock);
	if (p->drawn)
		fputs("\r\033[K", stderr);
	p->drawn = false;
	mutex_unlock(&p->lock);
}

void progress_stop(struct progress *p)
{
	if (!p)
		return;
	mutex_lock(&p->lock);
	p->stop = true;
	cond_broadcast(&p->wake);
	mutex_unlock(&p->lock);
	if (p->running)
		pthread_join(p->thread, NULL);
	mutex_lock(&p->lock);
	if (p->form == PROGRESS_JSON || p->drawn)
		draw(p, true);
	mutex_unlock(&p->lock);
	cond_destroy(&p->wake);
	mutex_destroy(&p->lock);
	free(p);
}
