/* SPDX-License-Identifier: Apache-2.0 */
/* Not installed: fills the templates of manual pages and completions from the tables that --help is printed from.  `tdfs-doc TEMPLATE` */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "commands.h"

/* For each command that can be run, with what stands before its name */
static void each_command(const struct command *const *table, const char *prefix,
			 void (*each)(const struct command *cmd, const char *prefix))
{
	char deeper[64];

	for (size_t i = 0; table[i]; i++) {
		snprintf(deeper, sizeof(deeper), "%s%s%s", prefix, *prefix ? " " : "", table[i]->name);
		each(table[i], prefix);
		if (table[i]->sub)
			each_command(table[i]->sub, deeper, each);
	}
}

static bool has_options(const struct command *cmd)
{
	return cmd->options && cmd->options->kind != OPTION_END;
}

/* --- manual pages --- */

/* Text of a line that is no request: roff's own characters escaped, the dashes of options kept */
static void roff_text(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		bool starts = !i || strchr(" `('-", s[i - 1]);

		if (!i && (s[i] == '.' || s[i] == '\''))
			printf("\\&");
		if (s[i] == '\\')
			printf("\\e");
		else if (s[i] == '-' && starts)
			printf("\\-");
		else if (s[i] == '`')
			printf("\\(ga");
		else
			putchar(s[i]);
	}
	putchar('\n');
}

/* A sentence a line, as mdoc wants it */
static void roff_lines(const char *s)
{
	while (*s) {
		size_t len = strcspn(s, "\n"), n = 0;

		while (n < len && !(strchr(".:", s[n]) && s[n + 1] == ' ' && (isupper((unsigned char)s[n + 2]) || s[n + 2] == '`')))
			n++;
		n += n < len;
		roff_text(s, n);
		s += n + strspn(s + n, " ");
		s += *s == '\n';
	}
}

static void man_option(const struct option_row *o)
{
	printf(".It ");
	if (o->letter)
		printf("Fl %c , ", o->letter);
	printf("Fl \\-%s", o->name);
	if (o->arg)
		printf(" Ar %s", o->arg);
	printf("\n");
	roff_lines(option_help(o));
}

/* Lines of notes that stand in columns stay as they are */
static void man_notes(const char *notes)
{
	if (notes[0] != ' ') {
		printf(".Pp\n");
		roff_lines(notes);
		return;
	}
	printf(".Bd -literal\n");
	for (size_t len; *notes; notes += len + (notes[len] == '\n')) {
		len = strcspn(notes, "\n");
		roff_text(notes, len);
	}
	printf(".Ed\n");
}

static void man_command(const struct command *cmd, const char *prefix)
{
	bool secrets = false, open = false;

	if (cmd->sub)
		return;
	printf(".Ss tdfs %s%s%s%s %s\n", prefix, *prefix ? " " : "", cmd->name, has_options(cmd) ? " [options]" : "", cmd->usage);
	printf("%c", toupper((unsigned char)cmd->summary[0]));
	roff_lines(cmd->summary + 1);
	for (const struct option_row *o = cmd->options; o && o->kind != OPTION_END; o++) {
		if (!o->help) {
			secrets = true;
			continue;
		}
		if (!open)
			printf(".Bl -tag -width Ds\n");
		open = true;
		man_option(o);
	}
	if (open)
		printf(".El\n");
	if (secrets)
		printf(".Pp\nTakes the options of\n.Sx SECRETS\nas well.\n");
	if (cmd->notes)
		man_notes(cmd->notes);
}

static void man_commands(void)
{
	each_command(commands, "", man_command);
}

static void man_mount_options(void)
{
	size_t n;
	const struct mount_option *o = config_options(&n);

	printf(".Bl -tag -width Ds\n");
	for (size_t i = 0; i < n; i++) {
		if (!o[i].help)
			continue;
		printf(".It Cm %s%s", o[i].name, o[i].arg ? "=" : "");
		if (o[i].arg)
			printf(" Ns Ar %s", o[i].arg);
		printf("\n");
		roff_lines(o[i].help);
	}
	printf(".El\n");
}

static void man_exit(void)
{
	printf(".Bd -literal\n%s.Ed\n", help_exit);
}

/* --- completions --- */

static void words_of(const struct command *const *table)
{
	for (size_t i = 0; table[i]; i++)
		printf("%s%s", i ? " " : "", table[i]->name);
}

static void bash_subs_of(const struct command *cmd, const char *prefix)
{
	if (!cmd->sub)
		return;
	printf("\t'%s%s%s') echo '", prefix, *prefix ? " " : "", cmd->name);
	words_of(cmd->sub);
	printf("' ;;\n");
}

static void bash_subs(void)
{
	printf("\t'') echo '");
	words_of(commands);
	printf(" help' ;;\n");
	each_command(commands, "", bash_subs_of);
}

static void bash_options_of(const struct command *cmd, const char *prefix)
{
	if (cmd->sub)
		return;
	printf("\t'%s%s%s') echo '--help", prefix, *prefix ? " " : "", cmd->name);
	for (const struct option_row *o = cmd->options; o && o->kind != OPTION_END; o++) {
		if (o->letter)
			printf(" -%c%s%s", o->letter, o->arg ? "=" : "", o->arg ? o->arg : "");
		printf(" --%s%s%s", o->name, o->arg ? "=" : "", o->arg ? o->arg : "");
	}
	printf("' ;;\n");
}

static void bash_options(void)
{
	each_command(commands, "", bash_options_of);
}

static void mount_words(void)
{
	size_t n;
	const struct mount_option *o = config_options(&n);

	for (size_t i = 0; i < n; i++)
		if (o[i].help)
			printf("\t%s%s\n", o[i].name, o[i].arg ? "=" : "");
}

/* What stands in '[...:...]' of _arguments */
static void zsh_text(const char *s)
{
	for (; *s && *s != '\n'; s++) {
		if (strchr("[]:\\", *s))
			putchar('\\');
		if (*s == '\'')
			printf("'\\'");
		putchar(*s);
	}
}

static const char *zsh_action(const char *arg)
{
	static const struct {
		const char *word, *action;
	} known[] = {{"LIST", "_tdfs_list"}, {"FILE", "_files"}, {"STORE", "_files -/"}, {"DIR", "_files -/"}, {"PLAN", "_files -/"}};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(arg, known[i].word) == 0)
			return known[i].action;
	return " ";
}

static void zsh_option(const struct option_row *o)
{
	if (o->letter)
		printf("'(-%c --%s)'{-%c%s,--%s%s}'", o->letter, o->name, o->letter, o->arg ? "+" : "", o->name, o->arg ? "=" : "");
	else
		printf("'--%s%s", o->name, o->arg ? "=" : "");
	printf("[");
	zsh_text(o->help ? option_help(o) : "where the secret comes from");
	printf("]");
	if (o->arg)
		printf(":%s:%s", o->arg, zsh_action(o->arg));
	printf("' ");
}

static void zsh_command(const struct command *cmd, const char *prefix)
{
	if (cmd->sub)
		return;
	printf("\t'%s%s%s') _arguments -s '--help[show help]' ", prefix, *prefix ? " " : "", cmd->name);
	for (const struct option_row *o = cmd->options; o && o->kind != OPTION_END; o++)
		zsh_option(o);
	printf("'*:%s:_tdfs_place' ;;\n", strncmp(cmd->usage, "MOUNTPOINT", 10) == 0 ? "mount point or store" : "file");
}

static void zsh_commands(void)
{
	each_command(commands, "", zsh_command);
}

static void zsh_describe_table(const struct command *const *table)
{
	for (size_t i = 0; table[i]; i++) {
		printf(" '%s:", table[i]->name);
		zsh_text(table[i]->summary);
		printf("'");
	}
}

static void zsh_describe(const struct command *cmd, const char *prefix)
{
	if (!cmd->sub)
		return;
	printf("\t'%s%s%s') list=(", prefix, *prefix ? " " : "", cmd->name);
	zsh_describe_table(cmd->sub);
	printf(") ;;\n");
}

static void zsh_subs(void)
{
	printf("\t'') list=(");
	zsh_describe_table(commands);
	printf(" 'help:tells more of a command') ;;\n");
	each_command(commands, "", zsh_describe);
}

static int fill(FILE *in)
{
	static const struct {
		const char *line;
		void (*print)(void);
	} known[] = {
	    {"@MAN_COMMANDS@\n", man_commands}, {"@MAN_MOUNT_OPTIONS@\n", man_mount_options},
	    {"@MAN_EXIT@\n", man_exit},         {"@BASH_SUBS@\n", bash_subs},
	    {"@BASH_OPTIONS@\n", bash_options}, {"@MOUNT_WORDS@\n", mount_words},
	    {"@ZSH_COMMANDS@\n", zsh_commands}, {"@ZSH_SUBS@\n", zsh_subs},
	};
	CLEANUP_FREE char *line = NULL;
	size_t room = 0;

	while (getline(&line, &room, in) > 0) {
		size_t i = 0;

		while (i < ARRAY_SIZE(known) && strcmp(line, known[i].line) != 0)
			i++;
		if (i < ARRAY_SIZE(known)) {
			known[i].print();
		} else if (line[0] == '@') {
			fprintf(stderr, "tdfs-doc: unknown: %s", line);
			return 1;
		} else {
			fputs(line, stdout);
		}
	}
	return ferror(in) || fflush(stdout) ? 1 : 0;
}

int main(int argc, char **argv)
{
	FILE *in = argc == 2 ? fopen(argv[1], "re") : NULL;
	int code;

	if (!in) {
		fprintf(stderr, "usage: tdfs-doc TEMPLATE\n");
		return 2;
	}
	code = fill(in);
	fclose(in);
	return code;
}
