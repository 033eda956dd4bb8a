/* SPDX-License-Identifier: Apache-2.0 */
/* By syscall(2): what is used of it is older than any kernel we run on, and libkeyutils would be one library more in every command. */
#include "keyring.h"

#include <linux/keyctl.h>

#include <errno.h>
#include <sys/syscall.h>

#include "report.h"
#include "secret.h"

static int failed(const char *name)
{
	switch (errno) {
	case ENOSYS:
	case EPERM: /* seccomp in a container */
	case EOPNOTSUPP:
		return fail(-ENOTSUP, "there is no kernel keyring here (%s)", strerror(errno));
	case ENOKEY:
	case EKEYEXPIRED:
	case EKEYREVOKED:
		return fail(-ENOENT, "the kernel's keyring does not have %s: a restart ends what is in it", name);
	default:
		return fail(-errno, "kernel keyring, %s: %s", name, strerror(errno));
	}
}

/* A key is for who possesses it, and not every process of the user possesses @u (services, su): by this thread's own keyring it does. */
static int possess(void)
{
	return syscall(SYS_keyctl, KEYCTL_LINK, (long)KEY_SPEC_USER_KEYRING, (long)KEY_SPEC_THREAD_KEYRING) ? failed("@u") : 0;
}

static int find(const char *name, long *ret)
{
	long id;
	int err = possess();

	if (err)
		return err;
	id = syscall(SYS_keyctl, KEYCTL_SEARCH, (long)KEY_SPEC_USER_KEYRING, "user", name, 0L);

	if (id < 0)
		return failed(name);
	*ret = id;
	return 0;
}

int keyring_put(const char *name, const void *p, size_t len)
{
	int err = len <= KEYRING_MAX ? possess() : fail(-EFBIG, "%zu bytes are too long for a key of the kernel's keyring", len);

	if (err)
		return err;
	return syscall(SYS_add_key, "user", name, p, len, (long)KEY_SPEC_USER_KEYRING) < 0 ? failed(name) : 0;
}

int keyring_get(const char *name, char **ret)
{
	char *text;
	long id = 0, n;
	int err = find(name, &id);

	if (err)
		return err;
	text = calloc(1, KEYRING_MAX + 1);
	if (!text)
		return -ENOMEM;
	n = syscall(SYS_keyctl, KEYCTL_READ, id, text, KEYRING_MAX);
	if (n < 0 || (size_t)n > KEYRING_MAX || memchr(text, 0, (size_t)n)) {
		err = n < 0 ? failed(name) : fail(-EPROTO, "kernel keyring, %s: not a text of ours", name);
		wipe(text, KEYRING_MAX);
		free(text);
		return err;
	}
	*ret = text;
	return 0;
}

int keyring_remove(const char *name)
{
	long id = 0;
	int err = find(name, &id);

	if (err)
		return err == -ENOENT ? 0 : err;
	(void)syscall(SYS_keyctl, KEYCTL_REVOKE, id); /* whoever holds its number cannot read it any more */
	return syscall(SYS_keyctl, KEYCTL_UNLINK, id, (long)KEY_SPEC_USER_KEYRING) ? failed(name) : 0;
}
