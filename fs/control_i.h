/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of JSON over the control socket.  Private to control.c (the daemon's end), control_client.c and control_line.c. */
#ifndef TDFS_CONTROL_I_H
#define TDFS_CONTROL_I_H

#include <sys/un.h>

#include "control.h"

#define CONTROL_NAME "control"

/* as /proc/self/fd/N/control, so that no store is too deep for sun_path */
void control_address(int dirfd, struct sockaddr_un *ret);
int64_t control_now_ms(void);
/* Wait until @fd is ready; 1, 0 at @until (-1: never), -errno; also 0 when @stop_fd (or -1) becomes readable */
int control_wait(int fd, short events, int stop_fd, int64_t until);
/* One line of at most @max bytes without its newline, malloc'd; -EPROTO too long or none */
int control_read(int fd, size_t max, int stop_fd, int64_t until, char **ret);
int control_write(int fd, const json_t *j, int stop_fd, int64_t until);

#endif
