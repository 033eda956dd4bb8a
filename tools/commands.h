/* SPDX-License-Identifier: Apache-2.0 */
/* The commands, one cmd_*.c each; the order of commands[] is that of the help. */
#ifndef TDFS_COMMANDS_H
#define TDFS_COMMANDS_H

#include "options.h"

extern const struct command command_init, command_mount, command_umount, command_sync, command_quiesce, command_status, command_info,
    command_cat, command_decrypt, command_encrypt, command_convert, command_verify, command_check, command_recover, command_key,
    command_kas, command_login, command_policy, command_share, command_doctor;

extern const struct command *const commands[]; /* NULL-ended */
extern const char help_exit[];                 /* what exit codes mean */

#endif
