/* SPDX-License-Identifier: Apache-2.0 */
/* What the writer and the checker of kill-tool agree on. */
#ifndef TDFS_TEST_KILL_TOOL_H
#define TDFS_TEST_KILL_TOOL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FILES 6u
#define LARGE 5u /* the one that grows beyond what stays in memory */
#define MAX_BYTES ((size_t)12 << 20)

enum kind { WRITE = 'W', CUT = 'T', OPEN_TRUNC = 'O', REPLACE = 'R', UNLINK = 'U' };

static inline uint64_t word(unsigned file, uint64_t id, uint64_t at)
{
	return (uint64_t)(file + 1) << 56 | id << 24 | at;
}

static inline void die(const char *what)
{
	perror(what);
	exit(2);
}

static inline void name_of(char *buf, size_t len, unsigned proc, unsigned file)
{
	snprintf(buf, len, "p%u-%u", proc, file);
}

/* What operation @id writes at @off. */
static inline void fill(uint64_t *buf, unsigned file, uint64_t id, uint64_t off, uint64_t len)
{
	for (uint64_t i = 0; i < len / 8; i++)
		buf[i] = word(file, id, off / 8 + i);
}

/** write_all() - one writer, until a call fails; ends the process */
void write_all(const char *dir, const char *logs, const char *base, uint64_t seed, unsigned proc);
/** check_all() - 0, or 1 if something is lost, which it prints */
int check_all(const char *dir, const char *logs, const char *base, unsigned procs, const char *mode);

#endif
