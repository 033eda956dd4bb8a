/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill-tool write DIR LOGS BASE SEED PROCESSES
 *
 * PROCESSES writers change files in DIR at random until a call fails.  Each tells LOGS/<process>, outside the mount, what it is about
 * to do and what fsync acknowledged.
 *
 * kill-tool check DIR LOGS BASE PROCESSES words|done|exact
 *
 * After the crash: every file in DIR must be in one of its states since its last acknowledgement.  Then BASE gets the files as they are
 * and the logs are emptied: the next round starts from there.
 *
 * words: the kernel splits writes and sends pages when it likes, so that each 8-byte word may be that of any state since the last
 * acknowledgement, but within one life of the content (until O_TRUNC, a replacement or an unlink).
 * done: the same, and a write or rename that returned counts as acknowledged (cache=strict, death of the daemon alone).
 * exact: whole-file states (nothing was in flight).
 *
 * ALIVE in the environment names a file on the disk below.  xfs answers fsync(2) of a directory with 0 after it has been shut down (a file's it
 * does not), so only what is told before a sync of that file counts as acknowledged.
 *
 * Each 8-byte word of a file says who wrote it: file 8 bits | operation 32 bits | place 24 bits.
 */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kill_tool.h"

int main(int argc, char **argv)
{
	if (argc == 7 && !strcmp(argv[1], "write")) {
		unsigned procs = (unsigned)atoi(argv[6]);

		for (unsigned p = 0; p < procs; p++) {
			pid_t pid = fork();

			if (pid < 0)
				die("fork");
			if (!pid)
				write_all(argv[2], argv[3], argv[4], strtoull(argv[5], NULL, 10), p);
		}
		while (wait(NULL) > 0)
			;
		return 0;
	}
	if (argc == 7 && !strcmp(argv[1], "check"))
		return check_all(argv[2], argv[3], argv[4], (unsigned)atoi(argv[5]), argv[6]);
	fprintf(stderr, "usage: kill-tool write DIR LOGS BASE SEED PROCESSES | check DIR LOGS BASE PROCESSES words|exact|done\n");
	return 2;
}
