/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random bytes (FORMAT.md section 6).
 *
 * OpenSSL keeps one DRBG per thread for public values (IVs, ids) and one for secrets.  Every request carries what distinguishes this moment
 * from any other as additional input: a restored virtual machine snapshot or an unnoticed copy of the process has the same DRBG state, but
 * not the same time.  That is why nothing is drawn in advance.
 */
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <time.h>

#include "aead.h"
#include "lock.h"
#include "random.h"
#include "report.h"

#define RESEED_REQUESTS (1u << 20)
#define RESEED_SECONDS 60
#define REQUEST_MAX ((size_t)1 << 16) /* what every DRBG gives at once */

struct moment { /* the additional input; small, because the DRBG's derivation function makes its length the greater part of the cost */
	uint64_t realtime, counter;
	uint32_t pid, tid;
	uint8_t boot_id[16];
};

static uint8_t boot_id[16]; /* written once, by random_setup() */
static pthread_once_t random_once = PTHREAD_ONCE_INIT;
static _Thread_local uint32_t my_pid, my_tid; /* 0: not asked yet in this process */

/* OpenSSL's generators find out about a fork by themselves; this is for the additional input only. */
static void after_fork(void)
{
	my_pid = 0;
}

static bool drbg_setup(EVP_RAND_CTX *drbg)
{
	unsigned requests = RESEED_REQUESTS;
	time_t seconds = RESEED_SECONDS;
	OSSL_PARAM params[] = {
	    OSSL_PARAM_construct_uint(OSSL_DRBG_PARAM_RESEED_REQUESTS, &requests),
	    OSSL_PARAM_construct_time_t(OSSL_DRBG_PARAM_RESEED_TIME_INTERVAL, &seconds),
	    OSSL_PARAM_construct_end(),
	};

	return EVP_RAND_CTX_set_params(drbg, params) == 1;
}

static void random_setup(void)
{
	CLEANUP_FD int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	uint8_t text[37], hash[32];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
	EVP_RAND_CTX *primary = RAND_get0_primary(NULL);
	time_t seconds = RESEED_SECONDS;
	OSSL_PARAM params[] = {
	    OSSL_PARAM_construct_time_t(OSSL_DRBG_PARAM_RESEED_TIME_INTERVAL, &seconds),
	    OSSL_PARAM_construct_end(),
	};

	/* without /proc one of several distinguishing inputs is missing, that is all */
	if (n > 0 && sha256(&(struct part){text, (size_t)n}, 1, hash) == 0)
		memcpy(boot_id, hash, sizeof(boot_id));
	(void)pthread_atfork(NULL, NULL, after_fork);
	/* the threads' generators reseed from this one, so it has to fetch from the kernel as often; if it refuses, it keeps its own
	 * shorter request limit */
	if (primary)
		(void)EVP_RAND_CTX_set_params(primary, params);
}

static uint64_t cycle_counter(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t v;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
	return v;
#else
	return 0;
#endif
}

static void moment_now(struct moment *m)
{
	struct timespec ts = {0, 0};

	(void)clock_gettime(CLOCK_REALTIME, &ts); /* cannot fail for this clock; zero would be one input less */
	m->realtime = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	m->counter = cycle_counter();
	if (!my_pid) {
		my_pid = (uint32_t)getpid();
		my_tid = (uint32_t)syscall(SYS_gettid);
	}
	m->pid = my_pid;
	m->tid = my_tid;
	memcpy(m->boot_id, boot_id, sizeof(boot_id));
}

static int drbg_fill(EVP_RAND_CTX *drbg, void *p, size_t len)
{
	uint8_t *out = p;

	while (len) {
		size_t n = MIN(len, REQUEST_MAX);
		struct moment m;

		moment_now(&m);
		if (EVP_RAND_generate(drbg, out, n, 0, 0, (const unsigned char *)&m, sizeof(m)) != 1) {
			wipe(p, (size_t)(out - (uint8_t *)p));
			return fail(-EIO, "the random generator failed: no randomness, nothing is written");
		}
		out += n;
		len -= n;
	}
	return 0;
}

/* @known: the generator of this thread that has its limits already */
static int fill(EVP_RAND_CTX *drbg, EVP_RAND_CTX **known, void *p, size_t len)
{
	if (!drbg || pthread_once(&random_once, random_setup))
		return fail(-EIO, "the random generator could not be set up: nothing is written");
	if (drbg != *known) {
		if (!drbg_setup(drbg))
			return fail(-EIO, "the random generator could not be set up: nothing is written");
		*known = drbg;
	}
	return drbg_fill(drbg, p, len);
}

int random_bytes(void *p, size_t len)
{
	static _Thread_local EVP_RAND_CTX *known;

	return fill(RAND_get0_public(NULL), &known, p, len);
}

int random_private(void *p, size_t len)
{
	static _Thread_local EVP_RAND_CTX *known;

	return fill(RAND_get0_private(NULL), &known, p, len);
}

struct secret *secret_random(void)
{
	struct secret *s = secret_new();

	if (s && random_private(s->b, SECRET_LEN)) {
		secret_free(s);
		return NULL;
	}
	return s;
}
