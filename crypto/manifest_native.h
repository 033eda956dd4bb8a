/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native layout of the manifest (FORMAT.md section 4): one writer and one fixed-stride scanner.  Pure; thread-safe.  For tail.c,
 * manifest.c and container.c only.
 */
#ifndef TDFS_MANIFEST_NATIVE_H
#define TDFS_MANIFEST_NATIVE_H

#include "manifest.h"
#include "segmap.h"

struct native_manifest {        /* texts point into the manifest scanned */
	struct part key_access; /* from [ to ] */
	struct part policy;     /* without quotes */
	uint32_t s;
	uint64_t n_segs, size;
	uint8_t root[MAC_LEN];
	uint8_t *tags; /* malloc'd, n_segs * AEAD_TAG; the caller frees it */
};

/** native_len() - length of the manifest text that native_write() writes */
uint64_t native_len(size_t key_access_len, size_t policy_len, uint32_t s, uint64_t size);
/** native_write() - the text; no NUL is added.  Return: the end of it */
uint8_t *native_write(struct part key_access, struct part policy, uint32_t s, uint64_t size, const uint8_t *tags,
		      const uint8_t root[static MAC_LEN], uint8_t *ret);
/** native_scan() - exactly what native_write() writes for these values; 0; -EPROTO another layout; -ENOMEM */
int native_scan(const char *text, size_t len, struct native_manifest *ret) MUST_CHECK;
/** native_key_access() - m->ka and m->n_ka from a keyAccess array of one object with the layout that kas_wrap() writes, which every file has
 * whose key no others share: the general parser takes longer than all that is decrypted of a small file.  0; -ENOENT another layout, @m is
 * as it was; -ENOMEM */
int native_key_access(struct part array, struct manifest *m) MUST_CHECK;
/** native_manifest_of() - struct manifest of a scanned text; takes @n->tags over when it succeeds; 0, -EPROTO, -ENOTSUP, -ENOMEM */
int native_manifest_of(struct native_manifest *n, struct manifest **ret) MUST_CHECK;

#endif
