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

unsigned text_step(const char *s, bool *ret_control)
{
	const unsigned char *p = (const unsigned char *)s;
	unsigned n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;

	for (unsigned i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			n = 0; /* the end of the text is no continuation either */
	/* a terminal that does not read UTF-8 takes single bytes from 0x80 on for what U+0080 on is in UTF-8 */
	*ret_control = n == 1 ? p[0] < 0x20 || p[0] == 0x7f : n == 2 ? p[0] == 0xc2 && p[1] < 0xa0 : !n && p[0] < 0xa0;
	return n ? n : 1;
}

/* Names from disk go into messages: what would move the cursor or forge a second line becomes '?'. */
static void make_printable(char *s)
{
	bool control;

	for (unsigned n; *s; s += n) {
		n = text_step(s, &control);
		if (control)
			memset(s, '?', n);
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
