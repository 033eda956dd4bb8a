/* SPDX-License-Identifier: Apache-2.0 */
/* A KAS that is away is not asked by everybody at once, again and again. */
#include <errno.h>
#include <stdio.h>

#include "aead.h"
#include "remote_int.h"
#include "report.h"

#define FAILS_MAX 2 /* calls in a row */
#define OPEN_MIN_MS 1000
#define OPEN_MAX_MS 30000

/* Clients that lost the same KAS at the same moment must not all come back at the same moment. */
static int64_t jitter(unsigned ms)
{
	uint16_t v = 0;

	if (random_bytes(&v, sizeof(v)))
		v = 0;
	return ms - ms / 4 + (int64_t)ms / 2 * v / 65536;
}

int breaker_enter(struct remote *r)
{
	struct breaker *b = &r->breaker;
	int err = 0;

	mutex_lock(&r->lock);
	if (b->state == REMOTE_OPEN && http_now() >= b->open_until)
		b->state = REMOTE_HALF_OPEN;
	if (b->state == REMOTE_OPEN || (b->state == REMOTE_HALF_OPEN && b->probing)) {
		r->stats.fast_failures++;
		err = fail(b->err, "the KAS is away: %s", b->text);
	} else if (b->state == REMOTE_HALF_OPEN) {
		b->probing = true;
	}
	mutex_unlock(&r->lock);
	return err;
}

void breaker_leave(struct remote *r, int err)
{
	struct breaker *b = &r->breaker;

	mutex_lock(&r->lock);
	b->probing = false;
	if (!err) {
		b->state = REMOTE_CLOSED;
		b->fails = b->backoff_ms = 0;
	} else {
		r->stats.failures++;
		b->fails++;
		b->err = err;
		snprintf(b->text, sizeof(b->text), "%s", fail_text());
		snprintf(r->stats.last_error, sizeof(r->stats.last_error), "%s", b->text);
		/* those that were under way when it opened do not make it worse */
		if (b->state == REMOTE_HALF_OPEN || (b->state == REMOTE_CLOSED && b->fails >= FAILS_MAX)) {
			b->backoff_ms = MIN(MAX(2 * b->backoff_ms, OPEN_MIN_MS), OPEN_MAX_MS);
			b->open_until = http_now() + jitter(b->backoff_ms);
			b->state = REMOTE_OPEN;
		}
	}
	mutex_unlock(&r->lock);
}

void breaker_cancel(struct remote *r)
{
	mutex_lock(&r->lock);
	r->breaker.probing = false;
	mutex_unlock(&r->lock);
}
