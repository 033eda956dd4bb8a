/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#define FAIL_MAX 512
#define LINE_MAX_LEN 8192 /* two paths of PATH_MAX fit */

/* The sink is the process's: there is one standard error and one journal. */
static _Thread_local char cause[FAIL_MAX];
static _Atomic int limit = REPORT_NOTE;
static void (*_Atomic sink_fn)(enum report_level level, const char *line);

int fail(int err, const char *fmt, ...)
{
	int saved = errno;
	char text[FAIL_MAX];
	va_list ap;

	/* via a second buffer, because fail_text() may be among the arguments */
	va_start(ap, fmt);
	if (vsnprintf(text, sizeof(text), fmt, ap) < 0)
		text[0] = '\0';
	va_end(ap);
	memcpy(cause, text, sizeof(text));
	errno = saved;
	return err;
}

const char *fail_text(void)
{
	return cause;
}

void fail_clear(void)
{
	cause[0] = '\0';
}

/* Names from disk go into messages: what would move the cursor or forge a second line becomes '?' (C0, DEL and the UTF-8 forms of C1). */
static void make_printable(char *s)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)s[0], d = (unsigned char)s[1];

		if (c < 0x20 || c == 0x7f)
			*s = '?';
		else if (c == 0xc2 && d >= 0x80 && d <= 0x9f)
			s[0] = s[1] = '?';
	}
}

void report(enum report_level level, const char *fmt, ...)
{
	static const char prefix[] = "tdfs: ";
	char line[sizeof(prefix) + LINE_MAX_LEN + 1];
	char *text = line + sizeof(prefix) - 1;
	void (*sink)(enum report_level, const char *) = atomic_load(&sink_fn);
	int saved = errno;
	size_t len;
	va_list ap;

	if ((int)level > atomic_load(&limit))
		return;
	memcpy(line, prefix, sizeof(prefix));
	va_start(ap, fmt);
	if (vsnprintf(text, LINE_MAX_LEN, fmt, ap) < 0)
		text[0] = '\0';
	va_end(ap);
	len = strlen(text);
	if (len && text[len - 1] == '\n')
		text[--len] = '\0';
	make_printable(text);

	if (sink) {
		sink(level, text);
	} else {
		ssize_t n;

		text[len] = '\n';
		/* whole line or nothing that could be done about it */
		do {
			n = write(STDERR_FILENO, line, (size_t)(text - line) + len + 1);
		} while (n < 0 && errno == EINTR);
	}
	errno = saved;
}

void report_limit(enum report_level most)
{
	atomic_store(&limit, (int)most);
}

void report_to(void (*sink)(enum report_level level, const char *line))
{
	atomic_store(&sink_fn, sink);
}
