/* SPDX-License-Identifier: Apache-2.0 */
/* Between http.c and http_answer.c. */
#ifndef TDFS_HTTP_INT_H
#define TDFS_HTTP_INT_H

#include "http.h"

/* One request in flight; belongs to its thread. */
struct flight {
	const struct http *h;
	const struct http_request *q;
	struct http_answer answer;
	size_t room, header_bytes;
	bool too_long, no_memory;
	char refused[300]; /* what address_check() said of the last address */
};

/* curl's callbacks: @arg is the struct flight */
size_t answer_body(char *p, size_t one, size_t len, void *arg);
size_t answer_header(char *p, size_t one, size_t len, void *arg);

#endif
