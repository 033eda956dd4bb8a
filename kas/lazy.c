/* SPDX-License-Identifier: Apache-2.0 */
#include "lazy.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>

#include "lazy_i.h"
#include "lazy_soname.h" /* made by the build from what the linker found */
#include "lock.h"
#include "report.h"

/* tables and causes: written under pthread_once() only */
static struct curl_calls curl_table;
static struct jose_calls jose_table;
static struct mhd_calls mhd_table;
static char curl_cause[256], jose_cause[256], mhd_cause[256]; /* why not; "": all there */

const struct curl_calls *const curl_api = &curl_table;
const struct jose_calls *const jose_api = &jose_table;
const struct mhd_calls *const mhd_api = &mhd_table;

#define CURL_NAME(name) "curl_" #name,
#define JOSE_NAME(name) "jose_" #name,
#define MHD_NAME(name) "MHD_" #name,
static const char *const curl_names[] = {CURL_CALLS(CURL_NAME)}, *const jose_names[] = {JOSE_CALLS(JOSE_NAME)},
			 *const mhd_names[] = {MHD_CALLS(MHD_NAME)};

_Static_assert(sizeof(curl_table) == sizeof(curl_names) && sizeof(jose_table) == sizeof(jose_names) &&
		   sizeof(mhd_table) == sizeof(mhd_names) && sizeof(void *) == sizeof(void (*)(void)),
	       "a table is an array of pointers");

/* Symbols are bound now: a library that is not whole is found out here, not in the middle of a request. */
static void load(const char *soname, const char *const *names, size_t n, void *table, char *cause, size_t max)
{
	void *lib = dlopen(soname, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE), *p = lib;

	for (size_t i = 0; p && i < n; i++) {
		p = dlsym(lib, names[i]);
		memcpy((char *)table + i * sizeof(p), &p, sizeof(p));
	}
	if (!p) {
		const char *why = dlerror();

		snprintf(cause, max, "%s", why ? why : soname);
	}
}

/* Else whoever sets our environment gets the keys of our connections: read by curl_global_init(), and by GnuTLS at the first handshake. */
static void log_no_keys(void)
{
	(void)unsetenv("SSLKEYLOGFILE");
}

static void curl_start(void)
{
	load(CURL_SONAME, curl_names, ARRAY_SIZE(curl_names), &curl_table, curl_cause, sizeof(curl_cause));
	if (*curl_cause)
		return;
	log_no_keys();
	if (curl_api->global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		snprintf(curl_cause, sizeof(curl_cause), "it does not start");
}

static void jose_start(void)
{
	load(JOSE_SONAME, jose_names, ARRAY_SIZE(jose_names), &jose_table, jose_cause, sizeof(jose_cause));
}

static void httpd_start(void)
{
	log_no_keys();
	load(MHD_SONAME, mhd_names, ARRAY_SIZE(mhd_names), &mhd_table, mhd_cause, sizeof(mhd_cause));
}

static int verdict(const char *soname, const char *use, const char *cause, const char *package)
{
	if (!*cause)
		return 0;
	return fail(-ELIBACC, "%s, which %s with, cannot be loaded: %s (Debian: apt-get install --reinstall %s)", soname, use, cause,
		    package);
}

int lazy_curl(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	lock_check(pthread_once(&once, curl_start));
	return verdict(CURL_SONAME, "a KAS is asked", curl_cause, CURL_PACKAGE);
}

int lazy_jose(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	lock_check(pthread_once(&once, jose_start));
	return verdict(JOSE_SONAME, "tokens and keys of a KAS are read", jose_cause, JOSE_PACKAGE);
}

int lazy_httpd(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	lock_check(pthread_once(&once, httpd_start));
	return verdict(MHD_SONAME, "a KAS is served", mhd_cause, MHD_PACKAGE);
}
