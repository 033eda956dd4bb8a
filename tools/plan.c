/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing plan.json, chunks and their MACs. */
#include "plan_i.h"

#include <jansson.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include "encode.h"
#include "report.h"

#define JSON_MAX ((size_t)1 << 20)
#define MAC_WORD "\tmac "

static const char *const verbs[] = {[CONVERT_IN] = "in", [CONVERT_OUT] = "out", [CONVERT_REWRAP] = "rewrap"};

void plan_head_free(struct plan_head *h)
{
	free(h->store);
	free(h->other);
	free(h->kas_kid);
	free(h->policy);
	*h = (struct plan_head){0};
}

void treeplan_free(struct plan *p)
{
	if (!p)
		return;
	plan_head_free(&p->head);
	close_fd(&p->run_dir);
	close_fd(&p->dir);
	secret_free(p->key);
	free(p->text);
	free(p->path);
	free(p);
}

static int plan_open(const char *path, struct plan **ret)
{
	struct plan *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->run_dir = -1;
	p->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	p->path = p->dir < 0 ? NULL : realpath(path, NULL);
	if (!p->path) {
		err = -errno;
		treeplan_free(p);
		return err;
	}
	*ret = p;
	return 0;
}

static int is_entry(void *arg, const char *name, unsigned char d_type, ino_t ino)
{
	return 1;
}

int treeplan_new(const char *path, struct plan **ret)
{
	static const char *const dirs[] = {"queue", "work", "done", "run"};
	struct plan *p = NULL;
	struct io io;
	int err;

	if (mkdir(path, 0700) && errno != EEXIST)
		return -errno;
	err = plan_open(path, &p);
	if (err)
		return err;
	io = io_posix(p->dir);
	if (io.list(io.ctx, p->dir, is_entry, NULL))
		err = fail(-ENOTEMPTY, "there is something in it already: a plan gets a directory of its own");
	for (size_t i = 0; !err && i < ARRAY_SIZE(dirs); i++)
		err = mkdirat(p->dir, dirs[i], 0700) ? -errno : 0;
	if (!err)
		err = random_bytes(p->head.id, ID_LEN);
	if (err)
		treeplan_free(p);
	else
		*ret = p;
	return err;
}

int treeplan_unlock(struct plan *p, const struct volume *v, bool check)
{
	uint8_t mac[MAC_LEN], had[MAC_LEN];
	char *at;
	int err;

	p->key = derive(v->vk, "convert plan");
	if (!p->key)
		return -ENOMEM;
	if (!check)
		return 0;
	if (memcmp(p->head.volume_id, v->id, ID_LEN) != 0)
		return fail(-EBADMSG, "the plan was made for another volume");
	at = p->text ? strrchr(p->text, '\n') : NULL;
	if (!at || hex_decode(at + 1, strlen(at + 1), had, MAC_LEN))
		return fail(-EBADMSG, "plan.json was edited: make a new plan");
	err = hmac_sha256(p->key->b, SECRET_LEN, &(struct part){p->text, (size_t)(at - p->text)}, 1, mac);
	if (!err && !equal_ct(mac, had, MAC_LEN))
		err = fail(-EBADMSG, "plan.json was edited: make a new plan");
	return err;
}

/* --- plan.json: a line of JSON, then its MAC --- */

int treeplan_write(struct plan *p)
{
	const struct plan_head *h = &p->head;
	char id[2 * ID_LEN + 1], volume[2 * ID_LEN + 1], hex[2 * MAC_LEN + 1];
	CLEANUP_FREE char *text = NULL;
	CLEANUP_FREE char *whole = NULL;
	struct io io = io_posix(p->dir);
	uint8_t mac[MAC_LEN];
	json_t *j;
	int err;

	hex_encode(h->id, ID_LEN, id);
	hex_encode(h->volume_id, ID_LEN, volume);
	j = json_pack("{s:i, s:s, s:s, s:s, s:b, s:b, s:b, s:b, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "tdfs_plan", 1, "id", id,
		      "volume_id", volume, "verb", verbs[h->verb], "in_place", h->in_place, "new_dek", h->new_dek, "keep_dek", h->keep_dek,
		      "cross", h->cross, "store", h->store, "other", h->other ? h->other : "", "kas_kid", h->kas_kid ? h->kas_kid : "",
		      "policy", h->policy ? h->policy : "", "root_ino", (json_int_t)h->root_ino, "chunks", (json_int_t)h->chunks, "files",
		      (json_int_t)h->files, "bytes", (json_int_t)h->bytes, "made", (json_int_t)h->made);
	text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	if (!text)
		return fail(-EINVAL, "a path that is not UTF-8 cannot stand in a plan");
	err = hmac_sha256(p->key->b, SECRET_LEN, &(struct part){text, strlen(text)}, 1, mac);
	if (err)
		return err;
	hex_encode(mac, MAC_LEN, hex);
	if (asprintf(&whole, "%s\n%s", text, hex) < 0)
		return -ENOMEM;
	if (syncfs(p->dir))
		return -errno;
	return io_replace(&io, p->dir, "plan.json", whole, strlen(whole), 0600);
}

static int text_take(const json_t *j, const char *name, char **ret)
{
	const char *s = json_string_value(json_object_get(j, name));

	if (!s)
		return -EPROTO;
	*ret = *s ? strdup(s) : NULL;
	return *s && !*ret ? -ENOMEM : 0;
}

static int head_take(const json_t *j, struct plan_head *h)
{
	const char *id = json_string_value(json_object_get(j, "id")), *volume = json_string_value(json_object_get(j, "volume_id")),
		   *verb = json_string_value(json_object_get(j, "verb"));
	size_t i = 0;
	int err;

	if (json_integer_value(json_object_get(j, "tdfs_plan")) != 1 || !id || !volume || !verb ||
	    hex_decode(id, strlen(id), h->id, ID_LEN) || hex_decode(volume, strlen(volume), h->volume_id, ID_LEN))
		return -EPROTO;
	while (i < ARRAY_SIZE(verbs) && strcmp(verbs[i], verb))
		i++;
	if (i == ARRAY_SIZE(verbs))
		return -EPROTO;
	h->verb = (enum convert_verb)i;
	h->in_place = json_is_true(json_object_get(j, "in_place"));
	h->new_dek = json_is_true(json_object_get(j, "new_dek"));
	h->keep_dek = json_is_true(json_object_get(j, "keep_dek"));
	h->cross = json_is_true(json_object_get(j, "cross"));
	h->root_ino = (uint64_t)json_integer_value(json_object_get(j, "root_ino"));
	h->chunks = (uint64_t)json_integer_value(json_object_get(j, "chunks"));
	h->files = (uint64_t)json_integer_value(json_object_get(j, "files"));
	h->bytes = (uint64_t)json_integer_value(json_object_get(j, "bytes"));
	h->made = (int64_t)json_integer_value(json_object_get(j, "made"));
	err = text_take(j, "store", &h->store);
	if (!err)
		err = text_take(j, "other", &h->other);
	if (!err)
		err = text_take(j, "kas_kid", &h->kas_kid);
	if (!err)
		err = text_take(j, "policy", &h->policy);
	return err ? err : h->store && (h->in_place || h->other) ? 0 : -EPROTO;
}

int treeplan_read(const char *path, struct plan **ret)
{
	struct plan *p = NULL;
	json_t *j;
	struct io io;
	size_t len;
	int err = plan_open(path, &p);

	if (err)
		return err;
	io = io_posix(p->dir);
	err = io_read_file(&io, p->dir, "plan.json", JSON_MAX, &p->text, &len);
	if (err) {
		treeplan_free(p);
		return err == -ENOENT ? fail(err, "no plan here: `tdfs convert plan` makes one (one that was interrupted has no plan.json)")
				      : err;
	}
	j = json_loadb(p->text, strcspn(p->text, "\n"), JSON_REJECT_DUPLICATES, NULL);
	err = head_take(j, &p->head);
	json_decref(j);
	if (err) {
		treeplan_free(p);
		return err == -EPROTO ? fail(err, "plan.json is damaged: make a new plan") : err;
	}
	*ret = p;
	return 0;
}

/* --- lists with a MAC as their last word --- */

static int list_mac(const struct plan *p, uint64_t index, const char *text, size_t len, char ret_hex[static 2 * MAC_LEN + 1])
{
	uint8_t number[8], mac[MAC_LEN];
	const struct part parts[] = {{p->head.id, ID_LEN}, {number, sizeof(number)}, {text, len}};
	int err;

	put_le64(number, index);
	err = hmac_sha256(p->key->b, SECRET_LEN, parts, 3, mac);
	if (!err)
		hex_encode(mac, MAC_LEN, ret_hex);
	return err;
}

#define DIRS_INDEX UINT64_MAX

static int list_write(struct plan *p, int dir, const char *name, uint64_t index, const char *text, size_t len)
{
	char word[sizeof(MAC_WORD) + 2 * MAC_LEN] = MAC_WORD;
	CLEANUP_FD int fd = -1;
	int err = list_mac(p, index, text, len, word + sizeof(MAC_WORD) - 1);
	struct io io = io_posix(p->dir);

	if (err)
		return err;
	fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (len)
		err = io_pwrite(&io, fd, text, len, 0);
	return err ? err : io_pwrite(&io, fd, word, sizeof(word), len);
}

/* @text as it was read: cut the MAC off. */
static int list_check(const struct plan *p, uint64_t index, char *text, size_t *len)
{
	const size_t word = sizeof(MAC_WORD) + 2 * MAC_LEN;
	char hex[2 * MAC_LEN + 1];
	size_t at = *len - word;
	int err;

	if (*len < word || text[*len - 1] || strncmp(text + at, MAC_WORD, sizeof(MAC_WORD) - 1) != 0 || (at && text[at - 1]))
		return fail(-EBADMSG, "a list of the plan was edited or cut: make a new plan");
	err = list_mac(p, index, text, at, hex);
	if (!err && !equal_ct(hex, text + at + sizeof(MAC_WORD) - 1, 2 * MAC_LEN))
		err = fail(-EBADMSG, "a list of the plan was edited or is another plan's: make a new plan");
	if (!err)
		*len = at;
	return err;
}

int plan_add_chunk(struct plan *p, const char *text, size_t len)
{
	CLEANUP_FD int dir = openat(p->dir, "queue", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char name[24];

	snprintf(name, sizeof(name), "%06" PRIu64, p->head.chunks);
	return dir < 0 ? -errno : list_write(p, dir, name, p->head.chunks++, text, len);
}

int plan_add_dirs(struct plan *p, const char *text, size_t len)
{
	return list_write(p, p->dir, "dirs", DIRS_INDEX, text, len);
}

int plan_list_read(const struct plan *p, int fd, uint64_t index, char **ret, size_t *ret_len)
{
	CLEANUP_FREE char *text = NULL;
	struct io io = io_posix(p->dir);
	struct stat st;
	size_t len;
	int err;

	if (fstat(fd, &st))
		return -errno;
	len = (size_t)st.st_size;
	text = malloc(len + 1);
	if (!text)
		return -ENOMEM;
	err = io_pread_full(&io, fd, text, len, 0);
	text[len] = 0;
	if (!err)
		err = list_check(p, index, text, &len);
	if (err)
		return err;
	*ret = STEAL(text);
	*ret_len = len;
	return 0;
}

int treeplan_dirs(struct plan *p, char **ret_text, size_t *ret_len)
{
	CLEANUP_FD int fd = openat(p->dir, "dirs", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : plan_list_read(p, fd, DIRS_INDEX, ret_text, ret_len);
}
