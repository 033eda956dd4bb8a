/* SPDX-License-Identifier: Apache-2.0 */
/* Many processes that do things to the same files for a while. */
#ifndef TDFS_TEST_CROWD_H
#define TDFS_TEST_CROWD_H

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/** crowd() - @n processes call @work with their number; 0, or 1 if one of them did not return 0 */
static inline int crowd(int n, int (*work)(int k, double seconds), double seconds)
{
	int bad = 0, status;

	fflush(stdout);
	for (int k = 0; k < n; k++) {
		pid_t pid = fork();

		if (!pid) {
			int rc = work(k, seconds);

			fflush(stdout);
			_exit(rc);
		}
		bad += pid < 0;
	}
	while (wait(&status) > 0)
		bad += status != 0;
	return bad != 0;
}

#endif
