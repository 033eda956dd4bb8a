/* SPDX-License-Identifier: Apache-2.0 */
/* What of libcurl, libjose and libmicrohttpd is called, typed by their own headers.  Private to kas/. */
#ifndef TDFS_LAZY_I_H
#define TDFS_LAZY_I_H

#include <curl/curl.h>
#include <jose/cfg.h>
#include <jose/jwk.h>
#include <jose/jws.h>
#include <jose/openssl.h>
#include <microhttpd.h>

/* without "curl_": curl's headers have macros of some of these names */
#define CURL_CALLS(X)     \
	X(global_init)    \
	X(easy_init)      \
	X(easy_cleanup)   \
	X(easy_reset)     \
	X(easy_setopt)    \
	X(easy_perform)   \
	X(easy_getinfo)   \
	X(easy_strerror)  \
	X(slist_append)   \
	X(slist_free_all) \
	X(getdate)

/* without "jose_" */
#define JOSE_CALLS(X)                \
	X(cfg)                       \
	X(cfg_set_err_func)          \
	X(cfg_decref)                \
	X(openssl_jwk_from_EVP_PKEY) \
	X(openssl_jwk_to_EVP_PKEY)   \
	X(jwk_thp)                   \
	X(jws_ver)

/* without "MHD_" */
#define MHD_CALLS(X)                     \
	X(start_daemon)                  \
	X(quiesce_daemon)                \
	X(stop_daemon)                   \
	X(get_connection_info)           \
	X(get_connection_values)         \
	X(lookup_connection_value)       \
	X(suspend_connection)            \
	X(resume_connection)             \
	X(create_response_from_buffer)   \
	X(create_response_from_callback) \
	X(add_response_header)           \
	X(add_response_footer)           \
	X(queue_response)                \
	X(destroy_response)

#define CURL_MEMBER(name) __typeof__(curl_##name) *name;
#define JOSE_MEMBER(name) __typeof__(jose_##name) *name;
#define MHD_MEMBER(name) __typeof__(MHD_##name) *name;
struct curl_calls {
	CURL_CALLS(CURL_MEMBER)
};
struct jose_calls {
	JOSE_CALLS(JOSE_MEMBER)
};
struct mhd_calls {
	MHD_CALLS(MHD_MEMBER)
};

/* whole once lazy_curl(), lazy_jose() or lazy_httpd() returned 0, never changed afterwards */
extern const struct curl_calls *const curl_api;
extern const struct jose_calls *const jose_api;
extern const struct mhd_calls *const mhd_api;

#endif
