/* SPDX-License-Identifier: Apache-2.0 */
#include "slot.h"

#include <errno.h>
#include <time.h>

#include "kdf.h"
#include "recovery_key.h"
#include "report.h"

#define SCRYPT_R 8
#define SCRYPT_P_MAX 4
#define CALIBRATE_MAX 18 /* 256 MiB: no more by ourselves */
#define CALIBRATE_NS 1000000000ull
#define KEYFILE_MIN 16

void credential_free(struct credential *c)
{
	wipe(c->bytes, c->len);
	free(c->bytes);
	memset(c, 0, sizeof(*c));
}

void slot_clear(struct slot *s)
{
	manifest_free(s->kas);
	s->kas = NULL;
}

void slots_free(struct slot *s, size_t n)
{
	for (size_t i = 0; s && i < n; i++)
		slot_clear(&s[i]);
	free(s);
}

static uint64_t now_ns(void)
{
	struct timespec ts = {0, 0};

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The largest N that takes about a second and a tenth of the memory at most; never below 2^16 unless the machine is tiny. */
static int calibrate(unsigned *ret_log_n)
{
	uint64_t mem = (uint64_t)MAX(sysconf(_SC_PHYS_PAGES), 0L) * (uint64_t)sysconf(_SC_PAGESIZE);
	unsigned n = SCRYPT_LOGN_MIN, least = mem < (256u << 20) ? SCRYPT_LOGN_MIN : SCRYPT_LOGN_MIN + 1;
	struct part dummy = {"calibration", 11};
	CLEANUP_SECRET struct secret *key = secret_new();
	uint64_t took = now_ns();
	int err = key ? kdf_scrypt(dummy, dummy, SCRYPT_LOGN_MIN, SCRYPT_R, 1, key) : -ENOMEM;

	if (err)
		return err;
	took = now_ns() - took;
	while (n < CALIBRATE_MAX && took * 2 <= CALIBRATE_NS && (128ull * SCRYPT_R << (n + 1)) <= mem / 10) {
		took *= 2;
		n++;
	}
	*ret_log_n = MAX(n, least);
	return 0;
}

static int check_bounds(const struct slot *s)
{
	if (s->log_n < SCRYPT_LOGN_MIN || s->log_n > SCRYPT_LOGN_MAX || s->r != SCRYPT_R || s->p < 1 || s->p > SCRYPT_P_MAX)
		return fail(
		    -EPROTO,
		    "key slot %u asks for scrypt with N = 2^%u, r = %u, p = %u, outside 2^%d..2^%d, %d, 1..%d: it was not made by tdfs",
		    s->id, s->log_n, s->r, s->p, SCRYPT_LOGN_MIN, SCRYPT_LOGN_MAX, SCRYPT_R, SCRYPT_P_MAX);
	return 0;
}

/* The key that wraps VK in slot @s. */
static int slot_kek(const struct slot *s, const struct credential *c, struct secret *kek)
{
	struct part salt = {s->salt, sizeof(s->salt)};
	uint8_t bits[RECOVERY_BYTES];
	int err;

	switch (c->kind) {
	case SLOT_PASSPHRASE:
		err = check_bounds(s);
		return err ? err : kdf_scrypt((struct part){c->bytes, c->len}, salt, s->log_n, s->r, s->p, kek);
	case SLOT_KEYFILE:
		return hkdf((struct part){c->bytes, c->len}, salt, (struct part){"tdfs slot keyfile", 17}, kek->b, SECRET_LEN);
	case SLOT_RECOVERY:
		err = recovery_decode((const char *)c->bytes, c->len, bits);
		if (!err)
			err = hkdf((struct part){bits, sizeof(bits)}, salt, (struct part){"tdfs slot recovery", 18}, kek->b, SECRET_LEN);
		wipe(bits, sizeof(bits));
		return err;
	case SLOT_KAS:
	case SLOT_KEY:
		break;
	}
	return fail(-EINVAL, "no such kind of key slot");
}

int slot_make(struct slot *s, const struct credential *c, const struct secret *vk, unsigned log_n)
{
	CLEANUP_SECRET struct secret *kek = secret_new();
	struct slot made = {.id = s->id, .kind = c->kind, .created = time(NULL)};
	int err;

	if (!kek)
		return -ENOMEM;
	if (c->kind == SLOT_PASSPHRASE && !c->len)
		return fail(-EINVAL, "an empty passphrase protects nothing");
	if (c->kind == SLOT_KEYFILE && c->len < KEYFILE_MIN)
		return fail(-EINVAL, "a key file of %zu bytes is too short: use at least %d random bytes", c->len, KEYFILE_MIN);
	if (c->kind == SLOT_PASSPHRASE && log_n && (log_n < SCRYPT_LOGN_MIN || log_n > SCRYPT_LOGN_MAX))
		return fail(-EINVAL, "a scrypt cost of 2^%u: 2^%d to 2^%d are possible", log_n, SCRYPT_LOGN_MIN, SCRYPT_LOGN_MAX);
	memcpy(made.label, s->label, sizeof(made.label));
	if (c->kind == SLOT_PASSPHRASE) {
		err = log_n ? 0 : calibrate(&log_n);
		if (err)
			return err;
		made.log_n = log_n;
		made.r = SCRYPT_R;
		made.p = 1;
	}
	err = random_bytes(made.salt, sizeof(made.salt));
	if (!err)
		err = slot_kek(&made, c, kek);
	if (!err)
		err = aead_seal(kek, vk->b, SECRET_LEN, made.wrapped);
	if (!err)
		*s = made;
	return err;
}

int slot_open(const struct slot *s, const struct credential *c, struct secret **ret_vk)
{
	CLEANUP_SECRET struct secret *kek = NULL;
	CLEANUP_SECRET struct secret *vk = NULL;
	int err;

	if (s->kind != c->kind)
		return fail(-EKEYREJECTED, "the key slot is of another kind");
	kek = secret_new();
	vk = secret_new();
	if (!kek || !vk)
		return -ENOMEM;
	err = slot_kek(s, c, kek);
	if (!err)
		err = aead_open(kek, s->wrapped, sizeof(s->wrapped), NULL, vk->b);
	if (err == -EBADMSG)
		return fail(-EKEYREJECTED, "the passphrase or key is wrong");
	if (!err)
		*ret_vk = STEAL(vk);
	return err;
}
