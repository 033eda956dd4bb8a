/* SPDX-License-Identifier: Apache-2.0 */
/* Options of the commands that convert. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "cmd_convert.h"
#include "convert_i.h"
#include "say.h"

static int word_index(const char *word, const char *const *words, const char *option, int fallback, int *ret)
{
	*ret = fallback;
	if (!word)
		return 0;
	for (int i = 0; words[i]; i++)
		if (strcmp(word, words[i]) == 0) {
			*ret = i;
			return 0;
		}
	report(REPORT_ERROR, "--%s: '%s': %s, %s or %s", option, word, words[0], words[1], words[2]);
	return -EINVAL;
}

static int duration_parse(const char *text, uint64_t *ret)
{
	char digits[24];
	size_t len = strlen(text);
	uint64_t unit = 1;

	if (!len || len >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, text, len + 1);
	switch (digits[len - 1]) {
	case 'h':
		unit = 3600;
		break;
	case 'm':
		unit = 60;
		break;
	case 's':
		break;
	default:
		len++;
	}
	digits[len - 1] = 0;
	if (number_parse(digits, ret) || *ret > UINT32_MAX)
		return -EINVAL;
	*ret *= unit;
	return 0;
}

static int pressure_take(const char *text, struct convert_run *r)
{
	static const char *const kinds[] = {"io", "cpu", "memory"};
	const char *colon = strchr(text, ':');
	uint64_t n;

	if (!colon || number_parse(colon + 1, &n) || !n || n > 100 || access("/proc/pressure", F_OK))
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strlen(kinds[i]) == (size_t)(colon - text) && strncmp(kinds[i], text, (size_t)(colon - text)) == 0)
			r->pressure = kinds[i];
	r->max_pressure = (unsigned)n;
	return r->pressure ? 0 : -EINVAL;
}

int convert_args_use(const struct convert_args *a, enum convert_verb verb, struct convert_run *r)
{
	static const char *const verifies[] = {"none", "sample", "full", NULL}, *const busies[] = {"skip", "wait", "fail", NULL};
	cpu_set_t cpus;
	int verify, busy;

	if (word_index(a->verify, verifies, "verify", a->in_place ? VERIFY_POLICY_FULL : VERIFY_POLICY_SAMPLE, &verify) ||
	    word_index(a->busy, busies, "busy", BUSY_SKIP, &busy))
		return EXIT_TDFS_USAGE;
	if (a->workers > WORKERS_MAX || a->batch > 1 << 20) {
		report(REPORT_ERROR, a->workers > WORKERS_MAX ? "--workers: at most %d" : "--batch: at most %d",
		       a->workers > WORKERS_MAX ? WORKERS_MAX : 1 << 20);
		return EXIT_TDFS_USAGE;
	}
	if (a->max_duration && (duration_parse(a->max_duration, &r->max_seconds) || !r->max_seconds)) {
		report(REPORT_ERROR, "--max-duration: '%s' is no time: 90s, 15m, 2h", a->max_duration);
		return EXIT_TDFS_USAGE;
	}
	if (a->pressure && pressure_take(a->pressure, r)) {
		report(REPORT_ERROR, "--max-pressure: '%s': io:20, cpu:50 or memory:5 (per cent of time; needs /proc/pressure)",
		       a->pressure);
		return EXIT_TDFS_USAGE;
	}
	if (a->cross && a->in_place) {
		report(REPORT_ERROR,
		       "--cross: what is removed in place must lie on the file system that is synced; convert each file system by itself");
		return EXIT_TDFS_USAGE;
	}
	r->verb = verb;
	r->in_place = a->in_place;
	r->one_fs = !a->cross;
	r->verify = (enum verify_policy)verify;
	r->busy = (enum busy_policy)busy;
	r->workers = (unsigned)a->workers;
	if (!r->workers)
		r->workers = sched_getaffinity(0, sizeof(cpus), &cpus) ? 2 : (unsigned)MIN(CPU_COUNT(&cpus), 16);
	r->batch = a->batch ? (unsigned)a->batch : BATCH_FILES;
	r->max_rate = a->max_rate;
	r->idle = a->idle;
	r->files_from = a->files_from;
	r->parent = getpid();
	return EXIT_TDFS_OK;
}
