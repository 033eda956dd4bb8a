/* SPDX-License-Identifier: Apache-2.0 */
/* The program under the names that mount(8) and umount(8) call: mount.tdfs, mount.fuse.tdfs, umount.fuse.tdfs. */
#include "helper.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mount.h>

#include "commands.h"
#include "report.h"

/* exit codes of mount(8) */
#define MOUNT_USAGE 1
#define MOUNT_SYSTEM 2
#define MOUNT_USER 8
#define MOUNT_FAIL 32

static int mount_code(int code)
{
	switch (code) {
	case EXIT_TDFS_OK:
		return 0;
	case EXIT_TDFS_USAGE:
		return MOUNT_USAGE;
	case EXIT_TDFS_INTERRUPTED:
		return MOUNT_USER;
	default:
		return MOUNT_FAIL;
	}
}

struct helper {
	const char *name;      /* for messages */
	const char *letters;   /* flags that are only remembered */
	const char *options;   /* of -o, or NULL */
	const char *namespace; /* of -N */
	uint32_t flags;        /* bit 0 is 'a' */
	char *pos[2];
	int n_pos, n_pos_max;
	bool help, version;
};

static bool has(const struct helper *h, char letter)
{
	return h->flags & 1u << (letter - 'a');
}

/* -o and -N and -t take an argument, behind the letter or as the next word */
static int flag_word(struct helper *h, const char *word, char *next, bool *ret_used)
{
	for (const char *p = word + 1; *p; p++) {
		const char *value = p[1] ? p + 1 : next;

		if (*p >= 'a' && *p <= 'z' && strchr(h->letters, *p)) {
			h->flags |= 1u << (*p - 'a');
			continue;
		}
		if (!strchr("otN", *p)) {
			report(REPORT_ERROR, "%s: no option '-%c'; see '%s --help'", h->name, *p, h->name);
			return MOUNT_USAGE;
		}
		if (!value) {
			report(REPORT_ERROR, "%s: option '-%c' needs an argument", h->name, *p);
			return MOUNT_USAGE;
		}
		*ret_used = !p[1];
		if (*p == 'o')
			h->options = value;
		else if (*p == 'N')
			h->namespace = value;
		break;
	}
	return 0;
}

/* mount(8) puts the source first even where it looks like an option (a relative path in fstab), then the absolute mount point, then
 * options. */
static bool source_is_first(int argc, char **argv)
{
	return argc >= 3 && argv[1][0] == '-' && argv[2][0] == '/' && (argc == 3 || argv[3][0] == '-') && strcmp(argv[1], "-o") != 0 &&
	       strcmp(argv[1], "-t") != 0 && strcmp(argv[1], "-N") != 0;
}

static int helper_parse(struct helper *h, int argc, char **argv)
{
	bool words = true;
	int i = 1;

	if (h->n_pos_max == 2 && source_is_first(argc, argv))
		h->pos[h->n_pos++] = argv[i++];
	for (; i < argc; i++) {
		bool used = false;
		int code;

		if (words && strcmp(argv[i], "--") == 0) {
			words = false;
		} else if (words && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
			h->help = true;
			return 0;
		} else if (words && (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-V") == 0)) {
			h->version = true;
			return 0;
		} else if (words && argv[i][0] == '-' && argv[i][1]) {
			code = flag_word(h, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used);
			if (code)
				return code;
			i += used;
		} else if (h->n_pos == h->n_pos_max) {
			report(REPORT_ERROR, "%s: one argument too many: '%s'", h->name, argv[i]);
			return MOUNT_USAGE;
		} else {
			h->pos[h->n_pos++] = argv[i];
		}
	}
	return 0;
}

/* Another mount namespace cannot be entered here: the store's path, and everything else, is of this one. */
static int namespace_refuse(const struct helper *h)
{
	report(REPORT_ERROR, "%s: -N %s: run the whole command there instead: nsenter --mount=%s mount ...", h->name, h->namespace,
	       h->namespace);
	return MOUNT_USAGE;
}

int helper_mount(int argc, char **argv)
{
	struct helper h = {.name = "mount.tdfs", .letters = "sfnv", .n_pos_max = 2};
	char command[] = "mount", dash_o[] = "-o", end[] = "--";
	CLEANUP_FREE char *options = NULL;
	char *args[7] = {command, dash_o};
	int code = helper_parse(&h, argc, argv);

	if (code)
		return code;
	if (h.help) {
		printf("usage: mount.tdfs STORE MOUNTPOINT [-sfnv] [-o OPTION[,OPTION]...]\n"
		       "What `mount -t tdfs` and fstab call; `tdfs mount` is the same for people.\n\n");
		mount_options_help();
		return 0;
	}
	if (h.version) {
		printf("mount.tdfs %s\n", TDFS_VERSION);
		return 0;
	}
	if (h.n_pos < 2) {
		report(REPORT_ERROR, "usage: mount.tdfs STORE MOUNTPOINT [-sfnv] [-o OPTION[,OPTION]...]");
		return MOUNT_USAGE;
	}
	if (h.namespace)
		return namespace_refuse(&h);
	if (asprintf(&options, "%s%s%s,%s", has(&h, 's') ? "sloppy," : "", has(&h, 'f') ? "fake," : "", has(&h, 'v') ? "" : "quiet",
		     h.options ? h.options : "") < 0) {
		report(REPORT_ERROR, "out of memory");
		return MOUNT_SYSTEM;
	}
	args[2] = options;
	args[3] = end;
	args[4] = h.pos[0];
	args[5] = h.pos[1];
	return mount_code(options_run(&command_mount, "tdfs", 6, args));
}

/* -f and -l mean now, whatever happens to what is open; else everything is sealed when this returns. */
int helper_umount(int argc, char **argv)
{
	struct helper h = {.name = "umount.fuse.tdfs", .letters = "flnrv", .n_pos_max = 1};
	char command[] = "umount", end[] = "--";
	char *args[4] = {command, end};
	int code = helper_parse(&h, argc, argv);

	if (code)
		return code;
	if (h.n_pos != 1) {
		report(REPORT_ERROR, "usage: %s MOUNTPOINT [-flnrv]", h.name);
		return MOUNT_USAGE;
	}
	if (h.namespace)
		return namespace_refuse(&h);
	args[2] = h.pos[0];
	if (!has(&h, 'f') && !has(&h, 'l'))
		return mount_code(options_run(&command_umount, "tdfs", 3, args));
	if (umount2(h.pos[0], (has(&h, 'l') ? MNT_DETACH : MNT_FORCE) | UMOUNT_NOFOLLOW) == 0)
		return 0;
	report(REPORT_ERROR, "%s: %s", h.pos[0], strerror(errno));
	return MOUNT_FAIL;
}
