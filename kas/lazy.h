/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The libraries that only a KAS needs.  They bring thirty others and initialise themselves, which cost every command 5 ms and every mount
 * 4.5 MiB, so they are loaded when a KAS is asked or served, or a token read, for the first time, and stay.
 */
#ifndef TDFS_LAZY_H
#define TDFS_LAZY_H

#include "defs.h"

/** lazy_curl() - load libcurl and initialise it, unless that was done; lazy_jose() - libjose; lazy_httpd() - libmicrohttpd
 * Return: 0; -ELIBACC: it is not there or not whole, fail() names it, the cause and the package; the same for every later call.
 * Blocks for reading it.  Thread-safe. */
int lazy_curl(void) MUST_CHECK;
int lazy_jose(void) MUST_CHECK;
int lazy_httpd(void) MUST_CHECK;

#endif
