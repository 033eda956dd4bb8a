/* SPDX-License-Identifier: Apache-2.0 */
/* Whose turn it is when the log is full. */
#include "inode_i.h"

#define TRIES 100
#define ALONE 3 /* failures after which nobody else may take what comes free */

static void take(struct room_turn *t)
{
	if (!t->mine)
		mutex_lock(&t->st->room_lock);
	t->mine = true;
}

int room_turn_alone(struct room_turn *t)
{
	take(t);
	t->st->short_of_room = true;
	return writeback_room(t->st);
}

void room_turn_end(struct room_turn *t)
{
	if (!t->mine)
		return;
	t->st->short_of_room = false;
	t->mine = false;
	mutex_unlock(&t->st->room_lock);
}

void room_turn_wait(struct room_turn *t)
{
	if (t->st->short_of_room)
		take(t);
}

/* 0: made; else what came of it */
static int make(struct room_turn *t, struct inode *f, int err)
{
	if (t->tries++ == TRIES)
		return fail(-EIO, "the volume log has no room and cannot be freed");
	if (err == -EBUSY)
		return writeback_seal(t->st, &f, 1, false);
	if (t->tries > ALONE)
		return room_turn_alone(t);
	take(t);
	return writeback_room(t->st);
}

bool room_turn_again(struct room_turn *t, struct inode *f, int err, int *ret_err)
{
	bool full = err == -EAGAIN || err == -EBUSY;

	if (full)
		err = make(t, f, err);
	if (full && !err)
		return true;
	room_turn_end(t);
	*ret_err = err;
	return false;
}
