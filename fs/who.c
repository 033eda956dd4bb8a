/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "who.h"

/* Per thread, as the ids are: glibc's wrappers would change all threads. */
static long raw_setfsuid(uid_t uid)
{
	return syscall(SYS_setfsuid, uid);
}
static long raw_setfsgid(gid_t gid)
{
	return syscall(SYS_setfsgid, gid);
}

/*
 * Leaving fsuid 0 took the file capabilities away.  Two come back: permission was checked above us with the caller's supplementary groups,
 * which this thread does not have (DAC_OVERRIDE), and for the same reason setgid bits that the kernel left in the mode are right (FSETID).
 */
static int keep_override(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	uint32_t want = 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH | 1u << CAP_FSETID;

	if (syscall(SYS_capget, &head, data))
		return -errno;
	data[0].effective |= want & data[0].permitted;
	return syscall(SYS_capset, &head, data) ? -errno : 0;
}

static int take_ids(const struct who *w)
{
	if (w->gid) {
		raw_setfsgid(w->gid);
		if (raw_setfsgid((gid_t)-1) != (long)w->gid)
			return -EPERM;
	}
	if (w->uid) {
		raw_setfsuid(w->uid);
		if (raw_setfsuid((uid_t)-1) != (long)w->uid)
			return -EPERM;
		return keep_override();
	}
	return 0;
}

/* The umask belongs to a thread only once it has stopped sharing it. */
static int take_umask(mode_t mask)
{
	static __thread bool own;

	if (!own) {
		if (unshare(CLONE_FS))
			return -errno;
		own = true;
	}
	umask(mask & 0777);
	return 0;
}

int who_enter(const struct who_rules *r, const struct who *w, struct who_saved *ret)
{
	struct who_saved s = {.ids = r->root && (w->uid || w->gid)};
	int err = 0;

	if (!r->root)
		err = w->uid == r->owner ? 0 : -EACCES;
	else if (r->umask)
		err = take_umask(w->umask);
	if (!err && s.ids) {
		err = take_ids(w);
		if (err)
			who_leave(&s);
	}
	if (!err)
		*ret = s;
	return err;
}

void who_leave(const struct who_saved *s)
{
	if (!s->ids)
		return;
	raw_setfsuid(0);
	raw_setfsgid(0);
	if (raw_setfsuid((uid_t)-1) || raw_setfsgid((gid_t)-1))
		abort();
}
