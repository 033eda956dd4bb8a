/* SPDX-License-Identifier: Apache-2.0 */
/* tdfs doctor: what this machine or a store's place lacks, and the command that mends it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>

#include "commands.h"
#include "doctor.h"
#include "lazy.h"
#include "report.h"
#include "say.h"
#include "target.h"

struct args {
	bool json;
};

void doctor_tell(struct doctor *d, enum doctor_level level, const char *name, const char *fix, const char *fmt, ...)
{
	static const char *const words[] = {"ok", "note", "BAD"};
	CLEANUP_FREE char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	d->bad |= level == DOCTOR_BAD;
	if (fix && geteuid() == 0 && strncmp(fix, "sudo ", 5) == 0) /* a bare machine has none */
		fix += 5;
	if (d->list) {
		json_t *j = json_pack("{s:s, s:s, s:o}", "check", name, "level", words[level], "text", json_path(text ? text : "?"));

		if (j && fix)
			json_object_set_new(j, "fix", json_string(fix));
		json_array_append_new(d->list, j);
		return;
	}
	printf("%-5s %-10s %s\n", words[level], name, text ? text : "?");
	if (fix)
		printf("%-5s %-10s -> %s\n", "", "", fix);
}

static bool in_path(const char *program, char *ret, size_t max)
{
	const char *path = getenv("PATH");
	CLEANUP_FREE char *copy = strdup(path && *path ? path : "/usr/local/bin:/usr/bin:/bin");
	char *save = NULL;

	for (char *dir = copy ? strtok_r(copy, ":", &save) : NULL; dir; dir = strtok_r(NULL, ":", &save))
		if (snprintf(ret, max, "%s/%s", dir, program) < (int)max && access(ret, X_OK) == 0)
			return true;
	return false;
}

static void fuse_look(struct doctor *d)
{
	char path[512];
	struct stat st;
	CLEANUP_FD int fd = -1;

	if (!in_path("fusermount3", path, sizeof(path)))
		doctor_tell(d, geteuid() ? DOCTOR_BAD : DOCTOR_NOTE, "fuse3", "sudo apt-get install fuse3",
			    "fusermount3 is not installed%s", geteuid() ? ": only root can mount" : "");
	else if (geteuid() && (stat(path, &st) || !(st.st_mode & S_ISUID) || st.st_uid))
		doctor_tell(d, DOCTOR_BAD, "fuse3", "sudo apt-get install --reinstall fuse3", "%s is not setuid root: users cannot mount",
			    path);
	else
		doctor_tell(d, DOCTOR_OK, "fuse3", NULL, "%s", path);
	if (geteuid() && access("/etc/mtab", R_OK))
		doctor_tell(d, DOCTOR_BAD, "mtab", "sudo ln -s /proc/self/mounts /etc/mtab",
			    "/etc/mtab is missing: users can mount, but fusermount3 cannot unmount");
	if (access("/dev/fuse", F_OK)) {
		doctor_tell(d, DOCTOR_BAD, "/dev/fuse", "sudo modprobe fuse   (in a container: --device /dev/fuse --cap-add SYS_ADMIN)",
			    "it is missing");
		return;
	}
	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		doctor_tell(d, DOCTOR_BAD, "/dev/fuse", "sudo chmod 666 /dev/fuse   (in a container: --device /dev/fuse)", "%s",
			    strerror(errno));
	else
		doctor_tell(d, DOCTOR_OK, "/dev/fuse", NULL, "can be opened");
}

static void allow_other_look(struct doctor *d)
{
	FILE *f = fopen("/etc/fuse.conf", "re");
	char line[256];
	bool on = false;

	while (f && fgets(line, sizeof(line), f))
		on |= strncmp(line, "user_allow_other", 16) == 0;
	if (f)
		fclose(f);
	if (on || geteuid() == 0)
		doctor_tell(d, DOCTOR_OK, "allow_other", NULL, "%s",
			    on ? "-o allow_other is open to users" : "root needs no permission for -o allow_other");
	else
		doctor_tell(d, DOCTOR_NOTE, "allow_other", "echo user_allow_other | sudo tee -a /etc/fuse.conf",
			    "users cannot use -o allow_other (only needed to share a mount)");
}

static void cpu_look(struct doctor *d)
{
#if defined(__x86_64__) || defined(__i386__)
	bool fast = __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");

	if (!fast)
		doctor_tell(d, DOCTOR_NOTE, "processor", NULL, "has no AES-NI or PCLMULQDQ: encryption is about 20 times slower");
	else
		doctor_tell(d, DOCTOR_OK, "processor", NULL, "has AES-NI and PCLMULQDQ");
#else
	doctor_tell(d, DOCTOR_NOTE, "processor", NULL, "whether it has AES instructions is not known here");
#endif
}

static void limits_look(struct doctor *d)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		if (r.rlim_max < 4096)
			doctor_tell(d, DOCTOR_NOTE, "files", "ulimit -Hn 65536 (as root), or LimitNOFILE=65536 in the service",
				    "at most %llu open files: many open files at once will fail", (unsigned long long)r.rlim_max);
		else
			doctor_tell(d, DOCTOR_OK, "files", NULL, "%llu open files allowed", (unsigned long long)r.rlim_max);
	}
	if (getrlimit(RLIMIT_MEMLOCK, &r) == 0) {
		if (r.rlim_cur < (64 << 10))
			doctor_tell(d, DOCTOR_NOTE, "memlock", "LimitMEMLOCK=8M in the service, or a line in /etc/security/limits.d",
				    "keys cannot be locked in memory and may reach swap");
		else
			doctor_tell(d, DOCTOR_OK, "memlock", NULL, "keys can be locked in memory");
	}
}

static void tools_look(struct doctor *d)
{
	char path[512];

	if (in_path("unzip", path, sizeof(path)))
		doctor_tell(d, DOCTOR_OK, "unzip", NULL, "%s", path);
	else
		doctor_tell(d, DOCTOR_NOTE, "unzip", "sudo apt-get install unzip",
			    "not installed (only the quickstart and curious people use it)");
}

static void library_look(struct doctor *d, const char *name, const char *what, int err)
{
	if (err)
		doctor_tell(d, DOCTOR_NOTE, name, NULL, "%s", fail_text());
	else
		doctor_tell(d, DOCTOR_OK, name, NULL, "%s", what);
}

static int run(const void *args, int n, char **pos)
{
	const struct args *a = args;
	struct doctor d = {.list = a->json ? json_array() : NULL};
	int code;

	fuse_look(&d);
	allow_other_look(&d);
	cpu_look(&d);
	limits_look(&d);
	tools_look(&d);
	library_look(&d, "curl", "a KAS can be asked", lazy_curl());
	library_look(&d, "jose", "tokens of a KAS can be read", lazy_jose());
	library_look(&d, "microhttpd", "a KAS can be served", lazy_httpd());
	if (n)
		doctor_store(&d, pos[0]);
	code = d.bad ? EXIT_TDFS_FAILED : EXIT_TDFS_OK;
	if (a->json) {
		int said = json_say(json_pack("{s:i, s:b, s:o}", "v", 1, "ok", !d.bad, "checks", d.list));

		code = code ? code : said;
	}
	return code;
}

static const struct option_row rows[] = {
    {OPTION_FLAG, 0, "json", NULL, offsetof(struct args, json), "answer in JSON"},
    {0},
};

const struct command command_doctor = {
    .name = "doctor",
    .summary = "what this machine or a store lacks, and what mends it",
    .usage = "[STORE]",
    .notes = "Needs no secret and changes nothing. Exit code 1: something is BAD.\n",
    .options = rows,
    .args_size = sizeof(struct args),
    .max_args = 1,
    .run = run,
};
