/* SPDX-License-Identifier: Apache-2.0 */
/* Whose is a file that stands where one is needed?  Decided by MACs, never by name or magic. */
#include <errno.h>
#include <sys/xattr.h>

#include "convert_file.h"
#include "report.h"

#define TAIL_SEARCH 65536u  /* a header, policy and key access longer than that are not ours */
#define MARK_LEN UINT64_MAX /* no file is so long: keeps a mark apart from a hint */

static int sample_make(struct sealer *s)
{
	CLEANUP_FREE char *key_access = NULL;
	struct secret *dek CLEANUP_SECRET = NULL;
	int err;

	if (s->sample)
		return 0;
	dek = secret_random();
	err = dek ? kas_wrap(s->v->kas, dek, s->v->policy, &key_access) : -EIO;
	if (!err)
		s->sample = tail_template_new(s->v->segment_size, key_access, s->v->policy);
	return s->sample ? 0 : err ? err : -ENOMEM;
}

/*
 * The hint's MAC covers the length that the whole file has.  A file that lost its content with the power has another one, so the right
 * one is looked for; it costs milliseconds and happens only to such files.
 */
static bool hint_of_some_length(struct sealer *sealer, const uint8_t *raw, uint64_t len, struct hint *ret)
{
	const struct volume *v = sealer->v;
	uint64_t size = get_le64(raw + ID_LEN);

	if (hint_parse(raw, HINT_LEN, len, v->k_hint, ret) == 0)
		return true;
	if (size > PLAIN_MAX || sample_make(sealer))
		return false;
	/* what this run would write; then what was written under another key or policy */
	for (uint32_t s = v->segment_size; s <= SEG_MAX; s *= 4) {
		sealer->sample->s = s;
		if (hint_parse(raw, HINT_LEN, tail_offset(size, s) + tail_len(sealer->sample, size), v->k_hint, ret) == 0)
			return true;
	}
	for (uint32_t s = v->segment_size; s <= SEG_MAX; s *= 4) {
		uint64_t tail = tail_offset(size, s), manifest = seg_count(size, s) * 88;

		/* the segment list has a known length but for the digits of three numbers */
		for (uint64_t end = tail + manifest / 2; end < tail + manifest + TAIL_SEARCH; end++) {
			if (seg_count(size, s) > 4096)
				break;
			if (hint_parse(raw, HINT_LEN, end, v->k_hint, ret) == 0)
				return true;
		}
	}
	return false;
}

static bool is_torn(struct sealer *s, int fd, uint64_t len, struct record *ret_rec)
{
	uint8_t raw[HINT_LEN + 1];
	struct hint h;
	ssize_t n = fgetxattr(fd, HINT_XATTR, raw, sizeof(raw));

	if (n != HINT_LEN || !hint_of_some_length(s, raw, len, &h))
		return false;
	*ret_rec = (struct record){.size = h.size, .ctime = h.ctime, .generation = h.generation};
	memcpy(ret_rec->file_id, h.file_id, ID_LEN);
	return true;
}

int sibling_look(struct sealer *s, int fd, uint64_t len, enum sibling *ret, struct record *ret_rec)
{
	uint8_t sector[SECTOR];
	struct record r = {0};
	ssize_t n = pread(fd, sector, SECTOR, 0);
	int err;

	if (n < 0)
		return fail(-errno, "reading it: %s", strerror(errno));
	err = n == SECTOR ? record_own(sector, s->v->k_rec, s->v->id, &r, NULL) : -ENOENT;
	if (err == 0 && r.state >= RECORD_SEALED && len > r.tail_off) {
		*ret = SIBLING_SEALED;
		*ret_rec = r;
		return 0;
	}
	if (is_torn(s, fd, len, ret_rec))
		*ret = ret_rec->generation ? SIBLING_TORN : SIBLING_UNFINISHED; /* plain_file_born() */
	else if (err == 0 && r.state != RECORD_VOID) {
		*ret = r.state == RECORD_NEW ? SIBLING_UNFINISHED : SIBLING_DAMAGED; /* sealed and shorter than it says */
		*ret_rec = r;
	} else if (err == -EBADMSG || err == -EPROTO || err == -ENOTSUP)
		*ret = SIBLING_DAMAGED;
	else
		*ret = SIBLING_OTHER;
	return 0;
}

int stage_mark(const struct volume *v, int fd, const struct record *of)
{
	uint8_t mark[HINT_LEN];
	int err = hint_make(of, MARK_LEN, v->k_hint, mark);

	if (!err && fsetxattr(fd, HINT_XATTR, mark, HINT_LEN, 0))
		err = fail(-errno, "its " HINT_XATTR " attribute: %s", strerror(errno));
	return err;
}

bool stage_marked(const struct volume *v, int fd, const struct stat *s, const struct timespec *mtime)
{
	uint8_t raw[HINT_LEN + 1];
	struct hint h;
	ssize_t n = fgetxattr(fd, HINT_XATTR, raw, sizeof(raw));

	return n == HINT_LEN && !hint_parse(raw, HINT_LEN, MARK_LEN, v->k_hint, &h) && s->st_mtim.tv_sec == mtime->tv_sec &&
	       (s->st_mtim.tv_nsec == mtime->tv_nsec || !s->st_mtim.tv_nsec); /* some file systems keep seconds alone */
}
