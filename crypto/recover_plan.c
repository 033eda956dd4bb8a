/* SPDX-License-Identifier: Apache-2.0 */
/* Deciding what has to be done to one store file, and making the sealed state of a COMMIT that was never sealed. */
#include <errno.h>

#include "recover_int.h"
#include "report.h"
#include "tail.h"

bool base_same(const struct base *a, const struct base *b)
{
#ifdef TEST_NO_G_ONLY
	return a->generation == b->generation;
#else
	return a->generation == b->generation && !memcmp(a->content_id, b->content_id, ID_LEN) && !memcmp(a->file_id, b->file_id, ID_LEN);
#endif
}

static struct base seal_target(const struct redo_rec *r)
{
	struct base b = {.generation = r->seal.generation};

	memcpy(b.file_id, r->base.file_id, ID_LEN);
	memcpy(b.content_id, r->seal.content_id, ID_LEN);
	return b;
}

static int read_header(const struct io *io, int fd, const struct recover_keys *keys, struct plan *p)
{
	uint8_t sector[SECTOR];
	struct stat s;
	int err = io->stat(io->ctx, fd, &s);

	if (!err && s.st_size < SECTOR)
		err = fail(-EUCLEAN, "the store file has no header");
	if (!err)
		err = io_pread_full(io, fd, sector, SECTOR, 0);
	if (!err)
		err = record_parse(sector, keys->k_rec, &p->rec, &p->crc);
	if (!err && memcmp(p->rec.volume_id, keys->volume_id, ID_LEN))
		err = fail(-EBADMSG, "the header names another volume");
	if (err)
		return err;
	p->len = (uint64_t)s.st_size;
	p->mtime = s.st_mtim;
	p->ctime = s.st_ctim;
	return 0;
}

int plan_make(const struct io *io, int fd, const struct recover_keys *keys, const struct file *f, const struct target *t, struct plan *ret)
{
	struct plan p = {.file = f, .target = t};
	const struct log_rec *images = f->recs;
	bool known = false; /* something in the log is about the present state */
	struct base cur = {0};
	int err = read_header(io, fd, keys, &p);

	if (err)
		return err;
	p.steps = calloc(f->n + 1, sizeof(*p.steps));
	if (!p.steps)
		return -ENOMEM;
	memcpy(cur.file_id, f->id, ID_LEN);
	memcpy(cur.content_id, p.rec.content_id, ID_LEN);
	cur.generation = p.rec.state == RECORD_SEALED || p.rec.state == RECORD_LIVE ? p.rec.generation : UINT64_MAX;
	p.since = images;
	for (size_t i = 0; i < f->n; i++) {
		const struct log_rec *r = &f->recs[i];
		bool mine = base_same(&r->rec.base, &cur);

		known |= mine;
		if (r->rec.type == REDO_SEAL) {
			struct base to = seal_target(&r->rec);

			/* in place perhaps, perhaps in part only: once more does no harm */
			if (mine || base_same(&to, &cur)) {
				p.steps[p.n_steps++] = (struct redo_step){&r->rec, images, (size_t)(r - images)};
				cur = to;
				p.commit = NULL;
				p.intent = NULL;
				p.since = r + 1;
				known = true;
			} else {
				p.stale++;
			}
			images = r + 1;
		} else if (!mine) {
			p.stale++;
		} else if (r->rec.type == REDO_COMMIT) {
			p.commit = r;
		} else if (r->rec.type == REDO_INTENT) {
			p.intent = &r->rec;
		} else if (r->rec.type == REDO_VOID) {
			p.give_up = f->exact || !*find_hint(f); /* a copy with the same ids keeps what it has; the engine always says which inode it means */
			p.n_steps = 0;
			p.commit = NULL;
			cur.generation = UINT64_MAX;
		}
	}
	p.logged = p.n_steps;
	if (!p.n_steps && !p.commit && !p.give_up) {
		p.unmark = p.rec.state == RECORD_LIVE && known;
		p.cut = p.intent && p.intent->intent.sealed_len < p.len && p.intent->intent.sealed_len > p.rec.tail_off;
		p.cut_to = p.cut ? p.intent->intent.sealed_len : 0;
	}
	*ret = p;
	return 0;
}

bool plan_idle(const struct plan *p)
{
	return !p->n_steps && !p->commit && !p->give_up && !p->cut && !p->unmark;
}

void plan_free(struct plan *p)
{
	free(p->steps);
	free(p->built_tail);
	*p = (struct plan){0};
}

/* The sealed state that a left-over COMMIT changes. */
struct old {
	struct record rec;
	uint32_t crc;
	struct tail_template *tmpl;
	uint8_t *tags;
};

static void old_free(struct old *o)
{
	tail_template_free(o->tmpl);
	free(o->tags);
}

static int old_tail_in_place(const struct io *io, int fd, const struct plan *p, uint8_t **ret, uint64_t *ret_len)
{
	/* growth in place may stand behind it; INTENT says where the sealed file ends */
	uint64_t end = p->intent ? p->intent->intent.sealed_len : p->len;
	CLEANUP_FREE uint8_t *tail = NULL;
	int err;

	if (end > p->len || end <= p->rec.tail_off)
		return fail(-EUCLEAN, "the store file is shorter than its sealed length");
	tail = malloc(end - p->rec.tail_off);
	if (!tail)
		return -ENOMEM;
	err = io_pread_full(io, fd, tail, end - p->rec.tail_off, p->rec.tail_off);
	if (err)
		return err;
	*ret_len = end - p->rec.tail_off;
	*ret = STEAL(tail);
	return 0;
}

static int old_load(const struct io *io, int log_dir, int fd, const struct recover_keys *keys, const struct plan *p, struct old *ret)
{
	CLEANUP_FREE uint8_t *tail = NULL;
	uint8_t root[MAC_LEN];
	bool in_place = true;
	uint64_t len = 0;
	int err = 0;

	ret->rec = p->rec;
	ret->crc = p->crc;
	if (p->n_steps) {
		const struct redo_rec *seal = p->steps[p->n_steps - 1].seal;

		len = seal->seal.tail_len;
		err = record_parse(seal->seal.sector, keys->k_rec, &ret->rec, &ret->crc);
		if (!err)
			err = apply_tail(io, log_dir, seal, &tail);
		in_place = err == -ENOENT; /* dropped because this state is in place and synced */
		err = in_place ? 0 : err;
	}
	if (!err && in_place)
		err = old_tail_in_place(io, fd, p, &tail, &len);
	if (!err)
		err = tail_parse(tail, len, ret->rec.size, ret->rec.s, ret->crc, &ret->tmpl, &ret->tags, root);
	if (!err && memcmp(root, ret->rec.content_id, ID_LEN))
		err = fail(-EBADMSG, "manifest and header of the sealed state do not belong together");
	return in_place && (err == -EBADMSG || err == -EPROTO) ? -EUCLEAN : err;
}

struct tags {
	uint8_t *tag;
	bool *have;
	uint64_t room;
};

static void tags_free(struct tags *t)
{
	free(t->tag);
	free(t->have);
}

static void tag_set(struct tags *t, uint64_t seg, const uint8_t *tag)
{
	if (seg >= t->room)
		return; /* beyond every committed size */
	memcpy(t->tag + seg * AEAD_TAG, tag, AEAD_TAG);
	t->have[seg] = true;
}

/* Room for the largest committed size; one that the records cannot fill is refused before memory is taken. */
static int tags_start(const struct plan *p, const struct old *o, const struct base *base, struct tags *ret)
{
	uint64_t n = seg_count(o->rec.size, o->rec.s), given = n, room = n;

	for (const struct log_rec *r = p->since; r <= p->commit; r++) {
		if (!base_same(&r->rec.base, base))
			continue;
		if (r->rec.type == REDO_IMAGE)
			given++;
		else if (r->rec.type == REDO_PLACE)
			given += r->rec.place.count;
		else if (r->rec.type == REDO_COMMIT)
			room = MAX(room, seg_count(r->rec.commit.size, o->rec.s));
	}
	if (room > given)
		return fail(-EBADMSG, "the log commits more segments than it names");
	ret->tag = reallocarray(NULL, room, AEAD_TAG);
	ret->have = calloc(room, sizeof(bool));
	ret->room = room;
	if (!ret->tag || !ret->have)
		return -ENOMEM;
	for (uint64_t i = 0; i < n; i++)
		tag_set(ret, i, o->tags + i * AEAD_TAG);
	return 0;
}

static int tags_patch(const struct plan *p, const struct old *o, const struct base *base, struct tags *t)
{
	uint64_t n = 0;

	for (const struct log_rec *r = p->since; r <= p->commit; r++) {
		if (!base_same(&r->rec.base, base))
			continue;
		if (r->rec.type == REDO_IMAGE) {
			tag_set(t, r->rec.image.seg, r->tag);
		} else if (r->rec.type == REDO_PLACE) {
			for (uint32_t i = 0; i < r->rec.place.count; i++)
				tag_set(t, r->rec.place.first + i, r->rec.place.raw + (size_t)20 * i + 4);
		} else if (r->rec.type == REDO_COMMIT) {
			n = seg_count(r->rec.commit.size, o->rec.s);
			memset(t->have + n, 0, (t->room - n) * sizeof(bool)); /* what was cut off does not come back */
		}
	}
	for (uint64_t i = 0; i < n; i++)
		if (!t->have[i])
			return fail(-EBADMSG, "the log does not name segment %llu of the state that it commits", (unsigned long long)i);
	return 0;
}

static int built_sector(const struct recover_keys *keys, struct plan *p, struct record *r)
{
	const struct redo_rec *c = &p->commit->rec;

	r->state = RECORD_SEALED;
	r->generation++;
	memcpy(r->content_id, c->commit.root, ID_LEN);
	r->size = c->commit.size;
	r->tail_off = tail_offset(r->size, r->s);
	r->invocations = MAX(r->invocations, c->commit.invocations);
	r->mtime = c->commit.mtime;
	r->ctime = c->commit.ctime;
	clock_gettime(CLOCK_REALTIME, &r->made);
	/* r->seal stays: identity, key access, policy and data key are those of the base */
	return record_sector(r, c->commit.crc, keys->k_rec, p->built_sector);
}

int plan_build(const struct io *io, int log_dir, int fd, const struct recover_keys *keys, struct plan *p)
{
	const struct redo_rec *c = &p->commit->rec;
	CLEANUP(old_free) struct old o = {0};
	CLEANUP(tags_free) struct tags t = {0};
	struct record r;
	uint64_t len;
	int err = old_load(io, log_dir, fd, keys, p, &o);

	if (!err)
		err = tags_start(p, &o, &c->base, &t);
	if (!err)
		err = tags_patch(p, &o, &c->base, &t);
	if (err)
		return err;
	r = o.rec;
	len = tail_len(o.tmpl, c->commit.size);
	p->built_tail = malloc(len);
	if (!p->built_tail)
		return -ENOMEM;
	tail_build(o.tmpl, c->commit.size, t.tag, c->commit.root, c->commit.crc, p->built_tail);
	memcpy(p->built_root, c->commit.root, MAC_LEN);
	err = built_sector(keys, p, &r);
	if (err)
		return err;
	p->built = (struct redo_rec){.type = REDO_SEAL, .base = c->base};
	p->built.seal.generation = r.generation;
	p->built.seal.content_id = p->built_root;
	p->built.seal.final_len = r.tail_off + len;
	p->built.seal.mtime = r.mtime;
	p->built.seal.tail_off = r.tail_off;
	p->built.seal.tail_len = len;
	p->built.seal.sector = p->built_sector;
	p->built.seal.tail = p->built_tail;
	p->steps[p->n_steps++] = (struct redo_step){&p->built, p->since, (size_t)(p->commit - p->since)};
	return 0;
}
