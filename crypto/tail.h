/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tail of a native file: manifest entry, central directory, end records (FORMAT.md sections 1 and 4).
 *
 * A template is the part of the manifest that stays the same while a file's content changes.  Template and functions are pure and thread-safe; a template is immutable.
 */
#ifndef TDFS_TAIL_H
#define TDFS_TAIL_H

#include "manifest.h"
#include "segmap.h"

struct tail_template {
	uint32_t s;
	char *key_access; /* JSON array text */
	char *policy;	  /* base64 */
};

/** tail_template_new() - copies both strings; NULL if out of memory */
struct tail_template *tail_template_new(uint32_t s, const char *key_access, const char *policy) MUST_CHECK;
void tail_template_free(struct tail_template *t);

/** tail_len() - exact length of the tail of a file of @size plain bytes */
uint64_t tail_len(const struct tail_template *t, uint64_t size);

/** tail_build() - write the tail
 * @tags: seg_count(size, s) * 16 bytes; @crc: of the payload
 * @ret: tail_len() bytes */
void tail_build(const struct tail_template *t, uint64_t size, const uint8_t *tags, const uint8_t root[static MAC_LEN], uint32_t crc, uint8_t *ret);

/** tail_parse() - read the tail of a native file, byte-exact: what tail_build() would write for these values, or -EPROTO
 * @p: the whole tail; @size, @s: from the record; @crc: payload CRC from the first sector (must agree)
 * @ret_tags: malloc'd, seg_count * 16 bytes
 * Return: 0; -EPROTO; -ENOMEM.  No signature is checked here. */
int tail_parse(const uint8_t *p, size_t len, uint64_t size, uint32_t s, uint32_t crc, struct tail_template **ret, uint8_t **ret_tags,
	       uint8_t ret_root[static MAC_LEN]) MUST_CHECK;

/** tail_manifest() - where the manifest's text stands in a tail whose zip headers are exactly ours; the text itself is not looked at but for its CRC; 0 or -EPROTO */
int tail_manifest(const uint8_t *p, size_t len, uint64_t size, uint32_t s, uint32_t crc, struct part *ret) MUST_CHECK;

/** root_signature() - HMAC(DEK, all tags); 0 or -EIO */
int root_signature(const struct secret *dek, const uint8_t *tags, uint64_t n, uint8_t ret[static MAC_LEN]) MUST_CHECK;

#endif
