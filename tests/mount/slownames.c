/* SPDX-License-Identifier: Apache-2.0 */
/* LD_PRELOAD for the daemon: a name has changed in the store for 2 ms before the daemon knows that it has. */
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

#define PAUSE_US 2000

int renameat2(int from, const char *name, int to, const char *to_name, unsigned flags);
int renameat2(int from, const char *name, int to, const char *to_name, unsigned flags)
{
	int (*real)(int, const char *, int, const char *, unsigned) = dlsym(RTLD_NEXT, "renameat2");
	int res = real(from, name, to, to_name, flags);

	if (!res)
		usleep(PAUSE_US);
	return res;
}

int unlinkat(int dir, const char *name, int flags);
int unlinkat(int dir, const char *name, int flags)
{
	int (*real)(int, const char *, int) = dlsym(RTLD_NEXT, "unlinkat");
	int res = real(dir, name, flags);

	if (!res)
		usleep(PAUSE_US);
	return res;
}
