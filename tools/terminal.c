/* SPDX-License-Identifier: Apache-2.0 */
#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <termios.h>

#include "report.h"
#include "secret.h"

#define SECRET_LINE_MAX 4096

/* Signals arrive as reads here, so that the terminal can be put right before they act; no handler, no global state. */
struct terminal {
	int fd, signals;
	struct termios saved;
	sigset_t old_mask;
};

static int echo_off(const struct terminal *t)
{
	struct termios quiet = t->saved;

	quiet.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK | ECHONL);
	quiet.c_lflag |= ICANON | ISIG;
	return tcsetattr(t->fd, TCSAFLUSH, &quiet) ? -errno : 0;
}

static void say(const struct terminal *t, const char *text)
{
	while (write(t->fd, text, strlen(text)) < 0 && errno == EINTR)
		;
}

static int terminal_open(struct terminal *t)
{
	sigset_t caught;

	t->signals = -1;
	t->fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (t->fd < 0)
		return fail(-ENXIO, "there is no terminal to ask for the secret on; give --passfile, --passfd, --extpass or --keyfile");
	if (tcgetattr(t->fd, &t->saved))
		return -errno;
	sigemptyset(&caught);
	for (size_t i = 0; i < 5; i++)
		sigaddset(&caught, (const int[]){SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP}[i]);
	pthread_sigmask(SIG_BLOCK, &caught, &t->old_mask);
	t->signals = signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK);
	return t->signals < 0 ? -errno : 0;
}

static void terminal_close(struct terminal *t)
{
	if (t->signals >= 0) {
		close(t->signals);
		pthread_sigmask(SIG_SETMASK, &t->old_mask, NULL);
	}
	if (t->fd >= 0)
		close(t->fd);
}

/* Let a signal do what it would have done, with the terminal as it was; returns only from a stop or an ignored signal. */
static int signal_pass(struct terminal *t)
{
	struct signalfd_siginfo info;
	sigset_t one, before;

	if (read(t->signals, &info, sizeof(info)) != sizeof(info))
		return 0;
	tcsetattr(t->fd, TCSAFLUSH, &t->saved);
	say(t, "\n");
	sigemptyset(&one);
	sigaddset(&one, (int)info.ssi_signo);
	raise((int)info.ssi_signo);
	pthread_sigmask(SIG_UNBLOCK, &one, &before);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return info.ssi_signo == SIGTSTP ? 1 : -EINTR;
}

/* A canonical terminal hands over whole lines. */
static int line_get(struct terminal *t, const char *prompt, uint8_t *buf, size_t *ret_len)
{
	for (;;) {
		struct pollfd p[2] = {{t->fd, POLLIN, 0}, {t->signals, POLLIN, 0}};
		ssize_t n;
		int err;

		if (poll(p, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		if (p[1].revents) {
			err = signal_pass(t);
			if (err < 0)
				return fail(err, "interrupted");
			err = echo_off(t);
			if (err)
				return err;
			say(t, prompt);
			continue;
		}
		n = read(t->fd, buf, SECRET_LINE_MAX);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return fail(-EINTR, "no secret was typed: end of input");
		if (buf[n - 1] == '\n')
			n--;
		if (n == 0)
			return fail(-EINVAL, "nothing was typed: an empty secret is refused");
		*ret_len = (size_t)n;
		return 0;
	}
}

int terminal_ask(const char *prompt, uint8_t **ret_line, size_t *ret_len)
{
	struct terminal t;
	uint8_t *buf = NULL;
	size_t len = 0;
	int err = terminal_open(&t);

	if (!err)
		err = echo_off(&t);
	if (!err) {
		buf = malloc(SECRET_LINE_MAX);
		say(&t, prompt);
		err = buf ? line_get(&t, prompt, buf, &len) : -ENOMEM;
		tcsetattr(t.fd, TCSAFLUSH, &t.saved);
		say(&t, "\n");
	}
	terminal_close(&t);
	if (err) {
		if (buf)
			wipe(buf, SECRET_LINE_MAX);
		free(buf);
		return err;
	}
	*ret_line = buf;
	*ret_len = len;
	return 0;
}
