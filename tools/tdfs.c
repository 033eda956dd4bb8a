/* SPDX-License-Identifier: Apache-2.0 */
/* The one program: finds the command and runs it. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include "commands.h"
#include "helper.h"
#include "kas_source.h"
#include "report.h"
#include "say.h"
#include "secret.h"

static void help(void)
{
	/* a screen has 24 lines, and there are 20 commands */
	printf("usage: tdfs COMMAND [OPTION]... [ARGUMENT]...   files at rest are OpenTDF files\n");
	command_list(commands);
	printf("\n'tdfs COMMAND --help' tells more; 'tdfs help secrets': how to give passphrases,\n"
	       "'help options': what -o of a mount may hold, 'help kas-options', 'help exit'.\n");
}

static void help_secrets(void)
{
	printf("A volume opens with any one of its key slots. The secret is asked for on the\n"
	       "terminal unless one of these says where it comes from:\n\n"
	       "  --passfile FILE  first line of FILE, which others may not read\n"
	       "  --passfd N       first line from the open descriptor N\n"
	       "  --extpass CMD    first line that `sh -c CMD` prints\n"
	       "  --keyfile FILE   the whole FILE is the key (16 bytes to 1 MiB)\n"
	       "  --recovery       what is asked for or given is a recovery key\n"
	       "  --kas-trust FILE a KAS that FILE trusts for the store opens it\n"
	       "  --kas-socket PATH  a running `tdfs kas serve --socket PATH` gives the key\n\n"
	       "A systemd service gets it from LoadCredential=tdfs.passphrase:FILE by itself.\n"
	       "Then, before the terminal, a KAS is asked that ~/.config/tdfs/kas.json or\n"
	       "/etc/tdfs/kas.json trusts for this store (`tdfs key add --kas`).\n"
	       "In -o of a mount: passfile=, passfd=, extpass=, keyfile=, recovery, kas_trust=,\n"
	       "kas_socket=.\n"
	       "No secret is ever taken from the command line or the environment.\n");
}

static int help_command(int argc, char **argv)
{
	const struct command *cmd;

	if (argc < 2) {
		help();
		return EXIT_TDFS_OK;
	}
	if (strcmp(argv[1], "secrets") == 0) {
		help_secrets();
		return EXIT_TDFS_OK;
	}
	if (strcmp(argv[1], "exit") == 0) {
		fputs(help_exit, stdout);
		return EXIT_TDFS_OK;
	}
	if (strcmp(argv[1], "kas-options") == 0) {
		kas_options_help();
		return EXIT_TDFS_OK;
	}
	if (strcmp(argv[1], "options") == 0) {
		mount_options_help();
		return EXIT_TDFS_OK;
	}
	cmd = command_find(commands, "tdfs", argv[1]);
	if (!cmd)
		return EXIT_TDFS_USAGE;
	if (cmd->sub && argc > 2) {
		char prefix[32];

		snprintf(prefix, sizeof(prefix), "tdfs %s", cmd->name);
		const struct command *sub = command_find(cmd->sub, prefix, argv[2]);

		if (!sub)
			return EXIT_TDFS_USAGE;
		command_help(sub, prefix);
	} else {
		command_help(cmd, "tdfs");
	}
	return EXIT_TDFS_OK;
}

/* Descriptors 0 to 2 must be somebody's: else a store file could get one of them and receive our messages. */
static void streams_check(void)
{
	FILE *f;

	do
		f = fopen("/dev/null", "r+");
	while (f && fileno(f) <= STDERR_FILENO);
	if (f)
		fclose(f);
}

static int run(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/'), *name = slash ? slash + 1 : argv[0];
	const struct command *cmd;

	if (strncmp(name, "mount.", 6) == 0)
		return helper_mount(argc, argv);
	if (strncmp(name, "umount.", 7) == 0)
		return helper_umount(argc, argv);
	if (argc < 2) {
		report(REPORT_ERROR, "no command given; 'tdfs --help' lists them");
		return EXIT_TDFS_USAGE;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		printf("tdfs %s\n", TDFS_VERSION);
		return EXIT_TDFS_OK;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		help();
		return EXIT_TDFS_OK;
	}
	if (strcmp(argv[1], "help") == 0)
		return help_command(argc - 1, argv + 1);
	if (strchr(argv[1], '/') && argv[1][0] != '-') /* mount.fuse3 calls `tdfs STORE MNT -o ...` */
		return options_run(&command_mount, "tdfs", argc, argv);
	cmd = command_find(commands, "tdfs", argv[1]);
	return cmd ? options_run(cmd, "tdfs", argc - 1, argv + 1) : EXIT_TDFS_USAGE;
}

int main(int argc, char **argv)
{
	struct rlimit files;

	streams_check();
	setvbuf(stdout, NULL, _IOLBF, 0); /* so that it stays in order with standard error */
	if (argc < 1)
		return EXIT_TDFS_USAGE;
	process_private();
	/* walks keep a descriptor per level */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	return output_flush(run(argc, argv));
}
