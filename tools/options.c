/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <errno.h>
#include <stdio.h>

#include "report.h"

#define HELP_WIDTH 80
#define HELP_COLUMN 24
#define HELP_OPTION 18

const struct command *command_find(const struct command *const *table, const char *prefix, const char *name)
{
	const char *best = NULL;
	unsigned best_distance = 0;

	for (size_t i = 0; table[i]; i++) {
		if (strcmp(table[i]->name, name) == 0)
			return table[i];
		word_nearer(name, table[i]->name, &best, &best_distance);
	}
	if (best)
		report(REPORT_ERROR, "no command '%s'; did you mean '%s %s'?", name, prefix, best);
	else
		report(REPORT_ERROR, "no command '%s'; '%s --help' lists them", name, prefix);
	return NULL;
}

void command_list(const struct command *const *table)
{
	for (size_t i = 0; table[i]; i++)
		printf("  %-9s %s\n", table[i]->name, table[i]->summary);
}

static int option_text(const struct option_row *o, char *ret, size_t max)
{
	char letter[8] = "    ";

	if (o->letter)
		snprintf(letter, sizeof(letter), "-%c, ", o->letter);
	return snprintf(ret, max, "%s--%s%s%s", letter, o->name, o->arg ? " " : "", o->arg ? o->arg : "");
}

bool option_is_kas(const struct option_row *o)
{
	return o->help && *o->help == *OF_KAS;
}

const char *option_help(const struct option_row *o)
{
	return o->help + option_is_kas(o);
}

void options_list(const struct option_row *rows)
{
	for (const struct option_row *o = rows; o->kind != OPTION_END; o++) {
		char left[64];

		option_text(o, left, sizeof(left));
		printf("  %-*s %s\n", HELP_COLUMN, left, option_help(o));
	}
}

/* Those that are only named */
static void help_group(const struct option_row *options, bool kas)
{
	char word[64];
	int col = HELP_WIDTH;

	printf(kas ? "  Which KAS, and who we are to it (tdfs help kas-options):"
		   : "  Secret, asked for unless given by one of these (tdfs help secrets):");
	for (const struct option_row *o = options; o->kind != OPTION_END; o++) {
		int len;

		if (kas ? !option_is_kas(o) : o->help != NULL)
			continue;
		len = snprintf(word, sizeof(word), "--%s", o->name);
		if (col + 1 + len >= HELP_WIDTH) {
			printf("\n   ");
			col = 3;
		}
		printf(" %s", word);
		col += len + 1;
	}
	printf("\n");
}

void command_help(const struct command *cmd, const char *prefix)
{
	bool secrets = false, kas = false;

	if (cmd->sub) {
		printf("usage: %s %s COMMAND [OPTION]...\n%s\n\n", prefix, cmd->name, cmd->summary);
		command_list(cmd->sub);
		printf("\n'%s %s COMMAND --help' tells more.\n", prefix, cmd->name);
		return;
	}
	printf("usage: %s %s [OPTION]... %s\n%s\n\n", prefix, cmd->name, cmd->usage, cmd->summary);
	for (const struct option_row *o = cmd->options; o && o->kind != OPTION_END; o++) {
		char left[64];

		secrets |= !o->help;
		kas |= option_is_kas(o);
		if (!o->help || option_is_kas(o))
			continue;
		option_text(o, left, sizeof(left));
		printf("  %-*s %s\n", HELP_COLUMN, left, o->help);
	}
	if (kas)
		help_group(cmd->options, true);
	if (secrets)
		help_group(cmd->options, false);
	if (cmd->notes)
		printf("\n%s", cmd->notes);
	if (cmd->more)
		cmd->more();
}

static void option_word(const struct mount_option *o, char *ret, size_t max)
{
	snprintf(ret, max, "%s%s%s", o->name, o->arg ? "=" : "", o->arg ? o->arg : "");
}

void mount_options_names(void)
{
	const struct mount_option *o;
	char word[64];
	int col = HELP_WIDTH;
	size_t n;

	printf("\n  -o LIST may hold (tdfs help options):");
	o = config_options(&n);
	for (size_t i = 0; i < n; i++) {
		if (!o[i].help)
			continue;
		option_word(&o[i], word, sizeof(word));
		if (col + (int)strlen(word) + 2 > HELP_WIDTH - 1) {
			printf("\n   ");
			col = 3;
		}
		printf(" %s", word);
		col += (int)strlen(word) + 1;
	}
	printf("\n");
}

/* @text behind a first column of HELP_OPTION, words kept whole */
static void print_wrapped(const char *text)
{
	int room = HELP_WIDTH - HELP_OPTION;

	while ((int)strlen(text) > room) {
		int n = room;

		while (n && text[n] != ' ')
			n--;
		if (!n)
			break;
		printf("%.*s\n%*s", n, text, HELP_OPTION, "");
		text += n + 1;
	}
	printf("%s\n", text);
}

void mount_options_help(void)
{
	const struct mount_option *o;
	char word[64];
	size_t n;

	printf("What -o of a mount and fstab may hold, separated by commas.  In a value \\, is a\ncomma, or the value stands in "
	       "\"quotes\".\n\n");
	o = config_options(&n);
	for (size_t i = 0; i < n; i++) {
		if (!o[i].help)
			continue;
		option_word(&o[i], word, sizeof(word));
		printf("  %-*s ", HELP_OPTION - 3, word);
		print_wrapped(o[i].help);
	}
}

/* Join a repeated option with a comma. */
static int list_add(char **list, const char *value)
{
	char *joined = NULL;

	if (*list) {
		if (asprintf(&joined, "%s,%s", *list, value) < 0)
			return -ENOMEM;
	} else {
		joined = strdup(value);
		if (!joined)
			return -ENOMEM;
	}
	free(*list);
	*list = joined;
	return 0;
}

static int option_store(const struct option_row *o, void *args, const char *value)
{
	void *p = (char *)args + o->off;

	switch (o->kind) {
	case OPTION_FLAG:
		*(bool *)p = true;
		return 0;
	case OPTION_TEXT:
		*(const char **)p = value;
		return 0;
	case OPTION_NUMBER:
		return number_parse(value, p);
	case OPTION_SIZE:
		return size_parse(value, p);
	case OPTION_LIST:
		return list_add(p, value);
	case OPTION_END:
		break;
	}
	return -EINVAL;
}

static const struct option_row *option_long(const struct command *cmd, const char *prefix, const char *name, size_t len)
{
	const char *best = NULL;
	unsigned best_distance = 0;
	char word[40];

	snprintf(word, sizeof(word), "%.*s", (int)MIN(len, sizeof(word) - 1), name);
	for (const struct option_row *o = cmd->options; o && o->kind != OPTION_END; o++) {
		if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
			return o;
		word_nearer(word, o->name, &best, &best_distance);
	}
	if (best)
		report(REPORT_ERROR, "no option '--%s'; did you mean '--%s'?", word, best);
	else
		report(REPORT_ERROR, "no option '--%s'; see '%s %s --help'", word, prefix, cmd->name);
	return NULL;
}

static const struct option_row *option_short(const struct command *cmd, const char *prefix, char letter)
{
	for (const struct option_row *o = cmd->options; o && o->kind != OPTION_END; o++)
		if (o->letter == letter)
			return o;
	report(REPORT_ERROR, "no option '-%c'; see '%s %s --help'", letter, prefix, cmd->name);
	return NULL;
}

/* Cursor over argv. */
struct scan {
	int argc, i;
	char **argv;
};

static int option_value(const struct option_row *o, void *args, const char *value, struct scan *s)
{
	if (o->kind != OPTION_FLAG && !value) {
		if (s->i + 1 >= s->argc) {
			report(REPORT_ERROR, "option '--%s' needs an argument (%s)", o->name, o->arg);
			return -EINVAL;
		}
		value = s->argv[++s->i];
	}
	if (option_store(o, args, value)) {
		report(REPORT_ERROR, "option '--%s': '%s' is not a %s", o->name, value,
		       o->kind == OPTION_SIZE ? "size (64K, 1M, 65536)" : "number");
		return -EINVAL;
	}
	return 0;
}

static int parse_long(const struct command *cmd, const char *prefix, void *args, struct scan *s)
{
	const char *name = s->argv[s->i] + 2, *value = strchr(name, '=');
	const struct option_row *o = option_long(cmd, prefix, name, value ? (size_t)(value - name) : strlen(name));

	if (!o)
		return -EINVAL;
	if (value && o->kind == OPTION_FLAG) {
		report(REPORT_ERROR, "option '--%s' takes no argument", o->name);
		return -EINVAL;
	}
	return option_value(o, args, value ? value + 1 : NULL, s);
}

static int parse_short(const struct command *cmd, const char *prefix, void *args, struct scan *s)
{
	for (const char *p = s->argv[s->i] + 1; *p; p++) {
		const struct option_row *o = option_short(cmd, prefix, *p);

		if (!o)
			return -EINVAL;
		if (o->kind != OPTION_FLAG)
			return option_value(o, args, p[1] ? p + 1 : NULL, s);
		if (option_value(o, args, NULL, s))
			return -EINVAL;
	}
	return 0;
}

static int parse(const struct command *cmd, const char *prefix, void *args, struct scan *s, char **pos, int *ret_n, bool *ret_help)
{
	bool only_args = false;
	int n = 0;

	for (s->i = 1; s->i < s->argc; s->i++) {
		const char *a = s->argv[s->i];
		int err = 0;

		if (!only_args && strcmp(a, "--") == 0)
			only_args = true;
		else if (!only_args && (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0))
			*ret_help = true;
		else if (!only_args && a[0] == '-' && a[1] == '-')
			err = parse_long(cmd, prefix, args, s);
		else if (!only_args && a[0] == '-' && a[1])
			err = parse_short(cmd, prefix, args, s);
		else
			pos[n++] = s->argv[s->i];
		if (err)
			return err;
		if (*ret_help)
			break;
	}
	*ret_n = n;
	return 0;
}

static void args_free(const struct command *cmd, void *args)
{
	for (const struct option_row *o = cmd->options; args && o && o->kind != OPTION_END; o++)
		if (o->kind == OPTION_LIST)
			free(*(char **)((char *)args + o->off));
	free(args);
}

static int run_sub(const struct command *cmd, const char *prefix, int argc, char **argv)
{
	const struct command *sub;
	char deeper[64];

	if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		command_help(cmd, prefix);
		return EXIT_TDFS_OK;
	}
	snprintf(deeper, sizeof(deeper), "%s %s", prefix, cmd->name);
	if (argc < 2) {
		report(REPORT_ERROR, "usage: %s COMMAND ...; '%s --help' lists them", deeper, deeper);
		return EXIT_TDFS_USAGE;
	}
	sub = command_find(cmd->sub, deeper, argv[1]);
	return sub ? options_run(sub, deeper, argc - 1, argv + 1) : EXIT_TDFS_USAGE;
}

int options_run(const struct command *cmd, const char *prefix, int argc, char **argv)
{
	struct scan s = {argc, 1, argv};
	CLEANUP_FREE char **pos = NULL;
	void *args;
	bool help = false;
	int n = 0, code = EXIT_TDFS_USAGE;

	if (cmd->sub)
		return run_sub(cmd, prefix, argc, argv);
	pos = calloc((size_t)argc + 1, sizeof(*pos));
	args = calloc(1, MAX(cmd->args_size, 1));
	if (!pos || !args) {
		report(REPORT_ERROR, "out of memory");
		code = EXIT_TDFS_FAILED;
	} else if (parse(cmd, prefix, args, &s, pos, &n, &help) == 0) {
		if (help) {
			command_help(cmd, prefix);
			code = EXIT_TDFS_OK;
		} else if (n < cmd->min_args || (cmd->max_args >= 0 && n > cmd->max_args)) {
			report(REPORT_ERROR, "usage: %s %s [OPTION]... %s; '%s %s --help' tells more", prefix, cmd->name, cmd->usage,
			       prefix, cmd->name);
		} else {
			code = cmd->run(args, n, pos);
		}
	}
	args_free(cmd, args);
	return code;
}
