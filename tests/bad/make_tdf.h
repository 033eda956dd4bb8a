/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes TDF files for tests: native ones as tdfs writes them, and foreign ones in every shape that other writers use or that an attacker
 * may try. Every function aborts if what it was asked to do to the file did not take.
 */
#ifndef TEST_MAKE_TDF_H
#define TEST_MAKE_TDF_H

#include "mem_io.h"
#include "secret.h"
#include "record.h"

struct keys_for_test {
	struct secret k_rec, k_seal;
	uint8_t volume_id[ID_LEN];
};
extern const struct keys_for_test test_keys;
extern const struct secret test_dek;
/* the two shares of foreign_opt.splits = 2: test_dek = shares[0] ^ shares[1] */
extern const struct secret test_shares[2];

/** plain_byte() - content of every test file */
uint8_t plain_byte(uint64_t i);

/** native_file() - a sealed file of @size bytes in segments of @s */
struct mem native_file(uint64_t size, uint32_t s);
/** native_reshaped() - the same with its manifest text edited: @from replaced by @to, zip headers made to fit */
struct mem native_reshaped(uint64_t size, uint32_t s, const char *from, const char *to);

struct foreign_opt { /* all zero: what Go writes without a descriptor; s and len must be given */
	size_t len;
	uint32_t s;
	/* manifest */
	bool hex, hs256, omit_sizes, bare_binding;
	bool no_segments; /* for len 0 */
	bool odd_sizes;   /* segments of s, s / 2, s / 2, s ... */
	unsigned splits;  /* 0: one key access object without sid */
	struct {
		const char *from, *to;
	} edit[2]; /* in the manifest text, after everything was signed */
	/* zip */
	bool zip64, descriptor, java_descriptor, deflate, manifest_first, comment, third_entry, many_entries;
	bool duplicate; /* 0.payload twice */
	bool overlap;   /* a third entry inside of 0.payload */
	uint16_t flags; /* or-ed into those of 0.payload */
	uint16_t payload_method;
};

/** foreign_file() */
struct mem foreign_file(const struct foreign_opt *o);
/** manifest_text() - the manifest that foreign_file() would put in, malloc'd */
char *manifest_text(const struct foreign_opt *o);

/** patch() - replace bytes at the only place where @from stands; aborts if it stands nowhere or twice */
void patch(struct mem *m, const void *from, const void *to, size_t len);

#endif
