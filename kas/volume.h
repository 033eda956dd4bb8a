/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume: STORE/.tdfs with volume.json (+ .bak), the embedded KAS's key and the log; created, opened, locked, its slots changed.
 *
 * volume.json is authenticated whole: it ends in `"mac":"<64 hex>"}` and a newline, the MAC (K_conf) covers every byte before the 64.  If it is damaged the second copy is used and
 * that is reported.  Changes are written with io_replace(), .bak first, so a crash leaves the old or the new state.
 */
#ifndef TDFS_VOLUME_H
#define TDFS_VOLUME_H

#include "kas.h"
#include "record.h"
#include "slot.h"

struct volume_remote;
struct volume_plan;

#define VOLUME_POLICIES_MAX 256
struct volume_policy {
	char *dir;    /* path from the store's root, as stored; of a directory or of a file */
	char *policy; /* base64 */
};

#define TDFS_DIR ".tdfs"
#define VOLUME_CONVERT_DIR "convert" /* in it: what the converter keeps */
#define VOLUME_NAMES_MARK VOLUME_CONVERT_DIR "/names-plain" /* there: names of folders, links and devices are spelled as the user does, not as a store does */

struct volume {
	char *path;   /* of the store, absolute */
	int store_fd; /* O_DIRECTORY, kept open */
	int dir_fd;   /* STORE/.tdfs */
	int lock_fd;  /* -1 until volume_lock() */

	/* from volume.json, fixed after opening */
	uint8_t id[ID_LEN];
	uint32_t segment_size;
	uint64_t log_half;
	int64_t created; /* seconds */
	char *policy;  /* base64 of the default policy */
	struct volume_policy *policies; /* of directories that have one of their own */
	size_t n_policies;
	char *kas_kid; /* embedded KAS: the key that new files are wrapped for */
	char **kas_old; /* kids of retired ones, which still open files */
	size_t n_kas_old;
	char *kas_url; /* written into key access objects */
	struct volume_remote *remotes; /* KASes elsewhere that are trusted, volume_remote.h; owned */
	size_t n_remotes;
	struct volume_plan *plans; /* policies whose files are made for keys of their own, volume_remote.h; owned */
	size_t n_plans;
	struct volume_remote_use *remote_uses; /* what kas has of them; owned */
	int kas_split; /* of new files' keys, the share that the embedded KAS opens; -1: none.  0 without remote KASes */
	char *names;   /* "plain" */
	struct slot *slots;
	size_t n_slots;
	bool from_backup; /* volume.json was damaged, .bak was used */

	struct secret *vk, *k_seal, *k_hint, *k_rec, *k_conf, *k_log, *k_kas; /* owned */
	struct kas *kas;						      /* embedded keys added; owned */
};

struct volume_params { /* zero = default */
	uint32_t segment_size;
	uint64_t log_half;
	const char *kas_url;
	const struct volume_remote *remote; /* a remote KAS that new files are made for, instead of the embedded one; copied */
	unsigned scrypt_log_n;
	char recovery[RECOVERY_TEXT]; /* out: the recovery key, to be shown once; wipe it.  Empty when no recovery slot was wanted */
	bool no_recovery;
	bool in_place; /* the store may hold files already: `tdfs convert in --in-place` seals them */
};

/** volume_create() - make STORE (if absent) and STORE/.tdfs: new VK, slots for @first and a recovery key, embedded KAS key, log of zeros
 * Refuses: a store that has a .tdfs (-EEXIST), a store inside another volume (-ELOOP), a store path that is a symlink (-ELOOP), a directory with files in it (-ENOTEMPTY, unless @par says in_place).
 * On failure everything it made is removed again.  Blocks: disk, KDF.  fail() tells. */
int volume_create(const char *store, struct volume_params *par, const struct credential *first) MUST_CHECK;

/** volume_open() - open STORE with a credential
 * Checks before anything is believed: STORE and .tdfs are directories and no symlinks, owner = effective uid (or root), not writable by group or others, modes of the files in .tdfs.
 * Return: 0; -ENOENT no volume here; -EKEYREJECTED no slot opens with it; -EBADMSG volume.json and .bak both damaged; -EPERM owner or mode;
 * -ENOTSUP a later version; -EPROTO a mistyped recovery key; -errno.  fail() tells. */
int volume_open(const char *store, const struct credential *c, struct volume **ret) MUST_CHECK;
/** volume_peek() - what can be told without a credential (id, version, slots; unauthenticated): vk and the derived keys stay NULL */
int volume_peek(const char *store, struct volume **ret) MUST_CHECK;
/** volume_peek_backup() - the same of the second copy of volume.json, if it says something else than the first; -ENOENT it does not */
int volume_peek_backup(const char *store, struct volume **ret) MUST_CHECK;
void volume_free(struct volume *v);
static inline void volume_cleanup(struct volume **v)
{
	volume_free(*v);
}

/** volume_find() - walk up from @path to the directory that holds .tdfs; malloc'd path in @ret; -ENOENT */
int volume_find(const char *path, char **ret) MUST_CHECK;

/** volume_lock() - one daemon or writing command per store: flock on .tdfs/lock, our pid written into it
 * @wait_ms: how long to wait for another that is leaving.  0; -EBUSY with the holder's pid in @ret_pid; -EROFS; -errno */
int volume_lock(struct volume *v, int wait_ms, pid_t *ret_pid) MUST_CHECK;
/** volume_lock_shared() - for processes that share the work of one job among them; keeps everybody else out */
int volume_lock_shared(struct volume *v, int wait_ms, pid_t *ret_pid) MUST_CHECK;
/** volume_lock_sign() - a child took the lock over: its pid goes into the file; 0 or -errno */
int volume_lock_sign(const struct volume *v) MUST_CHECK;

/** Slots: written at once, crash-safe, O(1), also while another process has the volume mounted or changes a slot.  -ENOSPC all slots used, -ENOENT no such slot,
 * -EBUSY the very last slot, or without @force the last that is neither a recovery key nor a KAS's, -EINVAL and -EPROTO the credential (slot_make()), -EBADMSG both copies damaged meanwhile
 * @label: "" = the name of its kind */
int volume_slot_add(struct volume *v, const struct credential *c, const char *label, unsigned log_n, uint8_t *ret_id) MUST_CHECK;
/** volume_slot_add_kas() - @s: of slot_kas_make(); taken over, also on failure */
int volume_slot_add_kas(struct volume *v, struct slot *s, const char *label, uint8_t *ret_id) MUST_CHECK;
int volume_slot_remove(struct volume *v, uint8_t id, bool force) MUST_CHECK;
int volume_slot_change(struct volume *v, uint8_t id, const struct credential *c, unsigned log_n) MUST_CHECK;

/** The embedded KAS's keys and the policy of new files.  The caller holds volume_lock(): a mounted daemon would go on with the old ones.
 * volume_kas_rotate(): a fresh key for new files, the old one is retired.  -ENOSPC too many retired ones
 * volume_kas_add_rsa(): a fresh RSA key beside it, for clients of `tdfs kas serve` that wrap with nothing else; it stands among the retired ones,
 * as tdfs itself makes no files for it.  It is the last in v->kas_old then.  -ENOSPC
 * volume_kas_forget(): a retired key is destroyed; files wrapped for it alone cannot be opened any more.  -ENOENT; -EINVAL it is the present one
 * volume_policy_set(): of new files below @dir ("": everywhere; or the stored path of a file: of that one), @text: a policy as JSON, NULL: again that of the directory above;
 * -EPROTO it is none; -EFBIG; -EINVAL @dir; -ENOSPC 256
 * paths have one.  All: -EBADMSG both copies damaged, -errno */
int volume_kas_rotate(struct volume *v) MUST_CHECK;
int volume_kas_add_rsa(struct volume *v) MUST_CHECK;
int volume_kas_forget(struct volume *v, const char *kid) MUST_CHECK;
int volume_policy_set(struct volume *v, const char *dir, const char *text, size_t len) MUST_CHECK;
/** volume_policy_at() - the policy of a new file at @path (from the store's root, as stored): its own, else of the nearest directory that has one.  Borrowed
 * volume_policy_own() - what was set for @path (of a file or directory) itself; NULL: nothing.  Borrowed */
const char *volume_policy_at(const struct volume *v, const char *path);
const char *volume_policy_own(const struct volume *v, const char *path);

/** volume_backup() / volume_restore() - volume.json and kas/ in one file, still wrapped and authenticated; restore refuses to replace another volume's (-EEXIST) without @force
 * and never touches a log that is there.  The backup is opened with @c before anything is replaced; a store without .tdfs gets one with an empty log.  -EINVAL the backup would lie in
 * the volume itself, -EPROTO not a backup, -EBUSY mounted, and as volume_open() */
int volume_backup(struct volume *v, const char *file) MUST_CHECK;
int volume_restore(const char *store, const char *file, const struct credential *c, bool force) MUST_CHECK;

#endif
