/* SPDX-License-Identifier: Apache-2.0 */
#include "say.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "encode.h"

const char *cause_text(int err)
{
	const char *text = fail_text();

	if (*text)
		return text;
	switch (-err) {
	case EBADMSG:
		return "damaged: a signature or checksum does not match";
	case EPROTO:
		return "malformed";
	case ENOEXEC:
		return "not a TDF";
	case ENODATA:
		return "created but never completed: it holds nothing yet";
	case ENOKEY:
		return "none of the keys at hand opens it";
	case EKEYREJECTED:
		return "wrong secret: no key slot opens with it";
	case ETIMEDOUT:
		return "no answer in time";
	case ENOTSUP:
		return "made by a later version of tdfs";
	default:
		return strerror(-err);
	}
}

static void PRINTF_LIKE(3, 0) complain_print(int err, const char *path, const char *next, va_list ap)
{
	CLEANUP_FREE char *shown = path ? path_text(path) : NULL;
	CLEANUP_FREE char *advice = NULL;
	const char *cause = cause_text(err);
	/* some causes come with the path or the next step in them */
	bool named = !shown || cause[0] == '/' || strncmp(cause, path, strlen(path)) == 0;
	bool told = strstr(cause, "(tdfs ") || strstr(cause, "`tdfs ");

	if (next && !told && vasprintf(&advice, next, ap) < 0)
		advice = NULL;
	report(REPORT_ERROR, "%s%s%s%s%s", named ? "" : shown, named ? "" : ": ", cause, advice ? "; " : "", advice ? advice : "");
}

int complain(int err, const char *path, const char *next, ...)
{
	va_list ap;

	va_start(ap, next);
	complain_print(err, path, next, ap);
	va_end(ap);
	return exit_code_of(err);
}

int complain_file(int err, const char *path, const char *next, ...)
{
	va_list ap;

	va_start(ap, next);
	complain_print(err, path, next, ap);
	va_end(ap);
	return err == -EINTR ? EXIT_TDFS_INTERRUPTED : EXIT_TDFS_FAILED;
}

char *path_text(const char *path)
{
	static const char hex[] = "0123456789abcdef";
	size_t len = strlen(path), n = 0;
	char *out = len < SIZE_MAX / 4 - 1 ? malloc(4 * len + 1) : NULL;
	bool control = false;

	if (!out)
		return NULL;
	for (const char *p = path, *end = p; *p; p++) {
		unsigned char c = (unsigned char)*p;

		if (p == end)
			end += text_step(p, &control);
		if (!control) {
			out[n++] = (char)c;
			continue;
		}
		out[n++] = '\\';
		if (c == '\n' || c == '\t') {
			out[n++] = c == '\n' ? 'n' : 't';
			continue;
		}
		out[n++] = 'x';
		out[n++] = hex[c >> 4];
		out[n++] = hex[c & 15];
	}
	out[n] = 0;
	return out;
}

void size_text(uint64_t n, char ret[static SAY_TEXT])
{
	static const char *const unit[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double v = (double)n;
	size_t u = 0;

	while (v >= 1024 && u + 1 < ARRAY_SIZE(unit)) {
		v /= 1024;
		u++;
	}
	snprintf(ret, SAY_TEXT, u ? "%.1f %s" : "%.0f %s", v, unit[u]);
}

void time_text(time_t t, char ret[static SAY_TEXT])
{
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(ret, SAY_TEXT, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(ret, SAY_TEXT, "%lld s", (long long)t);
}

int json_say(json_t *root)
{
	int err = root ? json_dumpf(root, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) : -1;

	json_decref(root);
	if (err) {
		report(REPORT_ERROR, "the JSON answer could not be written: out of memory or standard output is closed");
		return EXIT_TDFS_FAILED;
	}
	putchar('\n');
	return EXIT_TDFS_OK;
}

/* Length of the well-formed UTF-8 sequence at @p, 0 if there is none. */
static size_t utf8_len(const unsigned char *p)
{
	size_t n = p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : (p[0] & 0xf8) == 0xf0 ? 4 : 0;

	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

json_t *json_path(const char *path)
{
	json_t *j = json_string(path);
	CLEANUP_FREE char *fixed = NULL;
	size_t n = 0;

	if (j) /* jansson checks UTF-8 */
		return j;
	fixed = malloc(3 * strlen(path) + 1);
	if (!fixed)
		return NULL;
	for (const char *p = path; *p;) {
		size_t len = utf8_len((const unsigned char *)p);
		char one[5] = {0};

		memcpy(one, p, len ? len : 1);
		json_t *ok = len ? json_string(one) : NULL;

		json_decref(ok);
		memcpy(fixed + n, ok ? one : "\xef\xbf\xbd", ok ? len : 3);
		n += ok ? len : 3;
		p += ok ? len : 1;
	}
	return json_stringn(fixed, n);
}

json_t *json_hex(const uint8_t *p, size_t len)
{
	char text[129];

	if (len > (sizeof(text) - 1) / 2)
		return NULL;
	hex_encode(p, len, text);
	return json_string(text);
}

int output_flush(int code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	report(REPORT_ERROR, "standard output: %s", strerror(errno));
	return code ? code : EXIT_TDFS_FAILED;
}
