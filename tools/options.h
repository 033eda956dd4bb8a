/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands and their options: one table per command is parsed from and printed as help.
 *
 * A command's options go into a struct of its own (zero = not given); each row of the table says where.
 */
#ifndef TDFS_OPTIONS_H
#define TDFS_OPTIONS_H

#include "config.h"
#include "words.h"

enum option_kind {
	OPTION_END,
	OPTION_FLAG,   /* bool */
	OPTION_TEXT,   /* const char *, points into argv */
	OPTION_NUMBER, /* uint64_t, decimal */
	OPTION_SIZE,   /* uint64_t in bytes, with K, M, G, T */
	OPTION_LIST,   /* char *: given several times, joined with commas; malloc'd, freed by options_run() */
};

struct option_row {
	enum option_kind kind;
	char letter; /* or 0 */
	const char *name;
	const char *arg;  /* what the help calls the argument; NULL for a flag */
	size_t off;       /* in the command's struct */
	const char *help; /* NULL: one of those that say where the secret comes from, named only */
};
/* Begins the help of an option that says which KAS is meant: there are many, so --help only names them; kas_options_help() explains. */
#define OF_KAS "\1"
/** option_help() - without that; NULL as above */
const char *option_help(const struct option_row *o);
bool option_is_kas(const struct option_row *o);

struct command {
	const char *name;
	const char *summary;
	const char *usage;  /* what follows "tdfs NAME [OPTION]..." */
	const char *notes;  /* further lines of help, or NULL */
	void (*more)(void); /* prints more of them, or NULL */
	const struct option_row *options;
	size_t args_size;
	int min_args, max_args; /* -1: any number */
	/* @args: the command's struct; returns an exit code, having reported everything */
	int (*run)(const void *args, int n, char **pos);
	const struct command *const *sub; /* NULL-ended: a command of commands (then nothing above but name and summary is used) */
};

/** options_run() - parse argv[1..] for @cmd and run it
 * @prefix: "tdfs" or "tdfs key", for messages
 * Options and arguments may be mixed; what follows `--` is never an option.  --help prints help to standard output.
 * Return: an exit code; usage errors are reported to standard error */
int options_run(const struct command *cmd, const char *prefix, int argc, char **argv);

/** options_list() - one line for each, to standard output */
void options_list(const struct option_row *rows);
/** command_help() - help of one command to standard output; fits 80 columns and 24 lines */
void command_help(const struct command *cmd, const char *prefix);
/** mount_options_names(), mount_options_help() - the options of -o: their names; one a line with its meaning */
void mount_options_names(void);
void mount_options_help(void);
/** command_find() - by name; NULL: none, and "did you mean" has been reported */
const struct command *command_find(const struct command *const *table, const char *prefix, const char *name);
/** command_list() - "  name    summary" lines */
void command_list(const struct command *const *table);

#endif
